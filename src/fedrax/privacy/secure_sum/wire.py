"""The bytes of a secure sum's messages: rows of one size, little-endian, so that only what is expected is read."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from fedrax.privacy.secure_sum import keys, shamir, signatures
from fedrax.privacy.secure_sum.terms import SecureSumError, Terms

ENTRY = struct.Struct(f"<I{keys.BYTES}s{keys.BYTES}s?{signatures.FINGERPRINT}s{signatures.BYTES}s")
NUMBER = struct.Struct("<I")
SHARES = 2 * shamir.BYTES
"""Bytes of what one agent gives another: a share of its seed's and one of its key."""
SEALED = keys.NONCE + SHARES + keys.TAG
MISSING = b"\xff" * shamir.BYTES
"""In place of a share that an agent does not have; no share is so large."""


class Entry(NamedTuple):
    """What an agent advertises, and all others are shown."""

    agent: int
    sealing: bytes
    """Its public key for what only one other may read."""
    masking: bytes
    """Its public key for masks."""
    checks: bool
    """Whether it asks its peers for signatures."""
    signer: bytes = bytes(signatures.FINGERPRINT)
    """The fingerprint of its registered key; zeros where it does not sign."""
    signature: bytes = bytes(signatures.BYTES)

    def content(self, terms: Terms) -> bytes:
        """What is signed."""
        return terms.tagged("keys", self.agent, int(self.checks)) + self.sealing + self.masking


def entries_bytes(entries: Iterable[Entry]) -> bytes:
    """A roster, or one entry."""
    return b"".join(ENTRY.pack(*entry) for entry in entries)


def read_entries(data: bytes) -> list[Entry]:
    """The inverse of :func:`entries_bytes`; agents have to be in order, each once.

    Raises:
        SecureSumError: it is none.
    """
    entries = [Entry(*fields) for fields in ENTRY.iter_unpack(_of_rows(data, ENTRY.size, "keys"))]
    _check_order([entry.agent for entry in entries])
    return entries


def agents_bytes(agents: Iterable[int]) -> bytes:
    """A list of agents."""
    return b"".join(map(NUMBER.pack, agents))


def read_agents(data: bytes) -> list[int]:
    """The inverse of :func:`agents_bytes`; agents have to be in order, each once.

    Raises:
        SecureSumError: it is none.
    """
    agents = [number for (number,) in NUMBER.iter_unpack(_of_rows(data, NUMBER.size, "agents"))]
    _check_order(agents)
    return agents


def sealed_bytes(sealed: Mapping[int, bytes]) -> bytes:
    """Sealed shares by the agent that they are from, or for."""
    return b"".join(NUMBER.pack(agent) + sealed[agent] for agent in sorted(sealed))


def read_sealed(data: bytes) -> dict[int, bytes]:
    """The inverse of :func:`sealed_bytes`.

    Raises:
        SecureSumError: it is none.
    """
    size = NUMBER.size + SEALED
    _of_rows(data, size, "sealed shares")
    rows = [data[start : start + size] for start in range(0, len(data), size)]
    agents = [NUMBER.unpack_from(row)[0] for row in rows]
    _check_order(agents)
    return {agent: row[NUMBER.size :] for agent, row in zip(agents, rows, strict=True)}


def shares_bytes(shares: Iterable[int | None]) -> bytes:
    """Shares one after the other, :data:`MISSING` in place of None."""
    return b"".join(MISSING if share is None else share.to_bytes(shamir.BYTES, "little") for share in shares)


def read_shares(data: bytes, count: int) -> list[int | None]:
    """The inverse of :func:`shares_bytes`.

    Raises:
        SecureSumError: they are no ``count`` shares.
    """
    rows = _of_rows(data, shamir.BYTES, "shares")
    if len(rows) != count * shamir.BYTES:
        raise SecureSumError(f"{len(rows) // shamir.BYTES} shares where {count} are expected")
    numbers = [
        int.from_bytes(rows[start : start + shamir.BYTES], "little") for start in range(0, len(rows), shamir.BYTES)
    ]
    return [number if number < shamir.PRIME else None for number in numbers]


def _of_rows(data: bytes, size: int, what: str) -> bytes:
    if len(data) % size:
        raise SecureSumError(f"{len(data)} bytes, which are no list of {what}")
    return data


def _check_order(agents: Sequence[int]) -> None:
    if any(one >= other for one, other in itertools.pairwise(agents)):
        raise SecureSumError("agents that are out of order, or listed twice")
