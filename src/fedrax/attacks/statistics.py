"""Attackers that send honest updates and lie about what they count."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray, PyTree

from fedrax.attacks.base import Attack, attacks, replace_rows
from fedrax.message import is_real
from fedrax.registry import Number, option


@attacks.register("false-statistics")
class FalseStatistics(Attack):
    """Reports sums (of returns) and counts (of episodes) that it did not measure.

    Strategies that weight agents by return believe it: one that claims poor returns counts most under
    ``return_temperature`` of ``fedavg``, and least under ``weights = "return"`` of ``neighbours``.
    """

    sums: Number = option(10.0, "factor on every sum of real numbers that is reported", argument=True)
    counts: Number = option(1.0, "factor on every count that is reported, rounded", minimum=0, argument=True)

    def falsify(self, statistics: PyTree, byzantine: Bool[Array, " n"], key: PRNGKeyArray) -> PyTree:
        """The statistics of attackers, scaled."""

        def scaled(leaf: Array) -> Array:
            if is_real(leaf):
                return self.sums * leaf
            return jnp.rint(self.counts * leaf).astype(leaf.dtype)

        return replace_rows(statistics, byzantine, jax.tree.map(scaled, statistics))
