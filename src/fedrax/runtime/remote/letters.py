"""What travels between the server and the nodes: named scalars and one flat array of bytes. Never a pickle."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import jax
import numpy as np
from jaxtyping import PyTree

Field = int | float | str | bool

JOIN, JOINED = "join", "joined"
WORK, WORKED = "work", "worked"
EVALUATE, EVALUATED = "evaluate", "evaluated"
REFUSED = "refused"
"""The node's answer to what it cannot do; its field ``reason`` says why."""


@dataclass(frozen=True)
class Letter:
    """One message, either way."""

    kind: str
    fields: Mapping[str, Field] = field(default_factory=dict)
    payload: bytes = b""

    @property
    def size(self) -> int:
        """Bytes of the payload and of the fields as JSON; what carries it adds to that."""
        return len(self.payload) + len(json.dumps(dict(self.fields)))


class Garbled(ValueError):
    """Bytes that are no letter, or no such tree."""


def to_bytes(letter: Letter) -> bytes:
    """The letter as one string of bytes: the header's length, the header as JSON, the payload."""
    header = json.dumps({"kind": letter.kind, "fields": dict(letter.fields)}).encode()
    return len(header).to_bytes(4, "little") + header + letter.payload


def from_bytes(data: bytes) -> Letter:
    """The inverse of :func:`to_bytes`.

    Raises:
        Garbled: anything else.
    """
    length = int.from_bytes(data[:4], "little")
    try:
        header = json.loads(data[4 : 4 + length].decode())
        kind, fields = header["kind"], header["fields"]
        if not isinstance(kind, str) or not isinstance(fields, dict):
            raise TypeError
        if not all(isinstance(value, (int, float, str)) for value in fields.values()):
            raise TypeError
    except (ValueError, KeyError, TypeError):
        raise Garbled("the bytes are no letter") from None
    return Letter(kind, fields, data[4 + length :])


def packed(tree: PyTree) -> bytes:
    """The arrays of a tree, one after the other, little-endian."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(jax.device_get(tree))]
    return b"".join(leaf.astype(leaf.dtype.newbyteorder("<"), copy=False).tobytes() for leaf in leaves)


def packed_size(template: PyTree) -> int:
    """Bytes of :func:`packed`."""
    return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(template))


def unpacked(template: PyTree, data: bytes) -> PyTree:
    """The inverse of :func:`packed`: numpy arrays, shaped as the leaves of ``template`` (which may be bare shapes).

    Raises:
        Garbled: bytes of another length.
    """
    expected = packed_size(template)
    if len(data) != expected:
        raise Garbled(f"{len(data)} bytes where {expected} are expected")
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
