"""The geometric median, by Newton's and Weiszfeld's steps."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

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

FARTHEST = 2.0**40
"""Rows are drawn in to this many typical distances from the start: their pull keeps its direction, and no square
overflows."""
INNER_STEPS = 20
"""Most steps of conjugate gradients for one Newton step."""


class _State(NamedTuple):
    taken: Int[Array, ""]
    point: Float[Array, " d"]
    excess: Float[Array, ""]
    """Of the pull on the point before the last step."""
    moving: Bool[Array, ""]


@aggregators.register("geometric-median")
class GeometricMedian(Aggregator):
    """The point x of least ``F(x) = sum_i w_i |x - v_i|`` (RFA; Pillutla et al., IEEE TSP 2022).

    The pull on x is ``R = sum_i w_i (v_i - x) / |v_i - x|`` over the vectors that are not at x, and the vectors at x
    hold it with their weight: x is optimal if and only if ``|R|`` is no more than that (Vardi & Zhang, PNAS 2000).
    The rule stops when the excess of ``|R|`` falls to ``tolerance`` of the total weight W, so that
    ``F(x) - F* <= tolerance * W * |x - x*|``, or when no step lowers F in the numbers' precision.

    Each step is the best of these: Weiszfeld's, with Vardi and Zhang's change at a vector; Newton's, whole or
    shortened, which needs few steps where Weiszfeld's needs thousands (vectors near a line); and a jump to the nearest
    vector on the side of the pull. A vector that is optimal is therefore hit exactly, and no vector is better than the
    result. The start is the coordinate-wise median, which vectors far off cannot move far and which costs O(n d),
    where the best vector would cost O(n^2 d).

    The rule is indifferent to the vectors' scale. It holds while Byzantine agents have less than half of the weight.
    """

    uses_weights: ClassVar[bool] = True

    iterations: int = option(100, "most steps", unit="steps", minimum=1)
    tolerance: float = option(
        1e-6, "stop where the excess pull is no more than this", unit="share of the total weight", minimum=0
    )
    smoothing: float = option(1e-6, "distances up to this count as zero", unit="median distances", minimum=1e-9)

    def __call__(
        self,
        vectors: Float[Array, "n d"],
        weights: Float[Array, " n"],
        *,
        samples: float | Array = 1.0,
        key: PRNGKeyArray,
    ) -> Aggregate:
        """The geometric median of the present rows.

        Metrics: ``median_steps``, the steps taken, and ``median_excess``, the excess pull at the last step as a share
        of the total weight.
        """
        vectors, present, _ = present_rows(vectors, weights)
        largest = weights.max()
        shares = jnp.where(present, weights / jnp.where(largest > 0, largest, 1.0), 0.0)
        shares = shares / jnp.maximum(shares.sum(), 1.0)
        start = median(vectors, present)
        offsets = jnp.where(present[:, None], difference(vectors, start), 0.0)
        distances = length(offsets)
        typical = lower_quantile(distances, present & (distances > 0), 0.5)
        # In units of a power of two, whose division is exact.
        _, exponent = jnp.frexp(jnp.where(typical > 0, typical, 1.0))
        limit = jnp.minimum(
            jnp.maximum(typical, jnp.finfo(vectors.dtype).tiny) * FARTHEST, jnp.finfo(vectors.dtype).max
        )
        rows = jnp.ldexp(shorten(offsets, limit), -exponent)

        def unfinished(state: _State) -> Bool[Array, ""]:
            return (state.taken < self.iterations) & (state.excess > self.tolerance) & state.moving

        begin = _State(
            jnp.int32(0), jnp.zeros_like(start), jnp.asarray(jnp.inf, vectors.dtype), jnp.asarray(present.any())
        )
        # The default precision of accelerators (TF32, bfloat16) would not let the pull vanish.
        with jax.default_matmul_precision("highest"):
            end = jax.lax.while_loop(unfinished, lambda state: self._step(state, rows, shares, present), begin)
        point = saturate(start + saturate(jnp.ldexp(end.point, exponent)))
        excess = jnp.where(present.any(), end.excess, 0.0)
        return aggregate(point, present, {"median_steps": end.taken, "median_excess": excess})

    def _step(
        self, state: _State, rows: Float[Array, "n d"], shares: Float[Array, " n"], present: Bool[Array, " n"]
    ) -> _State:
        """One step from the state's point; ``shares`` sum to one."""
        offsets = rows - state.point
        distances = jnp.linalg.norm(offsets, axis=1)
        away = distances > self.smoothing
        near = jnp.maximum(distances, self.smoothing)
        directions = jnp.where(away[:, None], offsets / near[:, None], 0.0)
        pull = shares @ directions
        strength = jnp.linalg.norm(pull)
        excess = jnp.maximum(strength - jnp.where(away, 0.0, shares).sum(), 0.0)
        force = pull * (excess / jnp.maximum(strength, 1e-30))
        stiffness = jnp.where(away, shares / near, 0.0)
        stiff = jnp.maximum(stiffness.sum(), 1e-30)

        def hessian(move: Float[Array, " d"]) -> Float[Array, " d"]:
            return stiff * move - (stiffness * (directions @ move)) @ directions

        newton, _ = jax.scipy.sparse.linalg.cg(hessian, force, x0=force / stiff, tol=0.05, maxiter=INNER_STEPS)
        # F is convex, so that a better vector lies on the side to which the pull points.
        nearest = offsets[jnp.argmin(jnp.where(present & (offsets @ pull > 0), distances, jnp.inf))]
        moves = jnp.stack([force / stiff, newton, newton / 4, newton / 16, nearest])

        def change(move: Float[Array, " d"]) -> Float[Array, ""]:
            # |b| - |a| = (b - a)(b + a) / (|b| + |a|): nothing cancels, however far a row and however short the move.
            after = offsets - move
            both = distances + jnp.linalg.norm(after, axis=1)
            along = (offsets + after) / jnp.maximum(both, 1e-30)[:, None]
            return -(shares @ (along @ move))

        changes = jax.vmap(change)(moves)
        changes = jnp.where(jnp.isfinite(changes), changes, jnp.inf)
        best = jnp.argmin(changes)
        better = (changes[best] < 0) & (excess > self.tolerance)
        point = state.point + jnp.where(better, moves[best], 0.0)
        # Steps of a few units in the last place only go back and forth.
        ulp = jnp.finfo(rows.dtype).eps * jnp.abs(point)
        return _State(state.taken + 1, point, excess, (jnp.abs(point - state.point) > 4 * ulp).any())

    def check(self, agents: int) -> None:
        """Needs ``2f + 1`` agents."""
        self.demand(agents, 2 * self.f + 1, "2f + 1")
