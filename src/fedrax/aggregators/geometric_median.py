"""The geometric median, by Weiszfeld's iteration."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from fedrax.aggregators.base import Aggregate, Aggregator, aggregators
from fedrax.aggregators.rows import (
    aggregate,
    difference,
    length,
    lower_quantile,
    median,
    present_rows,
    saturate,
    shorten,
)
from fedrax.registry import option


@aggregators.register("geometric-median")
class GeometricMedian(Aggregator):
    """The point of least weighted total distance to the vectors (RFA; Pillutla et al., IEEE TSP 2022).

    Weiszfeld's iteration from the coordinate-wise median, so that vectors far off cost no iterations, with
    Vardi and Zhang's step (PNAS 2000) at a vector, where Weiszfeld's would be stuck. Lengths
    in the options are in units of the median distance from the start, which makes the rule indifferent to
    the vectors' scale. It holds while Byzantine agents have less than half of the weight.
    """

    iterations: int = option(100, "most Weiszfeld steps", unit="steps", minimum=1)
    tolerance: float = option(1e-6, "stop at a step shorter than this", unit="median distances", minimum=0)
    smoothing: float = option(1e-6, "distances up to this count as zero", unit="median distances", minimum=1e-9)

    def __call__(
        self,
        vectors: Float[Array, "n d"],
        weights: Float[Array, " n"],
        *,
        samples: float | Array = 1.0,
        key: PRNGKeyArray,
    ) -> Aggregate:
        """The geometric median of the present rows."""
        vectors, present, _ = present_rows(vectors, weights)
        largest = weights.max()
        shares = jnp.where(present, weights / jnp.where(largest > 0, largest, 1.0), 0.0)
        start = median(vectors, present)
        typical = lower_quantile(length(difference(vectors, start)), present, 0.5)
        unit = jnp.maximum(typical, jnp.finfo(vectors.dtype).tiny / self.smoothing)
        floor = self.smoothing * unit

        def step(state: tuple[Int[Array, ""], Array, Array]) -> tuple[Int[Array, ""], Array, Array]:
            taken, point, _ = state
            offsets = difference(vectors, point)
            distances = length(offsets)
            away = jnp.where(distances > floor, shares, 0.0)
            # Weiszfeld as a step from where it is: the pulls are unit vectors, so none can be too large.
            pull = (away[:, None] * shorten(offsets, floor) / floor).sum(0)
            stiffness = (away * (unit / jnp.maximum(distances, floor))).sum()
            # Vectors at the point itself hold it with their whole weight, and only the excess moves it.
            held = (shares - away).sum()
            excess = jnp.maximum(length(pull) - held, 0.0) / jnp.maximum(length(pull), 1e-30)
            move = saturate(unit * excess * (pull / jnp.where(stiffness > 0, stiffness, 1.0)))
            return taken + 1, saturate(point + move), length(move)

        def unfinished(state: tuple[Int[Array, ""], Array, Array]) -> Array:
            taken, _, moved = state
            return (taken < self.iterations) & (moved > self.tolerance * unit)

        begin = (jnp.int32(0), start, jnp.asarray(jnp.inf, vectors.dtype))
        _, point, _ = jax.lax.while_loop(unfinished, step, begin)
        return aggregate(point, present)

    def check(self, agents: int) -> None:
        """Needs ``2f + 1`` agents."""
        self.demand(agents, 2 * self.f + 1, "2f + 1")
