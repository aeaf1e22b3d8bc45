"""A run's rows, as they come, in the hands of its loggers; none of them can end the run.

What a logger raises is a warning of one line. A local one is given nothing more. A remote one is called, and ended, by
a thread of its own, so that a machine that answers slowly costs the training nothing, and is tried again with the next
rows; how far it has come is in ``loggers/NAME.json`` of the run, so that a resumed run does not log the same rows
twice, and the resume of a finished one sends what is left (:func:`log_rest`).
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from fedrax.loggers.base import LoggedRun, Logger, Point, Stream, built
from fedrax.plugins import described
from fedrax.records.files import read_json, write_json
from fedrax.records.rows import PLACE, Addition, Row, read_by_seed, read_metrics, seed_of
from fedrax.records.rundir import RunDirectory

FOLDER = "loggers"
MOST_SEEDS = 100
"""Seeds that are logged: each is a file held open, or a run of a service."""
CLOSE_SECONDS = 60.0
"""How long remote loggers may take for what is left, and to end, when the run has ended."""
MOST_WAITING = 100_000
"""Rows that are kept for a remote logger that fails; with more, only a resume tries it again."""

logger = logging.getLogger(__name__)


class LiveLoggers:
    """The loggers of a run; a context manager, and :class:`~fedrax.records.metrics.RowFiles`."""

    def __init__(
        self,
        rundir: RunDirectory,
        settings: Mapping[str, Mapping[str, Any]],
        *,
        name: str,
        seeds: Sequence[int],
        config: Mapping[str, Any],
    ) -> None:
        """Makes the loggers; nothing is opened yet.

        Args:
            rundir: the run.
            settings: ``records.loggers``: options by name.
            name: the run's.
            seeds: those trained, of which the first :data:`MOST_SEEDS` are logged.
            config: the tables of its ``config.toml``.

        Raises:
            FedraxError: a logger that cannot log here, such as one whose package is not installed.
        """
        self.finished = False
        """Whether the run's budget is used; set by whoever trains."""
        shown = list(seeds)[:MOST_SEEDS]
        if settings and len(shown) < len(seeds):
            logger.warning("%s: loggers are given the first %d of %d seeds", rundir.path, len(shown), len(seeds))
        runs = {seed: LoggedRun(name, rundir.path, seed, config, None) for seed in shown}
        made = built(settings)
        for each in made.values():
            each.check()
        self._outlets = [_Outlet(each, runs, _marks_of(rundir, each.name)) for each in made.values()]

    def rewrite(self, rows: Iterable[Row]) -> None:
        """Opens the loggers and gives them the rows that a resumed run has kept."""
        kept = list(rows)
        for outlet in self._outlets:
            outlet.give(kept)

    def append(self, rows: Iterable[Row]) -> None:
        """Gives them the rows of further rounds."""
        new = list(rows)
        for outlet in self._outlets:
            outlet.give(new)

    def amend(self, rows: Sequence[Row], additions: Sequence[Addition]) -> None:
        """Gives them what was added, as further points of the same rounds."""
        self.append(additions)

    def sync(self) -> None:
        """Makes visible what local loggers were given."""
        for outlet in self._outlets:
            outlet.flush()

    def __enter__(self) -> LiveLoggers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for outlet in self._outlets:
            outlet.end(finished=self.finished)
        deadline = time.monotonic() + CLOSE_SECONDS
        for outlet in self._outlets:
            outlet.wait(deadline)


def log_rest(live: LiveLoggers, rundir: RunDirectory) -> None:
    """Gives these loggers of a finished run, those that are :func:`behind`, the rows that they have not had.

    Raises:
        FedraxError: the run's records are damaged.
    """
    with live:
        live.rewrite(read_metrics(rundir.metrics_jsonl))
        live.finished = True


def behind(
    rundir: RunDirectory, settings: Mapping[str, Mapping[str, Any]], seeds: Sequence[int]
) -> dict[str, Mapping[str, Any]]:
    """Those of the loggers' settings whose logger is remote and has not had all rows, or not heard of the end.

    Raises:
        FedraxError: a logger that does not exist, or the run's records are damaged.
    """
    remote = {name: options for name, options in settings.items() if built({name: options})[name].remote}
    last = {seed: rows[-1]["round"] + 1 for seed, rows in read_by_seed(rundir.metrics_jsonl).items()} if remote else {}
    rounds = {seed: last[seed] for seed in list(seeds)[:MOST_SEEDS] if seed in last}
    found = {}
    for name, options in remote.items():
        marks = _marks_in(_marks_of(rundir, name))
        had = {seed: marks.get(str(seed), {}) for seed in rounds}
        if any(had[seed].get("rounds", 0) < rounds[seed] or not had[seed].get("ended") for seed in rounds):
            found[name] = options
    return found


def _marks_of(rundir: RunDirectory, name: str) -> Path:
    return rundir.path / FOLDER / f"{name}.json"


def _marks_in(path: Path) -> dict[str, Any]:
    return read_json(path, "record of what was logged") if path.is_file() else {}


