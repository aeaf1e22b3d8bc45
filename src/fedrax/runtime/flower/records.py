"""Letters as Flower's records, and back: one table of scalars, one array of bytes, nothing else."""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedrax.runtime.remote.letters import Garbled, Letter

HEADER, PAYLOAD, KIND = "header", "payload", "kind"
MESSAGE_TYPE = "query.letter"
"""Under which every letter travels, either way."""
NUMPY = "numpy.ndarray"
"""Flower's name of the one encoding that is accepted; it is read without pickle."""


def to_records(letter: Letter) -> RecordDict:
    """The letter for Flower."""
    records = RecordDict({HEADER: ConfigRecord({KIND: letter.kind, **letter.fields})})
    if letter.payload:
        records[PAYLOAD] = ArrayRecord({PAYLOAD: Array(np.frombuffer(letter.payload, np.uint8))})
    return records


def from_records(records: RecordDict) -> Letter:
    """The letter that came by Flower.

    Raises:
        Garbled: records that are not exactly a letter's.
    """
    extra = set(records) - {HEADER, PAYLOAD}
    if extra:
        raise Garbled(f"unknown records {ascii(sorted(extra))[:80]}")
    header = records.get(HEADER)
    if not isinstance(header, ConfigRecord) or not isinstance(header.get(KIND), str):
        raise Garbled("a letter without a header")
    fields = {name: value for name, value in header.items() if name != KIND}
    for name, value in fields.items():
        if not isinstance(value, (bool, int, float, str)):
            raise Garbled(f"field {ascii(name)[:40]} is no number and no text")
    return Letter(str(header[KIND]), fields, _payload(records.get(PAYLOAD)))  # type: ignore[arg-type]


def _payload(record: object) -> bytes:
    if record is None:
        return b""
    if not isinstance(record, ArrayRecord) or list(record) != [PAYLOAD]:
        raise Garbled("a payload that is not one array")
    array = record[PAYLOAD]
    if array.stype != NUMPY or array.dtype != "uint8":
        raise Garbled(f"a payload of {ascii(array.dtype)[:20]} where bytes are expected")
    try:
        content = array.numpy()
    except Exception as error:
        # Flower reads the array's own header, which a node may have written as it liked.
        raise Garbled(f"a payload that cannot be read: {type(error).__name__}") from None
    if content.dtype != np.uint8 or content.ndim != 1:
        raise Garbled("a payload that is not a row of bytes")
    return bytes(content.tobytes())
