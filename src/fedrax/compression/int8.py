"""Eight bits a number, rounded at random."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from fedrax.compression.base import FeedbackCompression, compressions
from fedrax.message import is_real

LEVELS = 127


class Scaled(NamedTuple):
    """An array as whole multiples of a scale."""

    values: Array
    """int8, of the array's shape."""
    scale: Float[Array, ""]


@compressions.register("int8")
class Int8Compression(FeedbackCompression):
    """Every array as whole multiples, -127 to 127, of a 127th of its largest magnitude.

    Numbers are rounded up or down at random so that they are right on average (stochastic rounding: QSGD of Alistarh
    et al., NeurIPS 2017, with the largest magnitude in place of the norm). The error of a number is less than a 127th
    of the largest; so with error feedback what was left out stays below a 126th of the largest update.
    """

    by_array: ClassVar[bool] = True

    def encode(self, update: PyTree, own: PRNGKeyArray, shared: PRNGKeyArray) -> PyTree:
        """A :class:`Scaled` in place of each real array."""
        leaves, structure = jax.tree.flatten(update)
        keys = (jax.random.fold_in(own, number) for number in range(len(leaves)))
        encoded = [quantised(x, key) if is_real(x) else x for x, key in zip(leaves, keys, strict=True)]
        return jax.tree.unflatten(structure, encoded)

    def decode(self, encoded: PyTree, template: PyTree, shared: PRNGKeyArray) -> PyTree:
        """The multiples times the scale."""

        def one(shape: Any, x: Any) -> Array:
            if not isinstance(x, Scaled):
                return jnp.asarray(x)
            return (x.values * x.scale).astype(shape.dtype)

        return jax.tree.map(one, template, encoded)


def quantised(x: Array, key: PRNGKeyArray) -> Scaled:
    """An array of real numbers, rounded at random; a NaN or an infinity in it makes the scale one."""
    x = x.astype(jnp.float32)
    scale = jnp.abs(x).max(initial=0.0) / LEVELS
    multiples = jnp.floor(x / jnp.where(scale > 0, scale, 1.0) + jax.random.uniform(key, x.shape))
    values = jnp.where(jnp.isfinite(multiples), jnp.clip(multiples, -LEVELS, LEVELS), 0.0)
    return Scaled(values.astype(jnp.int8), scale)
