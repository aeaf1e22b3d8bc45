"""Tests that kill processes at random moments: the account of the kills, and whether two runs are equal to the bit."""

from __future__ import annotations

import collections
import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

CLOCKS = ("seconds", "seconds_compile", "seconds_train")
"""What the wall clock says differs from one execution to the next."""


class Account:
    """The kills of a test, by where they hit, and how many of them the runs have survived unchanged."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.kills: collections.Counter[str] = collections.Counter()
        self.equal = 0
        self.open = 0
        """Kills of the run under way."""

    def hit(self, where: str) -> None:
        """A kill that ended a living process."""
        self.kills[where] += 1
        self.open += 1

    def close(self, found: list[str]) -> None:
        """The run under way has finished, with these differences from one that nobody killed."""
        self.equal += 0 if found else self.open
        self.open = 0

    @property
    def count(self) -> int:
        """Kills so far."""
        return self.kills.total()

    def tell(self, record_property: Callable[[str, object], None]) -> None:
        """Records the account in the report, and prints it."""
        where = ", ".join(f"{number} {name}" for name, number in self.kills.items())
        record_property(
            "kills",
            json.dumps({"what": self.what, "kills": self.count, "equal": self.equal, "where": dict(self.kills)}),
        )
        print(f"{self.what}: {self.count} kills ({where}), equal to the bit after {self.equal}")


def differences(ours: Path, theirs: Path) -> list[str]:
    """The records and arrays of a finished run that are not those of another one, to the bit."""
    found = []
    for name, read in (("metrics.jsonl", _rows), ("metrics.csv", _table), ("summary.json", _summary)):
        if read(ours / name) != read(theirs / name):
            found.append(name)
    for name in ("policy.safetensors", "best.safetensors"):
        found += [f"{name} {leaf}" for leaf in array_differences(ours / name, theirs / name)]
    if any(len(list(folder.iterdir())) != 1 for folder in (ours / "tensorboard").iterdir()):
        found.append("tensorboard")
    return found + checkpoint_differences(ours / "checkpoints", theirs / "checkpoints")


def checkpoint_differences(ours: Path, theirs: Path, leaves: str = "") -> list[str]:
    """Checkpoints, and their arrays whose names begin with ``leaves``, that are not the same in two folders."""
    names = [sorted(path.name for path in folder.iterdir()) for folder in (ours, theirs)]
    if names[0] != names[1]:
        return [f"checkpoints {names[0]} in place of {names[1]}"]
    return [f"{name} {leaf}" for name in names[0] for leaf in array_differences(ours / name, theirs / name, leaves)]


def array_differences(ours: Path, theirs: Path, leaves: str = "") -> list[str]:
    """The arrays of two files that differ in a bit, or are in one alone."""
    one, other = (_arrays(path, leaves) for path in (ours, theirs))
    return sorted(leaf for leaf in one.keys() | other.keys() if one.get(leaf) != other.get(leaf))


def _arrays(path: Path, leaves: str) -> dict[str, tuple[Any, ...]]:
    # As bytes: NaN equals itself, and 0 is not -0.
    arrays = {leaf: array for leaf, array in load_file(path).items() if leaf.startswith(leaves)}
    assert arrays
    return {leaf: (array.dtype, array.shape, array.tobytes()) for leaf, array in arrays.items()}


def _timeless(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in CLOCKS}


def _rows(path: Path) -> list[dict[str, Any]]:
    return [_timeless(json.loads(line)) for line in path.read_text().splitlines()]


def _table(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="") as file:
        return [_timeless(row) for row in csv.DictReader(file)]


def _summary(path: Path) -> dict[str, Any]:
    return _timeless(json.loads(path.read_text()))
