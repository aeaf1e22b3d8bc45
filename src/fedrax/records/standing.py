"""How far a run is, by its files alone: nothing is imported that computes."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fedrax.errors import FedraxError
from fedrax.parsing import parsed_toml, text_of
from fedrax.records import lock
from fedrax.records.files import read_json
from fedrax.records.rows import Row, parsed_rows, seed_of
from fedrax.records.rundir import RunDirectory
from fedrax.records.summary import final_returns, rounds_done

STATES = ("training", "waiting", "stopped", "failed", "finished")
"""What can be said of a run; a stopped one is resumed by its user."""
BEFORE = 200
"""Bytes before the next row, by which it is known that the file is the same."""


def fraction_done(row: Mapping[str, Any], budget: Mapping[str, Any], agents: int) -> float:
    """How much of a budget is used after a row, 0 to 1, by whichever limit is nearest."""
    used = {
        "rounds": row.get("round", -1) + 1,
        "trajectories": row.get("trajectories"),
        "steps": row.get("total_steps"),
        "steps_per_agent": (row.get("agent_steps") or 0) / agents,
    }
    limits = {key: limit for key, limit in budget.items() if isinstance(limit, (int, float)) and limit > 0}
    return min(1.0, max(((used.get(key) or 0) / limit for key, limit in limits.items()), default=0.0))


class RowTail:
    """The rows of a ``metrics.jsonl`` that is being written, each once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._place, self._file, self._before = 0, (0, 0), b""

    def read(self) -> tuple[list[Row], bool]:
        """Whole rows that came since the last call, and whether they replace all earlier ones: a run that is resumed,
        or ends, writes the file anew. Damaged lines are left out."""
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                file.seek(self._place - len(self._before))
                # Another file may have the number of the first, which is gone.
                same = (status.st_dev, status.st_ino) == self._file and file.read(len(self._before)) == self._before
                if not same:
                    self._place, self._file, self._before = 0, (status.st_dev, status.st_ino), b""
                file.seek(self._place)
                data = file.read()
        except OSError:
            return [], False
        whole = data[: data.rfind(b"\n") + 1]
        self._place += len(whole)
        self._before = (self._before + whole[-BEFORE:])[-BEFORE:]
        return parsed_rows(whole), not same


class Standing(NamedTuple):
    """Where a run, or one of its seeds, is."""

    state: str
    """One of :data:`STATES`."""
    fraction: float = 0.0
    """Of the budget, 0 to 1."""
    rounds: int = 0
    last_return: float | None = None
    """Of a finished run, the one it ended with, as its summary and reports have it."""
    best_return: float | None = None
    steps: int = 0
    seconds: float = 0.0
    """Training, without compiling."""
    first: tuple[float, float] = (0.0, 0.0)
    """Share of the budget, and seconds, after which time is counted."""

    @property
    def left(self) -> float | None:
        """Seconds, if the rest goes on as fast as what was done; None where nothing is trained, or was yet."""
        gained, elapsed = self.fraction - self.first[0], self.seconds - self.first[1]
        if self.state != "training" or gained <= 0 or elapsed <= 0:
            return None
        return elapsed * (1 - self.fraction) / gained


