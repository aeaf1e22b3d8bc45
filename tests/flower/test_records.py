"""Envelopes as Flower's records: they come back as they were, and nothing else is taken for one."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedrax.parsing import DecodeError
from fedrax.runtime.distributed.envelopes import Envelope
from fedrax.runtime.flower.records import HEADER, KIND, PAYLOAD, from_records, to_records

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FIELDS = st.dictionaries(
    TEXT.filter(lambda name: name != KIND),
    st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), TEXT, st.booleans()),
    max_size=4,
)


@given(TEXT, FIELDS, st.binary(max_size=100))
def test_an_envelope_comes_back_over_the_wire(kind, fields, payload):
    envelope = Envelope(kind, fields, payload)
    sent = RecordDict({name: type(r).inflate(r.deflate()) for name, r in to_records(envelope).items()})
    assert from_records(sent) == envelope


def test_what_is_the_same_for_all_nodes_is_one_object():
    one, other = (to_records(Envelope("work", {"agent": agent}, b"weights")) for agent in (0, 1))
    assert one[PAYLOAD].object_id == other[PAYLOAD].object_id
    assert one[HEADER].object_id != other[HEADER].object_id


GOOD = {HEADER: ConfigRecord({KIND: "worked"})}
ARRAY = ArrayRecord({PAYLOAD: Array(np.zeros(3, np.uint8))})


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ({}, "without a header"),
        ({HEADER: MetricRecord({"a": 1})}, "without a header"),
        ({HEADER: ConfigRecord({"a": 1})}, "without a header"),
        ({HEADER: ConfigRecord({KIND: 3})}, "without a header"),
        ({HEADER: ConfigRecord({KIND: "worked", "a": [1, 2]})}, "no number and no text"),
        ({HEADER: ConfigRecord({KIND: "worked", "a": b"x"})}, "no number and no text"),
        ({**GOOD, "more": ConfigRecord({})}, "unknown records"),
        ({**GOOD, PAYLOAD: ARRAY}, "not one row of bytes"),
        ({**GOOD, PAYLOAD: ConfigRecord({PAYLOAD: "text"})}, "not one row of bytes"),
        ({**GOOD, PAYLOAD: ConfigRecord({PAYLOAD: b"x", "more": 1})}, "not one row of bytes"),
        ({**GOOD, PAYLOAD: ConfigRecord({})}, "not one row of bytes"),
    ],
)
def test_other_records_are_garbled(records, why):
    with pytest.raises(DecodeError, match=why):
        from_records(RecordDict(records))
