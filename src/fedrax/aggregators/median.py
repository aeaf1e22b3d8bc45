"""Coordinate-wise order statistics (Yin et al., ICML 2018)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from fedrax.aggregators.base import Aggregate, Aggregator, aggregators
from fedrax.aggregators.rows import aggregate, average, median, present_rows, sort_present


@aggregators.register("median")
class Median(Aggregator):
    """The coordinate-wise median (Yin et al., 2018, definition 1); weights only mark presence.

    While Byzantine agents are fewer than half of those present, every coordinate lies within the honest
    range.
    """

    def __call__(
        self,
        vectors: Float[Array, "n d"],
        weights: Float[Array, " n"],
        *,
        samples: float | Array = 1.0,
        key: PRNGKeyArray,
    ) -> Aggregate:
        """The coordinate-wise median of the present rows; the middle two are averaged."""
        vectors, present, _ = present_rows(vectors, weights)
        return aggregate(median(vectors, present), present)

    def check(self, agents: int) -> None:
        """Needs ``2f + 1`` agents."""
        self.demand(agents, 2 * self.f + 1, "2f + 1")


@aggregators.register("trimmed-mean")
class TrimmedMean(Aggregator):
    """The mean of each coordinate without its f largest and f smallest values (Yin et al., definition 2).

    Where no more than 2f are present, as many are trimmed as leave one or two values: that is the median.
    Weights only mark presence, and everyone present counts as accepted, since nobody loses all coordinates
    by design.
    """

    def __call__(
        self,
        vectors: Float[Array, "n d"],
        weights: Float[Array, " n"],
        *,
        samples: float | Array = 1.0,
        key: PRNGKeyArray,
    ) -> Aggregate:
        """The trimmed mean of the present rows."""
        vectors, present, count = present_rows(vectors, weights)
        trimmed = jnp.minimum(self.f, jnp.maximum(count - 1, 0) // 2)
        rank = jnp.arange(len(present))
        kept = (rank >= trimmed) & (rank < count - trimmed)
        return aggregate(average(sort_present(vectors, present), kept.astype(vectors.dtype)), present)

    def check(self, agents: int) -> None:
        """Needs ``2f + 1`` agents."""
        self.demand(agents, 2 * self.f + 1, "2f + 1")