class Progress:
    """Follows the rows of one run, seed by seed."""

    def __init__(self, directory: RunDirectory) -> None:
        """Reads what the run is.

        Raises:
            FedraxError: its ``config.toml`` cannot be read.
        """
        self.directory = directory
        self.config = configuration(directory)
        self.tail = RowTail(directory.metrics_jsonl)
        self._seeds: dict[int, Standing] = {}
        self._read: tuple[int, int] = (0, 0)
        """Which summary was read."""
        self._summary: dict[str, Any] = {}

    @property
    def agents(self) -> int:
        """Of the federation; 1 where its configuration does not say."""
        agents = _table(self.config, "federation").get("agents")
        return agents if isinstance(agents, int) and agents > 0 else 1

    @property
    def on_nodes(self) -> bool:
        """Whether the first round's seconds hold what nodes of a federation compiled."""
        return _table(self.config, "runtime").get("kind") == "flower"

    def read(self) -> tuple[list[Row], bool]:
        """Takes in the rows that came since, and returns them as :meth:`RowTail.read`."""
        rows, anew = self.tail.read()
        if anew:
            self._seeds = {}
        for row in rows:
            seed, seconds = seed_of(row), row.get("seconds") or 0.0
            fraction = fraction_done(row, _table(self.config, "budget"), self.agents)
            before = self._seeds.get(seed, Standing("training", first=(fraction, seconds) if self.on_nodes else (0, 0)))
            known = _number(row.get("return"))
            best = [value for value in (before.best_return, known) if value is not None]
            self._seeds[seed] = before._replace(
                fraction=fraction,
                rounds=row["round"] + 1,
                last_return=before.last_return if known is None else known,
                best_return=max(best, default=None),
                steps=row.get("total_steps") or 0,
                seconds=seconds,
            )
        return rows, anew

    def state(self) -> str:
        """What the run is doing now."""
        if self.directory.summary.exists():
            return "finished"
        path = self.directory.path
        return "training" if lock.is_held(path) or lock.is_held(path, lock.SERVER_LOCK) else "stopped"

    def standings(self) -> dict[int, Standing]:
        """Every seed's; before the first row, of those that the configuration names."""
        state = self.state()
        first, count = self.config.get("seed", 0), self.config.get("seeds", 1)
        known = range(first, first + count) if isinstance(first, int) and isinstance(count, int) else range(1)
        seeds = self._seeds or {seed: Standing(state) for seed in known}
        # A run may end short of its budget's last round or step, and is evaluated after it.
        totals = self._totals() if state == "finished" else {}
        ends, done = _finite_ends(totals), rounds_done(totals)
        return {
            seed: _ended(
                one._replace(
                    state=state,
                    fraction=1.0 if state == "finished" else one.fraction,
                    rounds=done.get(seed, one.rounds),
                ),
                ends.get(seed),
            )
            for seed, one in sorted(seeds.items())
        }

    def _totals(self) -> dict[str, Any]:
        """The summary, which is read when it is another one; empty where there is none, or it is damaged."""
        try:
            status = self.directory.summary.stat()
        except OSError:
            return {}
        version = (status.st_mtime_ns, status.st_size)
        if version != self._read:
            self._read, self._summary = version, _recorded(self.directory)
        return self._summary


def recorded_ends(directory: RunDirectory) -> dict[int, float]:
    """By seed, the finite returns that a finished run ended with; none where its summary is not there, or damaged."""
    return _finite_ends(_recorded(directory))


def _finite_ends(summary: Mapping[str, Any]) -> dict[int, float]:
    """By seed, the finite returns that a run ended with."""
    return {seed: final for seed, final in final_returns(summary).items() if math.isfinite(final)}


def _recorded(directory: RunDirectory) -> dict[str, Any]:
    """The summary; empty where it is not there, or damaged."""
    try:
        return read_json(directory.summary, "summary") if directory.summary.is_file() else {}
    except FedraxError:
        return {}


def _ended(standing: Standing, final: float | None) -> Standing:
    if final is None:
        return standing
    best = final if standing.best_return is None else max(standing.best_return, final)
    return standing._replace(last_return=final, best_return=best)


def configuration(directory: RunDirectory) -> dict[str, Any]:
    """The tables of a run's ``config.toml``, as they are written.

    Raises:
        FedraxError: they cannot be read.
    """
    try:
        return parsed_toml(text_of(directory.config))
    except (OSError, ValueError) as error:
        raise FedraxError(f"{directory.config} cannot be read: {' '.join(str(error).split())}") from None


def _table(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = config.get(name)
    return table if isinstance(table, Mapping) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
