"""Observations normalised by their running moments, which merge exactly over agents.

An agent sends the count, the mean and the sum of squared distances from the mean of what it observed, and nothing else
of its observations. The server merges them (Chan, Golub and LeVeque, 1983), so that its moments are those of all
agents' observations together. Sums about 0 would add up as they are, but lose what is left of them where observations
lie far from 0.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from fedrax.environments.base import Box, Dict, Observation, Tokens, has_goals
from fedrax.environments.goals import ACHIEVED, DESIRED
from fedrax.environments.tasks import MASK, is_mask

CLIP = 5.0
"""Normalised numbers lie within this of 0 (Andrychowicz et al., 2017)."""
LEAST_DEVIATION = 1e-2
"""What a number is divided by at least, so that one that never changes stays small (the same)."""


class Moments(eqx.Module):
    """Of observations of one array."""

    count: Float[Array, "*o"]
    """Of each number, as masks may leave some out; exact up to 2 ** 24."""
    mean: Float[Array, "*o"]
    spread: Float[Array, "*o"]
    """Sum of squared distances from the mean."""

    @staticmethod
    def none(shape: tuple[int, ...]) -> Moments:
        """Of no observation."""
        return Moments(jnp.zeros(shape), jnp.zeros(shape), jnp.zeros(shape))

    @staticmethod
    def of(x: Float[Array, "*b"], valid: Bool[Array, "*n"], mask: Float[Array, "*b"] | None = None) -> Moments:
        """Of the observations ``[*n, *o]`` that are valid, without numbers whose ``mask`` is 0."""
        axes = tuple(range(valid.ndim))
        weight = jnp.expand_dims(valid, tuple(range(valid.ndim, x.ndim))).astype(x.dtype)
        weight = jnp.broadcast_to(weight, x.shape) if mask is None else weight * mask
        count = weight.sum(axes)
        mean = (weight * x).sum(axes) / jnp.maximum(count, 1.0)
        return Moments(count, mean, (weight * (x - mean) ** 2).sum(axes))

    def merged(self, other: Moments) -> Moments:
        """Of both together."""
        count = self.count + other.count
        share = other.count / jnp.maximum(count, 1.0)
        apart = other.mean - self.mean
        spread = self.spread + other.spread + apart**2 * self.count * share
        return Moments(count, self.mean + apart * share, spread)

    def together(self, present: Bool[Array, " n"]) -> Moments:
        """Of ``n`` agents, leaves ``[n, *o]``: the moments of the observations of all who are present."""
        count = jnp.where(jnp.expand_dims(present, range(1, self.count.ndim)), self.count, 0.0)
        total = jnp.maximum(count.sum(0), 1.0)
        # Twice: where observations lie far from 0, the first mean is not exact enough to measure distances from.
        rough = (count * self.mean).sum(0) / total
        mean = rough + (count * (self.mean - rough)).sum(0) / total
        spread = jnp.where(count > 0, self.spread, 0.0) + count * (self.mean - mean) ** 2
        return Moments(count.sum(0), mean, spread.sum(0))

    def normalised(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """Less the mean, divided by the standard deviation, and clipped; as it is before anything was observed."""
        return jnp.where(self.count > 0, jnp.clip((x - self.mean) / self.deviation, -CLIP, CLIP), x)

    @property
    def deviation(self) -> Array:
        """What observations are divided by, ``[*o]``: their standard deviation, or 1 before anything was observed."""
        variance = jnp.maximum(self.spread, 0.0) / jnp.maximum(self.count, 1.0)
        return jnp.where(self.count > 0, jnp.maximum(jnp.sqrt(variance), LEAST_DEVIATION), 1.0)


class Normaliser(eqx.Module):
    """What an agent's networks see observations by: :class:`Moments` of each array of real numbers, None of others: of
    images, of words, and of what is 0 or 1.

    Of a goal environment's two goals there is one, as hindsight puts achieved goals in place of desired ones. Padding
    does not count, and stays 0.
    """

    shared: PyTree
    """Of all agents' observations, as last received; of none where nothing is received."""
    own: PyTree
    """Of what the agent observed since."""
    masked: tuple[str, ...] = eqx.field(static=True, default=())
    """Parts of an observation beside which a mask stands."""

    @staticmethod
    def fresh(space: Box | Dict) -> Normaliser:
        """Of observations of this space, before the first."""

        def none(part: Box | Tokens) -> Moments | None:
            normal = isinstance(part, Box) and part.seen == np.float32 and part.dtype != "bool"
            return Moments.none(part.shape) if normal else None

        if isinstance(space, Box):
            return Normaliser(none(space), none(space))
        parts = space.tree
        skipped = {DESIRED} if has_goals(space) else set()
        shared, own = ({name: none(part) for name, part in parts.items() if name not in skipped} for _ in range(2))
        return Normaliser(shared, own, tuple(name for name in parts if is_mask(parts.get(name + MASK), parts[name])))

    def __call__(self, observation: Observation) -> Observation:
        """Observations, leaves ``[..., *o]``, normalised."""
        moments = _each(Moments.merged, self.shared, self.own)
        if not isinstance(observation, dict):
            return _normalised(moments, observation)
        return {
            name: _normalised(moments[_of(name, moments)], x, self._mask(observation, name))
            for name, x in observation.items()
        }

    def observe(self, observation: Observation, valid: Bool[Array, "*n"]) -> Normaliser:
        """With observations, leaves ``[*n, *o]``, where they are valid."""
        if not isinstance(observation, dict):
            return dataclasses.replace(self, own=_merged(self.own, observation, valid))
        own = dict(self.own)
        for name, x in observation.items():
            own[_of(name, own)] = _merged(own[_of(name, own)], x, valid, self._mask(observation, name))
        return dataclasses.replace(self, own=own)

    def pooled(self, moments: PyTree, present: Bool[Array, " n"]) -> PyTree:
        """The shared moments with those of the agents, leaves ``[n, ...]``, who are present."""
        return _each(lambda shared, each: shared.merged(each.together(present)), self.shared, moments)

    def settled(self) -> Normaliser:
        """All that was observed as if received: networks that others start from see observations as they did."""
        own = jax.tree.map(jnp.zeros_like, self.own)
        return dataclasses.replace(self, shared=_each(Moments.merged, self.shared, self.own), own=own)

    def scales(self) -> PyTree:
        """What observations are normalised by: ``mean`` and ``deviation`` of each array, ``[*o]``, None of others."""

        def of(moments: Moments | None) -> dict[str, Array] | None:
            return None if moments is None else {"mean": moments.mean, "deviation": moments.deviation}

        return jax.tree.map(of, self.settled().shared, is_leaf=lambda x: isinstance(x, Moments))

    def received(self, shared: PyTree) -> Normaliser:
        """As a server's broadcast says; what the agent observed before is in it, as far as it arrived."""
        return dataclasses.replace(self, shared=shared, own=jax.tree.map(jnp.zeros_like, self.own))

    def of(self, name: str, moments: PyTree) -> Any:
        """Those of ``moments`` by which a part of an observation is normalised."""
        return moments[_of(name, moments)]

    def mask(self, name: str) -> str | None:
        """The part that says which numbers of another are an observation's own, where one does."""
        return name + MASK if name in self.masked else None

    def _mask(self, observation: dict[str, Array], name: str) -> Array | None:
        mask = self.mask(name)
        return None if mask is None else observation[mask]


def _of(name: str, moments: dict[str, Any]) -> str:
    """The array by whose moments an array is normalised."""
    return name if name in moments else ACHIEVED


def _each(function: Any, *trees: PyTree) -> PyTree:
    return jax.tree.map(function, *trees, is_leaf=lambda x: isinstance(x, Moments))


def _merged(moments: Moments | None, x: Array, valid: Array, mask: Array | None = None) -> Moments | None:
    return None if moments is None else moments.merged(Moments.of(x, valid, mask))


def _normalised(moments: Moments | None, x: Array, mask: Array | None = None) -> Array:
    if moments is None:
        return x
    seen = moments.normalised(x)
    return seen if mask is None else seen * mask
