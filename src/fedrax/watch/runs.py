"""What is watched: a run, or the runs in a folder, as numbers that grow while they train."""

from __future__ import annotations

import contextlib
import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedrax.errors import FedraxError
from fedrax.evaluation.measure import apart, said
from fedrax.migration import present_keys
from fedrax.records import lock
from fedrax.records.exchanges import Exchanges
from fedrax.records.files import read_json
from fedrax.records.refusals import REFUSALS, read_refusals
from fedrax.records.rows import Row, seed_of
from fedrax.records.rundir import SWEEP, RunDirectory
from fedrax.records.sites import site_names
from fedrax.records.standing import Progress, Standing
from fedrax.report.palette import PALETTE
from fedrax.report.runs import measured

AXES = ("rounds", "total_steps", "trajectories", "seconds")
"""What the page may draw against, rounds up to and with a row's; all else that is one number may be drawn."""
MOST_POINTS = 20_000
"""In one answer; the page asks for the rest at once."""
OPEN_STATES = ("waiting", "failed")
"""Of a sweep's jobs without a process, which say more than that nothing trains."""


class Columns:
    """Rows of many series, a column for each name; numbers only."""

    def __init__(self) -> None:
        self.series = array("l")
        self._columns: dict[str, array[float]] = {}

    def add(self, series: int, row: Row) -> None:
        """Appends a row of a series."""
        count = len(self.series)
        self.series.append(series)
        for name, value in {**row, "rounds": row["round"] + 1}.items():
            if isinstance(value, (int, float)) and math.isfinite(value) and name not in ("seed", "round"):
                if name not in self._columns:
                    self._columns[name] = array("d", [math.nan]) * count
                self._columns[name].append(value)
        for column in self._columns.values():
            if len(column) == count:
                column.append(math.nan)

    @property
    def names(self) -> list[str]:
        """What may be drawn."""
        return [name for name in self._columns if name not in AXES]

    def rows(self, start: int, names: Sequence[str]) -> list[list[float | int | None]]:
        """From row ``start`` on, at most :data:`MOST_POINTS`: the series, the axes, and these names; None where a row
        has no such number."""
        columns = [self._columns.get(name) for name in (*AXES, *names)]
        end = min(len(self.series), start + MOST_POINTS)
        return [
            [
                self.series[index],
                *(None if c is None or math.isnan(c[index]) else _short(c[index]) for c in columns),
            ]
            for index in range(start, end)
        ]


