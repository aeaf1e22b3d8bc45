"""Averages: the undefended baselines, which a single Byzantine agent can move anywhere."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Array, Float, PRNGKeyArray

from fedrax.aggregators.base import Aggregate, Aggregator, aggregators
from fedrax.aggregators.rows import aggregate, average


@aggregators.register("mean")
class Mean(Aggregator):
    """The mean of everyone present; the magnitude of the weights does not matter."""

    def __call__(
        self,
        vectors: Float[Array, "n d"],
        weights: Float[Array, " n"],
        *,
        samples: float | Array = 1.0,
        key: PRNGKeyArray,
    ) -> Aggregate:
        """The mean of the present rows."""
        present = weights > 0
        return aggregate(average(vectors, present.astype(vectors.dtype)), present)

    def check(self, agents: int) -> None:
        """Accepts any number: the mean tolerates nobody, which is what makes it the baseline under attack."""


@aggregators.register("weighted-mean")
class WeightedMean(Aggregator):
    """The mean with the agents' weights (FedAvg; McMahan et al., AISTATS 2017, algorithm 1)."""

    uses_weights: ClassVar[bool] = True

    def __call__(
        self,
        vectors: Float[Array, "n d"],
        weights: Float[Array, " n"],
        *,
        samples: float | Array = 1.0,
        key: PRNGKeyArray,
    ) -> Aggregate:
        """The weighted mean of the present rows."""
        return aggregate(average(vectors, weights), weights > 0)

    def check(self, agents: int) -> None:
        """Accepts any number: the mean tolerates nobody, which is what makes it the baseline under attack."""
