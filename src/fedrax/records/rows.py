"""Reading ``metrics.jsonl``: one JSON object per line, one line per seed and round.

A run that is being written, or was killed while writing, may end in half a line: a damaged last line is left out, and
a damaged line before it is refused.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedrax.errors import FedraxError
from fedrax.parsing import parsed_json
from fedrax.records.files import reason

Row = dict[str, Any]
"""The values of one seed and round (from 0) by name: numbers, or lists for what has no single number."""
SCALARS = frozenset(
    {
        *(
            "return",
            "return_worst",
            "return_median",
            "train_return",
            "episode_length",
            "success",
            "success_last",
            "success_share",
            "success_worst",
            "success_last_worst",
            "success_share_worst",
            *(f"{name}_{when}" for name in ("return", "success", "success_last") for when in ("before", "after")),
        ),
        *("trajectories", "agent_trajectories", "server_trajectories", "total_trajectories", "train_success"),
        *("agent_steps", "server_steps", "total_steps", "gradient_steps", "bytes_up", "bytes_down", "bytes_mesh"),
        "seconds",
    }
)
"""What is one number; under ``dropped`` is a list of tables."""
PLACE = ("seed", "round", "trajectories", "total_steps", "agent_steps", "seconds")
"""Of a row, where in a run it is."""
LARGEST_BITS = 1000
"""Of a whole number, which must fit into a real one."""


class Addition(Row):
    """What a row has more than when it was handed on, and of the rest where in the run it is."""


def read_metrics(path: Path) -> list[Row]:
    """The rows of a ``metrics.jsonl`` in the order written.

    Raises:
        FedraxError: there is no such file, or a line before the last is damaged.
    """
    try:
        lines = path.read_bytes().removesuffix(b"\n").split(b"\n")
    except OSError as error:
        raise FedraxError(f"cannot read the metrics {path}: {reason(error)}; give a run that was started") from None
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        row = _row(line)
        if row is not None:
            rows.append(row)
        elif line.strip() and number < len(lines):
            raise FedraxError(
                f"{path} is damaged in line {number}: it is no JSON object of numbers, with whole ones for seed and "
                "round; restore the file or delete that line"
            )
    return rows


def read_by_seed(path: Path) -> dict[int, list[Row]]:
    """The rows by seed, each seed's by ascending round; empty before the first round.

    Raises:
        FedraxError: a line before the last is damaged, or a seed's rounds do not ascend.
    """
    rows: dict[int, list[Row]] = {}
    for row in read_metrics(path) if path.is_file() else ():
        known = rows.setdefault(seed_of(row), [])
        if known and row["round"] <= known[-1]["round"]:
            raise FedraxError(
                f"{path}: round {row['round']} of seed {seed_of(row)} follows round {known[-1]['round']}; "
                "two runs wrote to one directory, so train anew"
            )
        known.append(row)
    return rows


def read_tail(path: Path, size: int) -> list[Row]:
    """The whole rows among the file's last ``size`` bytes, to watch a run that is being written; none without a file.

    Damaged lines are left out: the first one is cut, and so may be the last.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return parsed_rows(file.read())
    except OSError:
        return []


def parsed_rows(data: bytes) -> list[Row]:
    """The rows of these lines; damaged ones are left out."""
    return [row for line in data.split(b"\n") if (row := _row(line)) is not None]


def last_rows(rows: Sequence[Row]) -> dict[int, int]:
    """By seed, the index of its last row."""
    return {seed_of(row): index for index, row in enumerate(rows)}


def seed_of(row: Row) -> int:
    """The row's seed; 0 where none is recorded."""
    seed: int = row.get("seed", 0)
    return seed


def _row(line: bytes) -> Row | None:
    """The row in this line; None where it is damaged."""
    try:
        row = parsed_json(line)
    except ValueError:  # Not JSON, or bytes that are no text.
        return None
    whole = isinstance(row, dict) and type(row.get("round")) is int and type(row.get("seed", 0)) is int
    return row if whole and all(_measured(name, value) for name, value in row.items()) else None


def _measured(name: str, value: Any) -> bool:
    """Whether it is what a row can hold under this name."""
    if name == "dropped":
        return isinstance(value, list) and all(isinstance(item, dict) for item in value)
    if isinstance(value, list):
        return name not in SCALARS and all(_measured("", item) for item in value)
    if isinstance(value, int):
        return value.bit_length() <= LARGEST_BITS
    return value is None or isinstance(value, float)