class _Outlet:
    """One logger's streams of all seeds."""

    def __init__(self, target: Logger, runs: Mapping[int, LoggedRun], marks: Path) -> None:
        self._target, self._runs, self._path = target, runs, marks
        self._streams: dict[int, Stream] = {}
        self._done: dict[int, int] = {}
        """How many rounds of each seed it was given."""
        self._marks: dict[str, Any] | None = None
        """What is on the disk of it."""
        self._waiting: list[Row] = []
        self._failed = False
        """It is given nothing more."""
        self._warned = False
        self._queue: queue.SimpleQueue[list[Row] | bool] = queue.SimpleQueue()
        """Rows; at the end, whether the run's budget is used."""
        self._thread: threading.Thread | None = None

    def give(self, rows: list[Row]) -> None:
        """Logs these rows, or lets the thread do so."""
        if not self._target.remote:
            if not self._failed:
                self._failed = not self._tried(partial(self._log, rows), "is given no more rows of")
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True, name=f"logger {self._target.name}")
            self._thread.start()
        self._queue.put(rows)

    def flush(self) -> None:
        """Makes visible what was logged, where that does not wait for others."""
        if not self._target.remote and not self._failed:
            for stream in self._streams.values():
                self._failed |= not self._tried(stream.flush, "is given no more rows of")

    def end(self, *, finished: bool) -> None:
        """Ends it, or lets the thread log what is left and end it."""
        if self._target.remote:
            self._queue.put(finished)
        else:
            self._close(finished=finished)

    def wait(self, deadline: float) -> None:
        """Waits for the thread's end until then, by :func:`time.monotonic`."""
        if self._thread is None:
            return
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._warn(
                f"has not taken all rows of {self._run} within {CLOSE_SECONDS:.0f} s; a resume gives it the rest"
            )

    def _work(self) -> None:
        """The thread: all rows that wait, as one batch."""
        finished: bool | None = None
        while finished is None:
            first = self._queue.get()
            for each in (first, *_drained(self._queue)):
                if isinstance(each, bool):
                    finished = each
                elif not self._failed:
                    self._waiting += each
            if not self._failed and self._tried(
                partial(self._log, self._waiting), "is tried again with the next rows of"
            ):
                self._waiting = []
            elif len(self._waiting) > MOST_WAITING:
                self._failed, self._waiting = True, []
        left = self._failed or bool(self._waiting)
        if left:
            self._warn(f"has not taken all rows of {self._run}; a resume gives it the rest")
        if self._close(finished=finished) and finished and not left:
            self._tried(partial(self._save, ended=True), "has no record of what it was given of")

    def _close(self, *, finished: bool) -> bool:
        """Ends every stream, whatever failed before; whether all have."""
        ended = [self._tried(partial(one.close, finished=finished), "did not end") for one in self._streams.values()]
        return all(ended)

    def _tried(self, act: Callable[[], object], otherwise: str) -> bool:
        """Whether it went well; the first time that it does not, a warning."""
        try:
            act()
        except Exception as error:  # Whatever a service's client raises.
            if not self._warned:
                self._warned = True
                self._warn(f"{otherwise} {self._run}: {described(error)[:400]}")
            return False
        return True

    def _warn(self, text: str) -> None:
        logger.warning("logger %s %s", self._target.name, text)

    @property
    def _run(self) -> Path:
        return self._path.parent.parent

    def _log(self, rows: Sequence[Row]) -> None:
        """What of the rows each seed has not had; of seeds that fail, the first's error is raised at the end."""
        self._open()
        now, fresh, errors = time.time(), False, []
        for seed, stream in self._streams.items():
            mine = [row for row in rows if seed_of(row) == seed]
            new = [row for row in mine if row["round"] >= self._done[seed] or isinstance(row, Addition)]
            if not new:
                continue
            try:
                stream.log([self._point(row, now) for row in new])
                self._done[seed], fresh = new[-1]["round"] + 1, True
            except Exception as error:
                errors.append(error)
        if fresh and self._target.remote:
            self._save()
        if errors:
            raise errors[0]

    def _point(self, row: Row, now: float) -> Point:
        """The row's; of an addition, without where in the run it is, which was logged before."""
        point = self._target.point(row, now)
        if isinstance(row, Addition):
            point = point._replace(values={name: value for name, value in point.values.items() if name not in PLACE})
        return point

    def _open(self) -> None:
        """The streams that are not open yet; each is on the disk before the next, so that none is made twice."""
        if self._marks is None:
            self._marks = _marks_in(self._path) if self._target.remote else {}
        for seed, run in self._runs.items():
            if seed in self._streams:
                continue
            mark = self._marks.get(str(seed), {})
            self._streams[seed] = self._target.open(run._replace(id=mark.get("id")))
            self._done[seed] = int(mark.get("rounds", 0))
            if self._target.remote:
                self._save()

    def _save(self, *, ended: bool = False) -> None:
        marks = {
            str(seed): {"id": stream.id, "rounds": self._done[seed], "ended": ended}
            for seed, stream in self._streams.items()
        }
        self._marks = {**(self._marks or {}), **marks}
        write_json(self._path, self._marks)


def _drained(waiting: queue.SimpleQueue[list[Row] | bool]) -> Iterator[list[Row] | bool]:
    while True:
        try:
            yield waiting.get_nowait()
        except queue.Empty:
            return
