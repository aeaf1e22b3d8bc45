"""Rules that bound how far any one agent can pull the mean."""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from fedrax.aggregators.base import Aggregate, Aggregator, aggregators
from fedrax.aggregators.rows import (
    aggregate,
    average,
    difference,
    length,
    lower_quantile,
    median,
    present_rows,
    saturate,
    shorten,
)
from fedrax.registry import option


@aggregators.register("norm-clipping")
class NormClipping(Aggregator):
    """The mean of the vectors after clipping each to a norm (Sun et al., arXiv:1911.07963).

    Without a radius the norm is a quantile of the present vectors' own norms, an order statistic, so that
    no norm above it matters. Weights only mark presence.
    """

    radius: float | None = option(None, "largest norm; unset, `quantile` of the norms", unit="norm", minimum=0)
    quantile: float = option(
        0.5, "share of the norms at or below the clipping norm where no radius is set", minimum=0, maximum=0.9
    )

    def __call__(
        self,
        vectors: Float[Array, "n d"],
        weights: Float[Array, " n"],
        *,
        samples: float | Array = 1.0,
        key: PRNGKeyArray,
    ) -> Aggregate:
        """The mean of the present rows, clipped; metric ``clip_norm`` is the norm used."""
        vectors, present, _ = present_rows(vectors, weights)
        if self.radius is None:
            radius = lower_quantile(length(vectors), present, self.quantile)
        else:
            radius = jnp.asarray(self.radius, vectors.dtype)
        mean = average(shorten(vectors, radius), present.astype(vectors.dtype))
        return aggregate(mean, present, {"clip_norm": radius})

    def check(self, agents: int) -> None:
        """Needs ``f + 1`` agents with a radius, else enough to keep the quantile below an honest norm."""
        if self.radius is not None:
            self.demand(agents, self.f + 1, "f + 1")
            return
        q = self.quantile
        # Of n - f honest norms one is at or above rank n - f - 1, so q (n - 1) must not exceed that.
        least = math.ceil((self.f + 1 - q) / (1 - q) - 1e-9)
        self.demand(agents, least, "2f + 1" if q == 0.5 else f"(f + 1 - q) / (1 - q) (q = {q:g})")


@aggregators.register("centered-clipping")
class CenteredClipping(Aggregator):
    """The mean of differences clipped around a moving centre (Karimireddy et al., ICML 2021).

    The published rule starts from the last round's result; a rule here has no memory, so it starts from zero
    or from the coordinate-wise median. Weights only mark presence.
    """

    radius: float | None = option(
        None,
        "clipping radius; unset, in each iteration the median distance from the centre",
        unit="norm",
        minimum=0,
    )
    iterations: int = option(3, "times the centre moves", unit="steps", minimum=1)
    start: Literal["zero", "median"] = option("median", "the first centre")

    def __call__(
        self,
        vectors: Float[Array, "n d"],
        weights: Float[Array, " n"],
        *,
        samples: float | Array = 1.0,
        key: PRNGKeyArray,
    ) -> Aggregate:
        """The centre after the last iteration."""
        vectors, present, _ = present_rows(vectors, weights)
        everyone = present.astype(vectors.dtype)

        def step(_: Array, centre: Float[Array, " d"]) -> Float[Array, " d"]:
            offsets = difference(vectors, centre)
            radius = lower_quantile(length(offsets), present, 0.5) if self.radius is None else self.radius
            return saturate(centre + average(shorten(offsets, radius), everyone))

        centre = median(vectors, present) if self.start == "median" else jnp.zeros_like(vectors[0])
        return aggregate(jax.lax.fori_loop(0, self.iterations, step, centre), present)

    def check(self, agents: int) -> None:
        """Needs ``2f + 1`` agents."""
        self.demand(agents, 2 * self.f + 1, "2f + 1")
