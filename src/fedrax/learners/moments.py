"""Observations normalised by their running moments, which merge exactly over agents.

Counts, sums and sums of squares about a point that everyone knows add up over agents; an agent sends those and nothing
else of its observations. The server merges their totals (Chan, Golub and LeVeque, 1983), so that its moments are those
of all agents' observations together.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from fedrax.environments.base import Box, Dict, Observation, Tokens, has_goals
from fedrax.environments.goals import ACHIEVED, DESIRED
from fedrax.environments.tasks import IDENTITY, MASK

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

    def about(self, point: Float[Array, "*o"]) -> Sums:
        """As sums about a point."""
        apart = self.mean - point
        return Sums(self.count.astype(jnp.int32), self.count * apart, self.spread + self.count * apart**2)

    def normalised(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """Less the mean, divided by the standard deviation, and clipped; as it is before anything was observed."""
        variance = self.spread / jnp.maximum(self.count, 1.0)
        deviation = jnp.where(self.count > 0, jnp.maximum(jnp.sqrt(variance), LEAST_DEVIATION), 1.0)
        return jnp.where(self.count > 0, jnp.clip((x - self.mean) / deviation, -CLIP, CLIP), x)


class Sums(eqx.Module):
    """What adds up over agents: of observations of one array, about a point."""

    count: Int[Array, ...]
    first: Float[Array, ...]
    second: Float[Array, ...]

    def moments(self, point: Float[Array, "*o"]) -> Moments:
        """The moments of what was summed about the point."""
        count = self.count.astype(jnp.float32)
        mean = self.first / jnp.maximum(count, 1.0)
        return Moments(count, point + mean, jnp.maximum(self.second - self.first * mean, 0.0))


class Normaliser(eqx.Module):
    """What an agent's networks see observations by: :class:`Moments` of each array of real numbers, None of others.

    Of a goal environment's two goals there is one, as hindsight puts achieved goals in place of desired ones. Padding
    does not count, and stays 0.
    """

    shared: PyTree
    """Of all agents' observations, as last received; of none where nothing is received."""
    own: PyTree
    """Of what the agent observed since."""

    @staticmethod
    def fresh(space: Box | Dict) -> Normaliser:
        """Of observations of this space, before the first."""

        def none(part: Box | Tokens) -> Moments | None:
            return Moments.none(part.shape) if isinstance(part, Box) and part.seen == np.float32 else None

        if isinstance(space, Box):
            return Normaliser(none(space), none(space))
        skipped = {DESIRED} if has_goals(space) else set()
        names = [name for name, _ in space.parts if name not in skipped and not _is_sign(name)]
        return Normaliser(*({name: none(space.tree[name]) for name in names} for _ in range(2)))

    def __call__(self, observation: Observation) -> Observation:
        """Observations, leaves ``[..., *o]``, normalised."""
        moments = _each(Moments.merged, self.shared, self.own)
        if not isinstance(observation, dict):
            return _normalised(moments, observation)
        return {
            name: x if _is_sign(name) else _normalised(moments[_of(name, moments)], x, observation.get(name + MASK))
            for name, x in observation.items()
        }

    def observe(self, observation: Observation, valid: Bool[Array, "*n"]) -> Normaliser:
        """With observations, leaves ``[*n, *o]``, where they are valid."""
        if not isinstance(observation, dict):
            return Normaliser(self.shared, _merged(self.own, observation, valid))
        own = dict(self.own)
        for name, x in observation.items():
            if not _is_sign(name):
                own[_of(name, own)] = _merged(own[_of(name, own)], x, valid, observation.get(name + MASK))
        return Normaliser(self.shared, own)

    def sums(self) -> PyTree:
        """What an agent sends of its own observations: :class:`Sums` about the shared means."""
        return _each(lambda own, shared: own.about(shared.mean), self.own, self.shared)

    def pooled(self, sums: PyTree, present: Bool[Array, " n"]) -> PyTree:
        """The shared moments with the agents' sums, leaves ``[n, ...]``, of those who are present."""
        total = jax.tree.map(lambda x: jnp.where(jnp.expand_dims(present, range(1, x.ndim)), x, 0).sum(0), sums)
        return _each(lambda shared, sums: shared.merged(sums.moments(shared.mean)), self.shared, total)

    def received(self, shared: PyTree) -> Normaliser:
        """As a server's broadcast says; what the agent observed before is in it, as far as it arrived."""
        return Normaliser(shared, jax.tree.map(jnp.zeros_like, self.own))


def _of(name: str, moments: dict[str, Any]) -> str:
    """The array by whose moments an array is normalised."""
    return name if name in moments else ACHIEVED


def _each(function: Any, *trees: PyTree) -> PyTree:
    return jax.tree.map(function, *trees, is_leaf=lambda x: isinstance(x, Moments | Sums))


def _is_sign(name: str) -> bool:
    """Whether a part says what others are (:mod:`fedrax.environments.tasks`), which networks see as it is."""
    return name == IDENTITY or name.endswith(MASK)


def _merged(moments: Moments | None, x: Array, valid: Array, mask: Array | None = None) -> Moments | None:
    return None if moments is None else moments.merged(Moments.of(x, valid, mask))


def _normalised(moments: Moments | None, x: Array, mask: Array | None = None) -> Array:
    if moments is None:
        return x
    seen = moments.normalised(x)
    return seen if mask is None else seen * mask
