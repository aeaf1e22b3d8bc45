"""Vectors as integers that are summed without error, and back: what a secure sum does to the numbers.

A coordinate between -C and C becomes an integer of so many bits, ``q = round(v / C 2^(bits - 1))``, rounded up or down
at random so that its mean is exact. The sum over n agents differs from that of the vectors by less than
``2^-(bits - 1) C n`` in every coordinate.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray


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
