"""Arithmetic on the rows of a matrix of which some are absent and some may be absurdly large.

Byzantine agents may send anything finite, so nothing here squares or adds a number before it is scaled: a
row of 1e30 neither overflows nor costs the other rows a bit. Numbers below the smallest normal float (1.2e-38)
count as zero where compilers make them zero. Absent rows never count, whatever they hold.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from fedrax.aggregators.base import Aggregate


def present_rows(
    vectors: Float[Array, "n d"], weights: Float[Array, " n"]
) -> tuple[Float[Array, "n d"], Bool[Array, " n"], Int[Array, ""]]:
    """The vectors with absent rows zeroed, who is present, and how many are."""
    present = weights > 0
    return jnp.where(present[:, None], vectors, 0.0), present, present.sum(dtype=jnp.int32)


def aggregate(
    vector: Float[Array, " d"], accepted: Bool[Array, " n"], metrics: dict[str, Array] | None = None
) -> Aggregate:
    """The verdict of a rule whose result ``vector`` is made of the ``accepted`` rows."""
    valid = accepted.any()
    return Aggregate(jnp.where(valid, vector, 0.0), accepted, valid, metrics or {})


def saturate(values: Array) -> Array:
    """The values, with the largest float in place of infinity."""
    largest = jnp.finfo(values.dtype).max
    return jnp.clip(values, -largest, largest)


def difference(a: Array, b: Array) -> Array:
    """``a - b``, saturating instead of overflowing."""
    return saturate(a - b)


def length(vectors: Float[Array, "*n d"]) -> Float[Array, "*n"]:
    """Euclidean norms over the last axis, exact to rounding at any magnitude; they saturate."""
    scale, scaled = _unit_scale(vectors)
    return saturate(scale * jnp.sqrt(jnp.square(scaled).sum(-1)))


def shorten(vectors: Float[Array, "*n d"], radius: float | Array) -> Float[Array, "*n d"]:
    """The vectors, those longer than ``radius`` scaled down to it; the others are untouched."""
    scale, scaled = _unit_scale(vectors)
    relative = jnp.sqrt(jnp.square(scaled).sum(-1))
    on_sphere = scaled / jnp.maximum(relative, 1.0)[..., None] * radius
    return jnp.where((scale * relative > radius)[..., None], on_sphere, vectors)


def unit_rows(vectors: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """The vectors scaled to length 1, exact to rounding at any magnitude; zero stays zero."""
    _, scaled = _unit_scale(vectors)
    norm = jnp.sqrt(jnp.square(scaled).sum(-1))[..., None]
    return jnp.where(norm > 0, scaled / jnp.where(norm > 0, norm, 1.0), 0.0)


def enlarged(vectors: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """The vectors times a power of two, the same for all, where their largest entry is below ``2^100``.

    Nothing is lost by it, and differences that would fall below the smallest normal float, which compilers make zero,
    no longer do. For rules that only compare distances.
    """
    _, exponent = jnp.frexp(jnp.abs(vectors).max())
    return jnp.ldexp(vectors, jnp.maximum(100 - exponent, 0))


def _unit_scale(vectors: Float[Array, "*n d"]) -> tuple[Float[Array, "*n"], Float[Array, "*n d"]]:
    """Each vector's largest entry (1 where it is zero or subnormal), and the vector divided by it."""
    info = jnp.finfo(vectors.dtype)
    # Up to a quarter of the largest float: the reciprocal of more is subnormal, and compilers make it zero.
    largest = jnp.minimum(jnp.abs(vectors).max(-1), 0.25 * info.max)
    scale = jnp.where(largest >= info.tiny, largest, 1.0)
    return scale, vectors / scale[..., None]


def average(vectors: Float[Array, "n d"], weights: Float[Array, " n"]) -> Float[Array, " d"]:
    """The weighted mean of the rows with positive weight; zero if there are none.

    It never leaves the rows' range, so equal rows give exactly that row and finite rows a finite result.
    """
    counted = (weights > 0)[:, None]
    shares = weights / jnp.where(weights.max() > 0, weights.max(), 1.0)
    shares = shares / jnp.maximum(shares.sum(), 1.0)
    mean = jnp.where(counted, shares[:, None] * vectors, 0.0).sum(0)
    lowest = jnp.where(counted, vectors, jnp.inf).min(0)
    highest = jnp.where(counted, vectors, -jnp.inf).max(0)
    return jnp.where(counted.any(), jnp.clip(mean, lowest, highest), 0.0)


def sort_present(vectors: Float[Array, "n d"], present: Bool[Array, " n"]) -> Float[Array, "n d"]:
    """Every column sorted by itself, absent entries last (as infinity)."""
    return jnp.sort(jnp.where(present[:, None], vectors, jnp.inf), axis=0)


def midpoint(low: Array, high: Array) -> Array:
    """The mean of two ordered numbers, which stays between them."""
    # XLA factors the half out, and then the sum can overflow.
    return jnp.clip(0.5 * low + 0.5 * high, low, high)


def median(vectors: Float[Array, "n d"], present: Bool[Array, " n"]) -> Float[Array, " d"]:
    """The coordinate-wise median of the present rows; zero if there are none."""
    count = present.sum()
    ordered = sort_present(vectors, present)
    low, high = ordered[jnp.maximum(count - 1, 0) // 2], ordered[jnp.minimum(count // 2, len(present) - 1)]
    return jnp.where(count > 0, midpoint(low, high), 0.0)


def lower_quantile(values: Float[Array, " n"], present: Bool[Array, " n"], quantile: float) -> Float[Array, ""]:
    """The present value of rank ``floor(quantile * (count - 1))``; zero if there are none.

    An order statistic: unlike an interpolated quantile it is never pulled up by the value above it.
    """
    ranks = np.floor(quantile * np.arange(len(values)) + 1e-9).astype(np.int32)
    count = present.sum()
    ordered = jnp.sort(jnp.where(present, values, jnp.inf))
    return jnp.where(count > 0, ordered[jnp.asarray(ranks)[jnp.maximum(count - 1, 0)]], 0.0)


def draws(key: PRNGKeyArray, present: Bool[Array, " n"]) -> Float[Array, " n"]:
    """A uniform draw for everyone present, infinity for the others.

    The i-th *present* row gets the i-th draw, so who is absent does not change what the others draw.
    """
    uniform = jax.random.uniform(key, present.shape)
    return jnp.where(present, uniform[jnp.maximum(jnp.cumsum(present) - 1, 0)], jnp.inf)
