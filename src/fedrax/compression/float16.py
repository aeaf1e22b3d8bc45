"""Half precision: 2 bytes a number."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from fedrax.compression.base import FeedbackCompression, compressions
from fedrax.message import is_real

LARGEST = float(jnp.finfo(jnp.float16).max)


@compressions.register("float16")
class Float16(FeedbackCompression):
    """Every number in half precision (IEEE 754 binary16): 11 significant bits, down to 6e-8.

    Finite numbers beyond 65504 become 65504, with their sign.
    """

    by_array: ClassVar[bool] = True

    def encode(self, update: PyTree, own: PRNGKeyArray, shared: PRNGKeyArray) -> PyTree:
        """The same arrays, as float16."""

        def one(x: Array) -> Array:
            if not is_real(x) or x.dtype.itemsize <= 2:
                return x
            return jnp.where(jnp.isfinite(x), jnp.clip(x, -LARGEST, LARGEST), x).astype(jnp.float16)

        return jax.tree.map(one, update)

    def decode(self, encoded: PyTree, template: PyTree, shared: PRNGKeyArray) -> PyTree:
        """The same numbers in their own type."""
        return jax.tree.map(lambda shape, x: x.astype(shape.dtype), template, encoded)
