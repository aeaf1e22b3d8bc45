"""Whoever reads a run's rows sees the same rows, and says the same of a damaged file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedrax.errors import FedraxError
from fedrax.records.metrics import missing_rounds
from fedrax.records.rows import read_by_seed, read_metrics, read_tail
from fedrax.records.rundir import RunDirectory
from fedrax.report.runs import load_run

GOOD = b'{"seed": 0, "round": 0}\n'
DAMAGE = {
    "no JSON": b'{"rou',
    "no text": b"\xff",
    "no object": b"3",
    "no round": b'{"seed": 0}',
    "a round that is no number": b'{"seed": 0, "round": "x"}',
    "a round that is not whole": b'{"seed": 0, "round": 0.5}',
    "a seed that is no number": b'{"seed": null, "round": 1}',
}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path)
    directory.write_config("")
    return directory


def said(read, *arguments) -> str:
    with pytest.raises(FedraxError) as raised:
        read(*arguments)
    return str(raised.value)


@pytest.mark.parametrize("line", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_told_alike_by_training_and_by_the_report(run: RunDirectory, line: bytes) -> None:
    run.metrics_jsonl.write_bytes(GOOD + line + b"\n" + b'{"seed": 0, "round": 2}\n')
    message = said(read_metrics, run.metrics_jsonl)
    assert f"{run.metrics_jsonl} is damaged in line 2: " in message
    assert "delete that line" in message
    assert "\n" not in message
    assert said(load_run, run.path) == said(missing_rounds, run, {0: 3}) == message
    # Whoever watches a run does not stop it.
    assert [row["round"] for row in read_tail(run.metrics_jsonl, 1 << 16)] == [0, 2]


@pytest.mark.parametrize("line", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_last_line_is_left_out_by_all(run: RunDirectory, line: bytes) -> None:
    run.metrics_jsonl.write_bytes(GOOD + line)
    rows = [{"seed": 0, "round": 0}]
    assert read_metrics(run.metrics_jsonl) == rows
    assert read_by_seed(run.metrics_jsonl) == {0: rows}
    assert list(load_run(run.path).histories[0].rows) == rows
    assert missing_rounds(run, {0: 2}) == ["round 2 of seed 0"]


def test_rows_without_a_seed_are_of_seed_0(run: RunDirectory) -> None:
    run.metrics_jsonl.write_bytes(b'{"round": 0}\n{"round": 1}\n')
    assert list(read_by_seed(run.metrics_jsonl)) == [0]
    assert missing_rounds(run, {0: 3}) == ["round 3 of seed 0"]


def test_rounds_of_a_seed_ascend(run: RunDirectory) -> None:
    run.metrics_jsonl.write_bytes(GOOD + b'{"seed": 1, "round": 0}\n' + GOOD)
    message = said(read_by_seed, run.metrics_jsonl)
    assert "round 0 of seed 0 follows round 0; two runs wrote to one directory" in message
    assert said(load_run, run.path) == message


def test_the_tail_holds_whole_rows_only(run: RunDirectory) -> None:
    lines = [b'{"round": %d}\n' % number for number in range(10)]
    run.metrics_jsonl.write_bytes(b"".join(lines) + b'{"round": 1')
    assert read_tail(run.metrics_jsonl, len(b'{"round": 1') + 2 * len(lines[0]) + 3) == [{"round": 8}, {"round": 9}]
    assert read_tail(run.path / "other.jsonl", 100) == []


def test_rounds_that_a_summary_cannot_have_are_not_missed(run: RunDirectory) -> None:
    run.metrics_jsonl.write_bytes(GOOD)
    for rounds, missing in ((2, [1]), (10**15, []), ("two", [])):
        run.summary.write_text(json.dumps({"seeds": [0], "rounds": rounds, "final_return": 0.0}))
        assert list(load_run(run.path).histories[0].missing) == missing
