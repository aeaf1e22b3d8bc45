"""Envelopes and arrays survive the way there and back; nothing else is taken for one."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedrax.arrays import form, packed, unpacked
from fedrax.parsing import DecodeError
from fedrax.runtime.distributed.envelopes import Envelope, from_bytes, to_bytes
from fedrax.trees import tree_bytes

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FIELDS = st.dictionaries(
    TEXT, st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), TEXT, st.booleans()), max_size=4
)
LEAF = arrays.arrays(st.sampled_from([np.float32, np.int32, np.bool_, np.uint8]), arrays.array_shapes(min_dims=0))


@given(TEXT, FIELDS, st.binary(max_size=100))
def test_an_envelope_comes_back(kind, fields, payload):
    assert from_bytes(to_bytes(Envelope(kind, fields, payload))) == Envelope(kind, fields, payload)


@given(st.binary(max_size=60))
def test_bytes_are_an_envelope_or_refused_and_nothing_else(data):
    try:
        envelope = from_bytes(data)
    except DecodeError:
        return
    assert from_bytes(to_bytes(envelope)) == envelope


@pytest.mark.parametrize(
    "header",
    [
        {"kind": "work"},
        {"kind": 3, "fields": {}},
        {"kind": "work", "fields": [1]},
        {"kind": "work", "fields": {"a": None}},
        {"kind": "work", "fields": {"a": [1]}},
        {"kind": "work", "fields": {"a": 2**63}},
        {"kind": "work", "fields": {"a": "\ud800"}},
        {"kind": "\ud800", "fields": {}},
    ],
)
def test_a_header_that_flower_could_not_carry_is_garbled(header):
    data = json.dumps(header).encode()
    with pytest.raises(DecodeError):
        from_bytes(len(data).to_bytes(4, "little") + data)


@given(st.lists(LEAF, min_size=1, max_size=4))
def test_arrays_come_back(leaves):
    tree = {"a": leaves[0], "rest": leaves[1:]}
    data = packed(tree)
    assert len(data) == tree_bytes(tree)
    again = unpacked(tree, data)
    for x, y in zip([again["a"], *again["rest"]], leaves, strict=True):
        np.testing.assert_array_equal(x, y)
        assert x.dtype == y.dtype


def test_bytes_of_another_length_are_no_tree():
    with pytest.raises(DecodeError, match="7 bytes where 8 are expected"):
        unpacked({"a": np.zeros(2, np.float32)}, bytes(7))


def test_a_form_tells_shapes_types_and_places_apart():
    trees = [
        {"a": np.zeros(2, np.float32)},
        {"a": np.zeros(3, np.float32)},
        {"a": np.zeros(2, np.int32)},
        {"b": np.zeros(2, np.float32)},
        [np.zeros(2, np.float32)],
    ]
    assert len({form(tree) for tree in trees}) == len(trees)
    assert form(trees[0]) == form({"a": np.ones(2, np.float32)})