class Watched:
    """The runs at a path, and their rows so far."""

    def __init__(self, path: Path) -> None:
        """Looks what is there.

        Raises:
            FedraxError: neither a run nor a folder with runs in it.
        """
        self.path = path
        self.single = RunDirectory(path).is_run()
        self._runs: dict[Path, Progress] = {}
        self.damaged: dict[Path, str] = {}
        """Why runs of a folder cannot be shown."""
        self._outdated = False
        self._measures: dict[Path, dict[str, str]] = {}
        self._numbers: dict[tuple[Path, int], int] = {}
        """The series of every run's seeds."""
        self._fed: set[Path] = set()
        """Runs of which rows were taken in."""
        self.columns = Columns()
        self.epoch = 0
        """Changes when rows that were handed out hold no longer, as a run was resumed."""
        if not self._found():
            # Says what is there instead.
            RunDirectory.open(path) if not path.is_dir() else None
            raise FedraxError(f"{path} holds no run, and no folder with runs; give what training or a sweep wrote")
        self.exchanges = Exchanges(path) if self.single else None

    def refresh(self) -> None:
        """Takes in what was written since.

        Raises:
            FedraxError: the run that is watched has no configuration that can be read.
        """
        self._runs = self._opened(self._found(), self._runs)
        news = {path: run.read() for path, run in self._runs.items()}
        self._outdated |= any(anew and path in self._fed for path, (_, anew) in news.items())
        if self._outdated:
            self._start_anew()
            return
        for path, (rows, _) in news.items():
            self._take(path, rows)
        if self.exchanges is not None:
            self.exchanges.read()

    def _opened(self, paths: Iterable[Path], known: Mapping[Path, Progress]) -> dict[Path, Progress]:
        """The runs at these paths, those that are known and others; of many runs, one may be damaged."""
        found, damaged = dict(known), {}
        for path in paths:
            if path not in found:
                try:
                    found[path] = Progress(RunDirectory(path))
                except FedraxError as error:
                    if self.single:
                        raise
                    damaged[path] = str(error)
        self.damaged = damaged
        return found

    @property
    def sweeping(self) -> bool:
        """Whether a sweep is at work in the folder, also between two of its jobs."""
        return not self.single and lock.is_held(self.path)

    def data(self, epoch: int, start: int, names: Sequence[str]) -> dict[str, Any]:
        """What the page shows: where all runs are, and rows from ``start`` on if ``epoch`` is still the present one."""
        if epoch != self.epoch or not 0 <= start <= len(self.columns.series):
            start = 0
        known = set(self.columns.names)
        asked = [name for name in names if name in known]
        rows = self.columns.rows(start, asked)
        series, parts = self._series()
        return {
            "epoch": self.epoch,
            "next": start + len(rows),
            "total": len(self.columns.series),
            "from": start,
            "colours": PALETTE,
            "title": str(self._title()),
            "path": str(self.path),
            "names": self.columns.names,
            "columns": ["series", *AXES, *asked],
            "rows": rows,
            "series": series,
            "parts": parts,
            "damaged": list(self.damaged.values()),
            "attendance": self._attendance(),
            "refused": [refusal.line for refusal in read_refusals(self.path / REFUSALS).values()],
        }

    def _title(self) -> str:
        run = self._runs.get(self.path)
        return str(run.config.get("name", self.path.name)) if run is not None else self.path.resolve().name

    def _found(self) -> list[Path]:
        """The directories of all runs; of a folder, those in it and in the folders of it."""
        if self.single:
            return [self.path]
        inner = [*self.path.glob("*/config.toml"), *self.path.glob("*/*/config.toml")]
        return sorted(path.parent for path in inner)

    def _start_anew(self) -> None:
        """All rows again: they are read as fast as they were sent."""
        runs = self._opened(self._runs, {})
        rows = {path: run.read()[0] for path, run in runs.items()}
        # From here on nothing fails.
        self.epoch += 1
        self.columns, self._numbers, self._fed = Columns(), {}, set()
        self._runs, self._measures, self._outdated = runs, {}, False
        for path, each in rows.items():
            self._take(path, each)

    def _take(self, path: Path, rows: Iterable[Row]) -> None:
        for row in rows:
            self._fed.add(path)
            self.columns.add(self._number(path, seed_of(row)), row)

    def _number(self, path: Path, seed: int) -> int:
        return self._numbers.setdefault((path, seed), len(self._numbers))

    def _series(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Every seed of every run, in the order of their numbers, with where it is and which part it is of.

        The parts are runs that were evaluated alike, whose returns may share an axis, each with the settings that tell
        it from the others.
        """
        for path in self._runs.keys() - self._measures.keys():
            self._measures[path] = _measure(self._runs[path].config, path)
        parts = apart((path, self._measures[path]) for path in self._runs)
        # A run that begins writes its manifest after its configuration.
        self._measures = {path: its for path, its in self._measures.items() if RunDirectory(path).manifest.is_file()}
        part = {path: place for place, (_, members) in enumerate(parts) for path in members}
        jobs = self._jobs()
        for path, run in self._runs.items():
            for seed in run.standings():
                self._number(path, seed)
        standings = {path: run.standings() for path, run in self._runs.items()}
        found = []
        for path, seed in self._numbers:
            standing = standings[path].get(seed, Standing("stopped"))
            if standing.state == "stopped" and (state := jobs.get(path.resolve())) in OPEN_STATES:
                standing = standing._replace(state=state)
            found.append(
                {
                    "group": f"seed {seed}" if self.single else self._group(path),
                    "seed": seed,
                    "part": part[path],
                    **standing._asdict(),
                    "left": standing.left,
                }
            )
        return found, [said(telling) for telling, _ in parts]

    def _group(self, path: Path) -> str:
        """What a run in the folder is a repetition of: of ``SETUP/seed-0``, the setup."""
        parts = path.relative_to(self.path).parts
        return parts[0]

    def _jobs(self) -> dict[Path, str]:
        """What a sweep says of its runs."""
        if self.single or not (self.path / SWEEP).is_file():
            return {}
        try:
            jobs = read_json(self.path / SWEEP, "record of the sweep").get("jobs", [])
            return {Path(job["run"]).resolve(): str(job["state"]) for job in jobs}
        except (FedraxError, LookupError, TypeError, ValueError):
            return {}

    def _attendance(self) -> list[dict[str, Any]]:
        """Of a federation, every agent's last exchange, and how often it answered."""
        if self.exchanges is None:
            return []
        sites, totals, over = site_names(self.path), self.exchanges.totals, RunDirectory(self.path).summary.exists()
        return [
            {
                **row,
                **totals[agent],
                "reason": self.exchanges.why(agent, over=over),
                "missed": self.exchanges.missed(agent),
                "site": sites.get(agent, ""),
            }
            for agent, row in sorted(self.exchanges.last.items())
        ]


def _measure(config: Mapping[str, Any], path: Path) -> dict[str, str]:
    manifest: Mapping[str, Any] = {}
    with contextlib.suppress(FedraxError):  # Not written yet, or damaged.
        manifest = read_json(RunDirectory(path).manifest, "manifest")
    try:
        return measured(present_keys(dict(config)), manifest)
    except (FedraxError, AttributeError, TypeError) as error:
        # A configuration that somebody has broken: what it measures cannot be told, and is no other's.
        return {"configuration": str(error)}


def _short(value: float) -> float | int:
    """A whole number as one, others to six digits: what a screen can show."""
    return int(value) if value.is_integer() and abs(value) < 1e15 else float(f"{value:.6g}")
