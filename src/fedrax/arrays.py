"""Trees of arrays as one string of bytes, and back."""

from __future__ import annotations

import hashlib
import math

import jax
import numpy as np
from jaxtyping import PyTree

from fedrax.parsing import DecodeError
from fedrax.trees import tree_bytes


def packed(tree: PyTree) -> bytes:
    """The arrays of a tree, one after the other, little-endian."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(jax.device_get(tree))]
    return b"".join(leaf.astype(leaf.dtype.newbyteorder("<"), copy=False).tobytes() for leaf in leaves)


def unpacked(template: PyTree, data: bytes) -> PyTree:
    """The inverse of :func:`packed`: numpy arrays, shaped as the leaves of ``template`` (which may be bare shapes).

    Raises:
        DecodeError: bytes of another length.
    """
    expected = tree_bytes(template)
    if len(data) != expected:
        raise DecodeError(f"{len(data)} bytes where {expected} are expected")
    leaves, structure = jax.tree.flatten(template)
    arrays, start = [], 0
    for leaf in leaves:
        dtype = np.dtype(leaf.dtype)
        size = math.prod(leaf.shape) * dtype.itemsize
        part = np.frombuffer(data, dtype.newbyteorder("<"), count=math.prod(leaf.shape), offset=start)
        arrays.append(part.astype(dtype).reshape(leaf.shape))
        start += size
    return jax.tree.unflatten(structure, arrays)


def form(template: PyTree) -> str:
    """A short hash of a tree's structure, shapes and types: equal where both sides mean the same arrays."""
    leaves = jax.tree_util.tree_leaves_with_path(template)
    lines = [f"{jax.tree_util.keystr(path)} {np.dtype(leaf.dtype).name} {tuple(leaf.shape)}" for path, leaf in leaves]
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=8).hexdigest()
