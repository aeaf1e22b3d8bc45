"""Envelopes as Flower's records, and back: one table of scalars, one row of bytes, nothing else.

Flower moves every record as an object of its own, in a request of its own at every hop, and objects that are equal only
once. So an envelope is two records, and what is the same for all nodes is in one of them.
"""

from __future__ import annotations

from flwr.app import ConfigRecord, RecordDict

from fedrax.parsing import DecodeError
from fedrax.runtime.distributed.envelopes import Envelope

HEADER, PAYLOAD, KIND = "header", "payload", "kind"
MESSAGE_TYPE = "query.envelope"
"""The type of every message, either way."""


def to_records(envelope: Envelope, payloads: dict[int, ConfigRecord] | None = None) -> RecordDict:
    """The envelope for Flower.

    Args:
        payloads: of envelopes that are sent together: the records of payloads that several of them share (the same
            bytes in memory), which Flower then packs once.
    """
    records = RecordDict({HEADER: ConfigRecord({KIND: envelope.kind, **envelope.fields})})
    if envelope.payload:
        known = {} if payloads is None else payloads
        records[PAYLOAD] = known.setdefault(id(envelope.payload), ConfigRecord({PAYLOAD: envelope.payload}))
    return records


def from_records(records: RecordDict) -> Envelope:
    """The envelope in these records.

    Raises:
        DecodeError: records that are not exactly an envelope's.
    """
    extra = set(records) - {HEADER, PAYLOAD}
    if extra:
        raise DecodeError(f"unknown records {ascii(sorted(extra))[:80]}")
    header = records.get(HEADER)
    if not isinstance(header, ConfigRecord) or not isinstance(header.get(KIND), str):
        raise DecodeError("an envelope without a header")
    fields = {name: value for name, value in header.items() if name != KIND}
    for name, value in fields.items():
        if not isinstance(value, (bool, int, float, str)):
            raise DecodeError(f"field {ascii(name)[:40]} is no number and no text")
    return Envelope(str(header[KIND]), fields, _payload(records.get(PAYLOAD)))  # type: ignore[arg-type]


def _payload(record: object) -> bytes:
    if record is None:
        return b""
    content = record[PAYLOAD] if isinstance(record, ConfigRecord) and list(record) == [PAYLOAD] else None
    if not isinstance(content, bytes):
        raise DecodeError("a payload that is not one row of bytes")
    return content
