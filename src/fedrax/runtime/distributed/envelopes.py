"""What travels between the server and the nodes: named scalars and one flat array of bytes. Never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from fedrax.parsing import DecodeError, parsed_json

Field = int | float | str | bool

JOIN, JOINED = "join", "joined"
WORK, WORKED = "work", "worked"
EVALUATE, EVALUATED = "evaluate", "evaluated"
END, ENDED = "end", "ended"
"""The run is over: the server asks for nothing more."""
OVER = "the run is over"
"""How what a node's owner is told of it begins."""
WITHOUT = f"{OVER} without this node"
"""The same where it had no part in the run's last round, although it was to have: it ends with a status of failure."""
KEYS, KEYED = "keys", "keyed"
"""Work whose message is to be in a secure sum: its answer holds the report, and keys in place of the message."""
SHARE, SHARED = "share", "shared"
MASK, MASKED = "mask", "masked"
UNMASK, UNMASKED = "unmask", "unmasked"
"""The further stages of a secure sum (:mod:`fedrax.privacy.secure_sum`)."""
LARGEST = 2**63
"""Integers are of 64 bits."""
UNKNOWN_RUN = "unknown-run"
"""The answer of a node that does not know the run (any more): it must join (again)."""
UNFIT = "unfit"
"""The node's answer to a request to join a run in which it cannot take part as it was started: its owner must act."""
CANNOT = "this node cannot take part in the run"
"""How what its owner is told of it begins; the node ends, with a status of failure."""
REFUSED = "refused"
"""The node's answer to what it cannot do; its field ``reason`` says why."""


@dataclass(frozen=True)
class Envelope:
    """A request of the server's, or a node's answer to it."""

    kind: str
    fields: Mapping[str, Field] = field(default_factory=dict)
    payload: bytes = b""

    @property
    def size(self) -> int:
        """Bytes of the payload and of the fields as JSON; the transport adds to that."""
        return len(self.payload) + len(json.dumps(dict(self.fields)))


def to_bytes(envelope: Envelope) -> bytes:
    """The envelope as one string of bytes: the header's length, the header as JSON, the payload."""
    header = json.dumps({"kind": envelope.kind, "fields": dict(envelope.fields)}).encode()
    return len(header).to_bytes(4, "little") + header + envelope.payload


def from_bytes(data: bytes) -> Envelope:
    """The inverse of :func:`to_bytes`.

    Raises:
        DecodeError: anything else.
    """
    length = int.from_bytes(data[:4], "little")
    try:
        header = parsed_json(data[4 : 4 + length].decode())
        kind, fields = header["kind"], header["fields"]
        if not isinstance(kind, str) or not isinstance(fields, dict):
            raise TypeError
        for text in (kind, *fields, *(value for value in fields.values() if isinstance(value, str))):
            text.encode()
        if not all(isinstance(value, (float, str)) or -LARGEST <= value < LARGEST for value in fields.values()):
            raise TypeError
    except (ValueError, KeyError, TypeError):
        raise DecodeError("the bytes are no envelope") from None
    return Envelope(kind, fields, data[4 + length :])
