"""A run's rows, as they come, in the hands of its loggers; none of them can end the run.

What a logger raises is a warning of one line, and it is given nothing more. A remote one is called by a thread of its
own, so that a machine that answers slowly costs the training nothing; how far it has come is in ``loggers/NAME.json``
of the run, so that a resumed run does not log the same rows twice.
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

from fedrax.loggers.base import LoggedRun, Logger, Stream, built
from fedrax.plugins import described
from fedrax.records.files import read_json, write_json
from fedrax.records.rows import Row, seed_of
from fedrax.records.rundir import RunDirectory

FOLDER = "loggers"
MOST_SEEDS = 100
"""Seeds that are logged: each is a file held open, or a run of a service."""
CLOSE_SECONDS = 60.0
"""How long a remote logger may take for what is left when the run has ended."""

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
        self._outlets = [_Outlet(each, runs, rundir.path / FOLDER / f"{each.name}.json") for each in made.values()]

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
            outlet.close(finished=self.finished)


class _Outlet:
    """One logger's streams of all seeds."""

    def __init__(self, target: Logger, runs: Mapping[int, LoggedRun], marks: Path) -> None:
        self._target, self._runs, self._marks = target, runs, marks
        self._streams: dict[int, Stream] = {}
        self._done: dict[int, int] = {}
        """How many rounds of each seed it was given."""
        self._failed = self._opened = False
        self._queue: queue.SimpleQueue[list[Row] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def give(self, rows: list[Row]) -> None:
        """Logs these rows, or lets the thread do so."""
        if not self._target.remote:
            self._guarded(partial(self._log, rows))
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True, name=f"logger {self._target.name}")
            self._thread.start()
        self._queue.put(rows)

    def flush(self) -> None:
        """Makes visible what was logged, where that does not wait for others."""
        if not self._target.remote:
            for stream in self._streams.values():
                self._guarded(stream.flush)

    def close(self, *, finished: bool) -> None:
        """Logs what is left and ends."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(CLOSE_SECONDS)
            if self._thread.is_alive():
                logger.warning(
                    "logger %s has not taken all rows of %s within %.0f s; a resume gives it the rest",
                    *(self._target.name, self._marks.parent.parent, CLOSE_SECONDS),
                )
                return
        for stream in self._streams.values():
            self._guarded(partial(stream.close, finished=finished))

    def _work(self) -> None:
        """The thread: all rows that wait, as one batch."""
        ended = False
        while not ended:
            batch = self._queue.get()
            waiting = [batch, *_drained(self._queue)]
            ended = None in waiting
            rows = [row for each in waiting if each is not None for row in each]
            self._guarded(partial(self._log, rows))

    def _guarded(self, act: Callable[[], object]) -> None:
        if self._failed:
            return
        try:
            act()
        except Exception as error:  # Whatever a service's client raises.
            self._failed = True
            logger.warning(
                "logger %s is given no more rows of %s: %s",
                *(self._target.name, self._marks.parent.parent, described(error)[:400]),
            )

    def _log(self, rows: Sequence[Row]) -> None:
        if not self._opened:
            self._open()
            self._opened = True
        now, fresh = time.time(), False
        for seed, stream in self._streams.items():
            new = [row for row in rows if seed_of(row) == seed and row["round"] >= self._done[seed]]
            if new:
                stream.log([self._target.point(row, now) for row in new])
                self._done[seed], fresh = new[-1]["round"] + 1, True
        if fresh and self._target.remote:
            self._save()

    def _open(self) -> None:
        known = read_json(self._marks, "record of what was logged") if self._marks.is_file() else {}
        for seed, run in self._runs.items():
            mark = known.get(str(seed), {}) if self._target.remote else {}
            self._streams[seed] = self._target.open(run._replace(id=mark.get("id")))
            self._done[seed] = int(mark.get("rounds", 0))
        if self._target.remote:
            self._save()

    def _save(self) -> None:
        marks = {str(seed): {"id": self._streams[seed].id, "rounds": self._done[seed]} for seed in self._streams}
        write_json(self._marks, marks)


def _drained(waiting: queue.SimpleQueue[list[Row] | None]) -> Iterator[list[Row] | None]:
    while True:
        try:
            yield waiting.get_nowait()
        except queue.Empty:
            return
