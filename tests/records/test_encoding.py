"""What is recorded is what is read: numbers that JSON does not have included."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrax.records.checkpoint import load_checkpoint, save_checkpoint
from fedrax.records.encoding import decoded, encoded, plain
from fedrax.records.files import read_json, write_json
from fedrax.runtime.counters import Counters

WORDS = st.sampled_from(["NaN", "Infinity", "-Infinity", "\\NaN", "\\\\Infinity", "null", ""])
numbers = st.floats(allow_nan=True, allow_infinity=True)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | st.text() | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3) | WORDS, inner, max_size=4),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    """Equality in which NaN equals itself, 1 is not 1.0, and 0.0 is not -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return repr(one) == repr(other)


@given(value=values)
def test_any_value_comes_back(value: Any) -> None:
    text = encoded(value)
    assert same(decoded(text), value)
    json.loads(text, parse_constant=pytest.fail)


def test_known_numbers_are_written_as_protocol_buffers_write_them() -> None:
    assert encoded([math.nan, math.inf, -math.inf, None, 1.5]) == '["NaN", "Infinity", "-Infinity", null, 1.5]'
    assert encoded({"x": np.float32(math.inf), "n": np.array([1, 2])}) == '{"x": "Infinity", "n": [1, 2]}'
    assert plain([math.nan, math.inf, 1.5]) == [None, None, 1.5]


def test_values_without_a_representation_are_refused() -> None:
    with pytest.raises(TypeError, match="a object cannot be recorded"):
        encoded(object())


def test_files_and_checkpoints_keep_them(tmp_path: Path) -> None:
    value = {"a": [math.nan, math.inf, -math.inf, None], "b": "NaN"}
    write_json(tmp_path / "value.json", value)
    assert same(read_json(tmp_path / "value.json", "value"), value)
    save_checkpoint(tmp_path, 1, {"x": np.zeros(1)}, value)
    loaded = load_checkpoint(tmp_path, {"x": np.zeros(1)})
    assert loaded is not None
    assert same(loaded[1], value | {"round": 1})


def test_totals_of_earlier_versions_are_read() -> None:
    """They wrote NaN as null."""
    counters = Counters.restored({"rounds": 3, "final_return": None, "best_return": None})
    assert counters.rounds == 3
    assert math.isnan(counters.final_return)
    assert math.isnan(counters.best_return)
