"""The chain that an update goes through between an agent and the server's rule, and what its noise amounts to.

At an agent: clip, noise of its own (``local``), compression. At the server: decompression, clip once more (a Byzantine
agent does not clip), the sum with its noise (``central``), the mean. Where the server may know the sum alone, what
strategies and rules are given is that mean in place of every agent's update, so that nothing they do can reveal more.
"""

from __future__ import annotations

import math
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray, PyTree

from fedrax.message import keep_rows
from fedrax.privacy.clip import clipped, is_whole, or_zeros
from fedrax.privacy.noise import integer_noise, with_noise
from fedrax.privacy.secure_sum.quantise import quantised, restored
from fedrax.seeds import derive
from fedrax.trees import ravel_rows, unravel_like

CLIPS = (1e-15, 1e15)
"""Within which a clip moves: float32 holds squares of it."""
Unit = Literal["agent", "trajectory"]
Model = Literal["central", "local", "distributed"]


class Protection(eqx.Module):
    """What is done to updates; by default nothing."""

    unit: Unit | None = eqx.field(static=True, default=None)
    model: Model = eqx.field(static=True, default="central")
    clip: float | None = eqx.field(static=True, default=None)
    """C: the longest update of an agent or, where the unit is a trajectory, gradient of an episode."""
    quantile: float | None = eqx.field(static=True, default=None)
    """The share of updates that shall not be shortened, to which C moves from :attr:`clip` on; None: it stays."""
    rate: float = eqx.field(static=True, default=0.2)
    """eta: how fast it moves."""
    share_noise: float = eqx.field(static=True, default=0.0)
    """Standard deviation of the noise on the number of updates that were not shortened."""
    by_layer: bool = eqx.field(static=True, default=False)
    noise: float = eqx.field(static=True, default=0.0)
    """z: standard deviation on the sum (``local``: on each update), in units of C."""
    expected: float = eqx.field(static=True, default=1.0)
    """Agents that the sum is divided by: how many take part, or do on average, whoever answers."""
    secure_sum: bool = eqx.field(static=True, default=False)
    bits: int = eqx.field(static=True, default=0)
    """Of a number in a secure sum."""
    honest: int = eqx.field(static=True, default=1)
    """h: participants whose shares of the noise (``distributed``) are enough."""

    least: int = eqx.field(static=True, default=0)
    """Updates without which there is no sum: those of a secure sum's threshold."""

    @property
    def sums(self) -> bool:
        """Whether the server may know nothing of the updates but their sum."""
        return self.secure_sum or (self.unit is not None and self.model != "local")

    @property
    def clips_episodes(self) -> float | None:
        """What the gradient of each episode is clipped to at the agent."""
        return self.clip if self.unit == "trajectory" else None

    @property
    def first_clip(self) -> PyTree:
        """C in the first round, float32, where it moves; () where it stays what it is."""
        return () if self.quantile is None else jnp.asarray(self.clip, jnp.float32)

    def at_agent(self, update: PyTree, episodes: int | Array, key: PRNGKeyArray, clip: PyTree = ()) -> PyTree:
        """One agent's update as it leaves it; ``episodes`` are those that it was asked for, ``clip`` is the round's.

        Gradients of episodes were clipped where they were made (:attr:`clips_episodes`), and their mean is as long as
        one of them at most.
        """
        if self.clip is None:
            return update
        bound = self._clip_of(update) if self.quantile is None else clip
        update = clipped(self._bounded(update), bound, by_layer=self.by_layer)
        if self.model != "local" or self.noise == 0:
            return update
        return with_noise(update, self.noise * self._sensitivity(episodes), key)

    def at_server(self, updates: PyTree, episodes: int | Array, clip: PyTree = ()) -> PyTree:
        """The updates of all participants, leaves ``[m, ...]``, no longer than honest ones are."""
        if self.clip is None or self.secure_sum:
            return updates
        bound = self._longest(updates, episodes) if self.quantile is None else clip
        by_layer = self.by_layer and self.model != "local"
        return jax.vmap(lambda update: clipped(self._bounded(update), bound, by_layer=by_layer))(updates)

    def moved(self, clip: PyTree, updates: PyTree, present: Bool[Array, " m"], key: PRNGKeyArray) -> PyTree:
        """C of the next round, of the updates of this one as of :meth:`at_server`.

        ``C exp(-eta (b - gamma))``, b the share of updates that were not shortened (Andrew et al., NeurIPS 2021,
        algorithm 1). Their number is released with noise of its own, which the noise on the updates makes up for
        (theorem 1; :func:`~fedrax.privacy.guarantee.noise_on_updates`).
        """
        if self.quantile is None:
            return clip
        whole = jax.vmap(lambda update: is_whole(update, clip))(updates)
        # From -1/2 to 1/2 each, so that one more or less moves their sum by half.
        total = jnp.where(present, whole - 0.5, 0.0).sum()
        total += self.share_noise * jax.random.normal(derive(key, "share"))
        count = self.expected if self.unit is not None else jnp.maximum(present.sum(), 1)
        step = jnp.exp(-self.rate * (total / count + 0.5 - self.quantile))
        known = present.any() if self.unit is None else True
        return jnp.where(known, jnp.clip(clip * step, *CLIPS), clip)

    def summed(
        self,
        updates: PyTree,
        present: Bool[Array, " m"],
        episodes: int | Array,
        key: PRNGKeyArray,
        clip: PyTree = (),
    ) -> PyTree:
        """The noisy mean in place of every update, leaves ``[m, ...]``; the updates themselves unless :attr:`sums`.

        With a unit of privacy the sum is divided by :attr:`expected`, whoever answered; without one by how many did.
        """
        if not self.sums:
            return updates
        if self.secure_sum:
            total = self._integer_sum(updates, present, episodes, key)
        else:
            total = jax.tree.map(lambda x: x.sum(0), keep_rows(updates, present))
        if self.noise > 0 and self.model == "central":
            sensitivity = self._sensitivity(episodes) if self.quantile is None else clip
            total = with_noise(total, self.noise * sensitivity, derive(key, "noise"))
        terms = jnp.maximum(present.sum(), 1) if self.unit is None else self.expected
        return jax.tree.map(lambda x, mean: jnp.broadcast_to(mean / terms, x.shape), updates, total)

    def share_of_noise(self, episodes: int | Array) -> float | Array:
        """The deviation of the noise that an agent adds to its integers in a secure sum."""
        if self.noise == 0 or self.model != "distributed":
            return 0.0
        assert self.clip is not None
        relative = self._sensitivity(episodes) / self.clip
        return self.noise * relative * 2 ** (self.bits - 1) / math.sqrt(self.honest)

    def after_secure_sum(self) -> Protection:
        """What is left to do to updates in whose place nodes' secure sum is: it is clipped, and noisy, already."""
        return Protection(unit=self.unit, expected=self.expected, least=self.least)

    def _integer_sum(
        self, updates: PyTree, present: Bool[Array, " m"], episodes: int | Array, key: PRNGKeyArray
    ) -> PyTree:
        """The sum as a secure one has it: of integers, each with its share of the noise."""
        assert self.clip is not None
        rows, clip, noisy = ravel_rows(updates), self.clip, self.noise > 0 and self.model == "distributed"

        def integers(row: Array, here: Array, key: PRNGKeyArray) -> Array:
            made = quantised(row, clip, self.bits, derive(key, "quantise"))
            if noisy:
                made += integer_noise(self.share_of_noise(episodes), made.shape, derive(key, "noise"))
            return jnp.where(here, made, 0)

        keys = jax.random.split(derive(key, "secure sum"), rows.shape[0])
        total = jax.vmap(integers)(rows, present, keys).sum(0)
        return unravel_like(jax.tree.map(lambda x: x[0], updates), restored(total, clip, self.bits))

    def _clip_of(self, update: PyTree) -> float:
        """What an update is clipped to: in a secure sum with noise, so that rounding does not make it longer than C."""
        assert self.clip is not None
        if not self.secure_sum or self.noise == 0:
            return self.clip
        dimension = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(update))
        # At least half of it: fewer bits are refused (``check_secure_sum``).
        return self.clip * (1 - math.sqrt(dimension) / 2 ** (self.bits - 1))

    def _bounded(self, update: PyTree) -> PyTree:
        """Zeros in place of what has no norm, where it may not be known whose update that was."""
        return update if self.unit is None and not self.secure_sum else or_zeros(update)

    def _sensitivity(self, episodes: int | Array) -> float | Array:
        """How far one unit more or less moves the sum of the updates at most."""
        assert self.clip is not None
        return self.clip / jnp.maximum(episodes, 1) if self.unit == "trajectory" else self.clip

    def _longest(self, updates: PyTree, episodes: int | Array) -> float | Array:
        """The norm that an honest agent's update has at most; with noise of its own, but for a chance of 1e-9."""
        assert self.clip is not None
        if self.model != "local" or self.noise == 0:
            return self.clip
        # Laurent and Massart (2000), lemma 1: a chi-squared number of d exceeds d + 2 sqrt(d x) + 2 x by chance e^-x.
        dimension, x = sum(math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(updates)), math.log(1e9)
        spread = math.sqrt(dimension + 2 * math.sqrt(dimension * x) + 2 * x)
        return self.clip + self.noise * self._sensitivity(episodes) * spread
