"""Pytrees of arrays as flat vectors, what they weigh, and their types."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


def ravel_rows(tree: PyTree) -> Float[Array, "n d"]:
    """Every row of a pytree with leaves ``[n, ...]`` as one flat vector."""
    return jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(tree)], axis=1)


def unravel_like(example: PyTree, vectors: Float[Array, "*batch d"]) -> PyTree:
    """The inverse of :func:`ravel_rows`: leaves ``[*batch, ...]``, shaped as those of ``example``.

    ``example`` has no batch axes; its leaves may be ``jax.ShapeDtypeStruct``.
    """
    leaves, structure = jax.tree.flatten(example)
    parts, start = [], 0
    for leaf in leaves:
        size = math.prod(leaf.shape)
        part = vectors[..., start : start + size]
        parts.append(part.reshape(*vectors.shape[:-1], *leaf.shape).astype(leaf.dtype))
        start += size
    return jax.tree.unflatten(structure, parts)


def tree_bytes(example: PyTree) -> int:
    """Bytes that the arrays of ``example`` (or ``jax.ShapeDtypeStruct``) take on a wire without a header."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(example))


def tree_size(example: PyTree) -> int:
    """Numbers in the arrays of ``example`` (or ``jax.ShapeDtypeStruct``)."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(example))


def strongly_typed(tree: PyTree) -> PyTree:
    """The same arrays, of any shapes, without JAX's weak types (of Python numbers), which compile another program."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), tree)
