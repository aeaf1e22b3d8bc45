"""Rows in three forms that agree, whatever happened to the process in between."""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import math
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboardX.proto.event_pb2 import Event

from fedrax.errors import FedraxError
from fedrax.records.live import LiveLoggers
from fedrax.records.metrics import MetricsWriter
from fedrax.records.rows import read_metrics
from fedrax.records.rundir import RunDirectory


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path)


def rows_of(rounds: range, seeds: tuple[int, ...] = (0,)) -> list[dict[str, Any]]:
    rows = []
    for number in rounds:
        for seed in seeds:
            row: dict[str, Any] = {
                "seed": seed,
                "round": number,
                "train_return": 10.5 * number + seed,
                "accepted": 9,
            }
            if number % 3 == 2:
                row["return"] = 100.0 + number
            if number == 4:
                row["excluded"] = [1, 7]
            rows.append(row)
    return rows


def table(run: RunDirectory) -> list[dict[str, Any]]:
    """The CSV's rows with empty cells left out and the rest read as JSON."""
    with run.metrics_csv.open(newline="") as file:
        return [{k: json.loads(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


@contextlib.contextmanager
def recording(
    run: RunDirectory, resume_round: int = 0, *, seeds: Sequence[int] = (0,), without: Any = MappingProxyType({})
) -> Iterator[MetricsWriter]:
    """A run's writer, with TensorBoard as in a run that names no logger."""
    with (
        LiveLoggers(run, {"tensorboard": {}}, name="run", seeds=seeds, config={}) as live,
        MetricsWriter(run, resume_round=resume_round, without=without, further=[live]) as writer,
    ):
        yield writer


def events(run: RunDirectory) -> dict[str, list[tuple[int, str, float]]]:
    """(step, tag, value) of every scalar in the one event file of each folder."""
    return {folder.name: events_in(folder) for folder in (run.path / "tensorboard").iterdir()}


def events_in(folder: Path) -> list[tuple[int, str, float]]:
    (path,) = folder.iterdir()
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        data = data[16 + length :]
    return found


def scalars(rows: list[dict[str, Any]]) -> dict[str, list[tuple[int, str, float]]]:
    """What the event files should hold for ``rows``."""
    found: dict[str, list[tuple[int, str, float]]] = {}
    for row in rows:
        found.setdefault(f"seed_{row['seed']}", []).extend(
            (row["round"], name, float(np.float32(value)))
            for name, value in row.items()
            if name not in ("seed", "round") and isinstance(value, (int, float))
        )
    return found


def assert_agree(run: RunDirectory, rows: list[dict[str, Any]]) -> None:
    assert read_metrics(run.metrics_jsonl) == rows
    assert table(run) == rows
    assert events(run) == scalars(rows)


def test_what_is_measured_after_the_last_round_is_in_every_file_and_not_kept_when_the_run_goes_on(run) -> None:
    """Seed 1 ended a round before the other, and an evaluation adds a column."""
    rows = [{"seed": seed, "round": number, "total_steps": 9} for number in range(3) for seed in (0, 1)][:-1]
    with recording(run, seeds=[0, 1]) as writer:
        writer.write(rows)
        writer.finish({0: {"return": 1.5, "agent_returns": [1.0, math.nan]}, 1: {"return": 2.5}})
        assert [row.get("return") for row in read_metrics(run.metrics_jsonl)] == [None, None, None, 2.5, 1.5]
    assert read_metrics(run.metrics_jsonl)[-1] == rows[-1] | {"return": 1.5, "agent_returns": [1.0, None]}
    assert table(run) == read_metrics(run.metrics_jsonl)
    assert events(run) == {
        "seed_0": [*((number, "total_steps", 9.0) for number in range(3)), (2, "return", 1.5)],
        "seed_1": [*((number, "total_steps", 9.0) for number in range(2)), (1, "return", 2.5)],
    }
    with recording(run, 3, seeds=[0, 1], without={0: ["return", "agent_returns"], 1: ["return"]}) as writer:
        writer.write([{"seed": 0, "round": 3, "total_steps": 9}])
    assert_agree(run, [*rows, {"seed": 0, "round": 3, "total_steps": 9}])


def test_one_row_in_three_forms(run: RunDirectory) -> None:
    with recording(run, seeds=[0]) as writer:
        writer.write([{"seed": 0, "round": 0, "return": 9.5, "total_steps": 1200, "excluded": [1, 2]}])
    line = '{"seed": 0, "round": 0, "return": 9.5, "total_steps": 1200, "excluded": [1, 2]}\n'
    assert run.metrics_jsonl.read_text() == line
    assert run.metrics_csv.read_text() == 'seed,round,return,total_steps,excluded\n0,0,9.5,1200,"[1, 2]"\n'
    assert events(run) == {"seed_0": [(0, "return", 9.5), (0, "total_steps", 1200.0)]}


def test_columns_grow_in_the_middle_of_a_run(run: RunDirectory) -> None:
    with recording(run, seeds=[0]) as writer:
        for row in rows_of(range(7)):
            writer.write([row])
    assert run.metrics_csv.read_text().splitlines()[0] == "seed,round,train_return,accepted,return,excluded"
    assert_agree(run, rows_of(range(7)))


def test_several_seeds_have_a_folder_each_and_the_same_tags(run: RunDirectory) -> None:
    rows = rows_of(range(4), seeds=(3, 5))
    with recording(run, seeds=[3, 5]) as writer:
        writer.write(rows)
    assert (2, "return", 102.0) in events(run)["seed_5"]
    assert_agree(run, rows)


def test_numbers_of_any_make_become_plain(run: RunDirectory) -> None:
    row = {
        "seed": np.int64(0),
        "round": jnp.int32(1),
        "a": np.float32(0.5),
        "b": jnp.bfloat16(2),
        "c": float("nan"),
        "d": jnp.inf,
        "e": np.float64("-inf"),
        "f": jnp.arange(2),
        "g": np.bool_(True),
    }
    with recording(run, seeds=[0]) as writer:
        writer.write([row])
    text = run.metrics_jsonl.read_text()
    assert text.startswith('{"seed": 0, "round": 1, "a": 0.5,'), "integers must stay integers"
    assert json.loads(text) == {
        "seed": 0,
        "round": 1,
        "a": 0.5,
        "b": 2.0,
        "g": True,
        "f": [0, 1],
        "c": None,
        "d": None,
        "e": None,
    }
    assert events(run) == {"seed_0": [(1, "a", 0.5), (1, "b", 2.0), (1, "g", 1.0)]}


def test_rows_are_readable_while_the_run_goes_on(run: RunDirectory) -> None:
    with recording(run, seeds=[0]) as writer:
        writer.write(rows_of(range(3)))
        assert read_metrics(run.metrics_jsonl) == rows_of(range(3))
        assert table(run) == rows_of(range(3))
        writer.sync()
        assert events(run) == scalars(rows_of(range(3)))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(killed=st.integers(1, 9), data=st.data())
def test_a_killed_and_resumed_run_has_the_records_of_one_that_was_not(
    run: RunDirectory, killed: int, data: st.DataObject
) -> None:
    checkpoint = data.draw(st.integers(0, killed), label="checkpoint")
    torn = data.draw(st.integers(0, 40), label="bytes torn off")
    with recording(run, seeds=[0, 1]) as writer:
        writer.write(rows_of(range(checkpoint), (0, 1)))
        writer.sync()
        durable = run.metrics_jsonl.stat().st_size
        writer.write(rows_of(range(checkpoint, killed), (0, 1)))
    length = run.metrics_jsonl.stat().st_size
    os.truncate(run.metrics_jsonl, max(durable, length - torn))
    with recording(run, resume_round=checkpoint, seeds=[0, 1]) as writer:
        assert read_metrics(run.metrics_jsonl) == rows_of(range(checkpoint), (0, 1))
        for number in range(checkpoint, 10):
            writer.write(rows_of(range(number, number + 1), (0, 1)))
    resumed = (run.metrics_jsonl.read_bytes(), run.metrics_csv.read_bytes())
    assert_agree(run, rows_of(range(10), (0, 1)))
    with recording(run, seeds=[0, 1]) as writer:
        for number in range(10):
            writer.write(rows_of(range(number, number + 1), (0, 1)))
    assert resumed == (run.metrics_jsonl.read_bytes(), run.metrics_csv.read_bytes())


def test_a_new_run_starts_with_no_rows(run: RunDirectory) -> None:
    for _ in range(2):
        with recording(run, seeds=[0]) as writer:
            assert read_metrics(run.metrics_jsonl) == []
            writer.write(rows_of(range(2)))
    assert_agree(run, rows_of(range(2)))


def test_reading_leaves_out_a_torn_last_line_only(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"round": 0}\n{"round": 1}\n{"rou')
    assert read_metrics(path) == [{"round": 0}, {"round": 1}]
    path.write_bytes(b'{"round": 0}\n\0\0\0\0')
    assert read_metrics(path) == [{"round": 0}]
    path.write_bytes(b'{"round": 0}\n{"rou\n{"round": 2}\n')
    with pytest.raises(FedraxError, match="damaged in line 2"):
        read_metrics(path)
    with pytest.raises(FedraxError, match=r"cannot read the metrics .*: No such file"):
        read_metrics(tmp_path / "other.jsonl")


@pytest.mark.parametrize("taken", [0, 25])
def test_a_full_disk_tears_no_row_and_says_what_is_kept(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    write = os.write
    room = taken

    def full(descriptor: int, data: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(descriptor, data[:room])
        room -= written
        return written

    writer = MetricsWriter(run)
    writer.write(rows_of(range(3)))
    with monkeypatch.context() as patch:
        patch.setattr("os.write", full)
        with pytest.raises(FedraxError) as caught, writer:
            writer.write(rows_of(range(3, 5)))
    message = str(caught.value)
    assert "No space left on device; rows up to round 2 are kept in metrics.jsonl" in message
    assert "\n" not in message
    assert run.metrics_jsonl.read_bytes().endswith(b"\n")
    with recording(run, resume_round=3, seeds=[0]) as resumed:
        resumed.write(rows_of(range(3, 5)))
    assert_agree(run, rows_of(range(5)))
