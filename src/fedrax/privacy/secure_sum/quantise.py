"""Vectors as integers that are summed without error, and back: what a secure sum does to the numbers.

A coordinate between -C and C becomes an integer of so many bits, ``q = round(v / C 2^(bits - 1))``, rounded up or down
at random so that its mean is exact. The sum over n agents differs from that of the vectors by less than
``2^-(bits - 1) C n`` in every coordinate.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

BELOW = 1.0 - 1e-6
"""Clipped vectors end so far below their bound, which rounding in float32 then does not pass."""


def flat_clipped(vector: Float[Array, " d"], clip: float) -> Float[Array, " d"]:
    """The vector, scaled down to the Euclidean norm ``clip`` where it is longer.

    One that is not finite becomes zero: to leave it out would tell that it was not.
    """
    vector = jnp.where(jnp.isfinite(vector).all(), vector, 0.0)
    largest = jnp.abs(vector).max(initial=0.0)
    # Squares of large numbers overflow, and reciprocals of the largest are subnormal, which compilers make zero.
    scale = jnp.where(largest >= jnp.finfo(vector.dtype).tiny, jnp.minimum(largest, 2.0**125), 1.0)
    scaled = vector / scale
    length = jnp.sqrt(jnp.square(scaled).sum())
    shortened = scaled * (clip * BELOW / jnp.where(length > 0, length, 1.0))
    return jnp.where(scale * length > clip * BELOW, shortened, vector)


def quantised(vector: Float[Array, " d"], clip: float, bits: int, key: PRNGKeyArray) -> Int[Array, " d"]:
    """The vector in units of ``clip / 2^(bits - 1)``, stochastically rounded, int32.

    Args:
        vector: coordinates between -clip and clip; others become the nearest of these, NaN 0.
        clip: C.
        bits: of a coordinate, sign included.
        key: of the rounding.
    """
    levels = 2 ** (bits - 1)
    exact = jnp.clip(jnp.nan_to_num(vector / clip * levels), -levels, levels)
    # Not floor(exact + uniform): near the largest, float32 would round that sum up.
    below = jnp.floor(exact)
    return (below + (jax.random.uniform(key, vector.shape) < exact - below)).astype(jnp.int32)


def restored(total: Int[Array, " d"], clip: float, bits: int) -> Float[Array, " d"]:
    """A sum of quantised vectors as float32, in the vectors' units."""
    return total.astype(jnp.float32) * (clip / 2 ** (bits - 1))
