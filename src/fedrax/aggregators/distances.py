"""Pairwise Euclidean distances among the present rows, one row of the distance matrix at a time.

Rules say what they make of one row (a count, a sum, a choice of neighbours), so no rule need hold more of
the matrix than a block of rows. Small problems take differences of rows, exact to rounding for any finite
input. Large ones expand ``|a - b|^2 = |a|^2 + |b|^2 - 2ab`` around the coordinate-wise median of the
present rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from fedrax.aggregators.rows import (
    difference,
    draws,
    length,
    lower_quantile,
    median,
    midpoint,
    saturate,
    shorten,
)

T = TypeVar("T")

EXACT_WORK = 2**27
"""Up to this many ``n * n * d``, distances come from differences of rows (about 0.2 s on two cores)."""
BLOCK = 2**22
"""Numbers in a block of the distance matrix, or of differences."""
FARTHEST = 2.0**60
"""Rows are drawn in to this many typical distances from the centre, so that the Gram form cannot overflow."""
PAIRED_ROWS = 1024
"""Statistics over all pairs use at most this many rows."""


def map_rows(
    reduce: Callable[[Float[Array, " n"]], T],
    vectors: Float[Array, "n d"],
    present: Bool[Array, " n"],
    *,
    exact: bool | None = None,
) -> T:
    """``reduce`` of every row of the distance matrix, stacked: leaves ``[n, ...]``.

    ``reduce`` gets one agent's distances to all: 0 to itself, infinity to (and for) the absent, and finite
    otherwise. ``exact`` chooses the method; by default it follows from the size. The Gram form errs by
    about ``1e-7 (|a|^2 + |b|^2)`` in the square, with norms measured from the median: a few parts in a
    million for rows that surround it, and as much as ``3e-4 |a|`` for two near-identical rows far from it.
    """
    n, d = vectors.shape
    if exact is None:
        exact = n * n * d <= EXACT_WORK
    index = jnp.arange(n)

    def masked(own: Int[Array, ""], distances: Float[Array, " n"]) -> T:
        distances = jnp.where(index == own, 0.0, distances)
        return reduce(jnp.where(present & present[own], distances, jnp.inf))

    if exact:
        block = BLOCK // (n * d)
        rows: tuple[Array, ...] = (index, vectors)

        def of_row(row: tuple[Array, ...]) -> T:
            own, vector = row
            return masked(own, length(difference(vector, vectors)))

    else:
        block = BLOCK // n
        unit, centred = _around_median(vectors, present)
        squares = jnp.square(centred).sum(-1)
        rows = (index, centred, squares)

        def of_row(row: tuple[Array, ...]) -> T:
            own, vector, square = row
            # The default precision of accelerators (TF32, bfloat16) would drown distances in rounding.
            product = jnp.matmul(centred, vector, precision=jax.lax.Precision.HIGHEST)
            distances = unit * jnp.sqrt(jnp.maximum(squares + square - 2 * product, 0.0))
            return masked(own, saturate(distances))

    if block >= n:
        return jax.vmap(of_row)(rows)
    return jax.lax.map(of_row, rows, batch_size=max(block, 1))


def _around_median(
    vectors: Float[Array, "n d"], present: Bool[Array, " n"]
) -> tuple[Float[Array, ""], Float[Array, "n d"]]:
    """A typical distance from the median, and the rows relative to the median in that unit."""
    offsets = jnp.where(present[:, None], difference(vectors, median(vectors, present)), 0.0)
    typical = lower_quantile(length(offsets), present, 0.5)
    unit = jnp.where(typical >= jnp.finfo(vectors.dtype).tiny, typical, 1.0)
    limit = jnp.minimum(unit * FARTHEST, jnp.finfo(vectors.dtype).max)
    return unit, shorten(offsets, limit) / unit


def pairwise(
    vectors: Float[Array, "n d"], present: Bool[Array, " n"], *, exact: bool | None = None
) -> Float[Array, "n n"]:
    """The whole distance matrix (see :func:`map_rows`), for rules that need all of it at once."""
    return map_rows(lambda distances: distances, vectors, present, exact=exact)


def within(
    vectors: Float[Array, "n d"],
    present: Bool[Array, " n"],
    radii: Float[Array, " r"],
    *,
    exact: bool | None = None,
) -> Int[Array, "n r"]:
    """How many present rows lie within each radius of each row, itself included."""

    def count(distances: Float[Array, " n"]) -> Int[Array, " r"]:
        return jnp.stack([(distances <= radius).sum(dtype=jnp.int32) for radius in radii])

    return map_rows(count, vectors, present, exact=exact)


def smallest(distances: Float[Array, " n"], rank: int | Int[Array, ""]) -> Float[Array, ""]:
    """The distance of this rank (from 1) in a row, as sorting would find it but in time O(n).

    Bit patterns of non-negative floats are ordered like the floats, so the answer is bisected bit by bit.
    """
    bits = jnp.finfo(distances.dtype).bits
    pattern = jnp.dtype(f"int{bits}")
    patterns = jax.lax.bitcast_convert_type(distances, pattern)

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        reached = (patterns <= middle).sum() >= rank
        return jnp.where(reached, low, middle + 1), jnp.where(reached, middle, high)

    start = (
        jnp.zeros((), pattern),
        jax.lax.bitcast_convert_type(jnp.array(jnp.inf, distances.dtype), pattern),
    )
    found, _ = jax.lax.fori_loop(0, bits - 1, halve, start)
    return jax.lax.bitcast_convert_type(found, distances.dtype)


class Pairs(NamedTuple):
    """The distances between the present rows, every pair once."""

    ordered: Float[Array, " m"]
    """Ascending; infinity after the last pair."""
    rows: Int[Array, ""]
    """How many rows were paired."""

    @property
    def number(self) -> Int[Array, ""]:
        """How many pairs there are."""
        return self.rows * (self.rows - 1) // 2

    def smallest(self, rank: int | Array) -> Float[Array, ""]:
        """The distance of this rank (from 1, clipped to the pairs there are); zero if there are no pairs."""
        index = jnp.clip(rank, 1, jnp.maximum(self.number, 1)) - 1
        return jnp.where(self.number > 0, self.ordered[index], 0.0)

    @property
    def median(self) -> Float[Array, ""]:
        """The median distance; zero if there are no pairs."""
        return midpoint(self.smallest((self.number + 1) // 2), self.smallest(self.number // 2 + 1))


def pairs(vectors: Float[Array, "n d"], present: Bool[Array, " n"], key: PRNGKeyArray) -> Pairs:
    """The sorted distances of all pairs; of more than ``PAIRED_ROWS`` rows, of that many drawn at random."""
    if len(present) > PAIRED_ROWS:
        chosen = jnp.argsort(draws(key, present))[:PAIRED_ROWS]
        vectors, present = vectors[chosen], present[chosen]
    distances = pairwise(vectors, present)
    once = jnp.triu(jnp.ones(distances.shape, bool), 1)
    return Pairs(jnp.sort(jnp.where(once, distances, jnp.inf).ravel()), present.sum(dtype=jnp.int32))
