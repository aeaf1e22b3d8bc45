"""``sweep.json``: where every job of a sweep stands, from its start on and after every change."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import pydantic

from fedrax.errors import FedraxError
from fedrax.records.encoding import decoded
from fedrax.records.files import misfit, write_json
from fedrax.records.rundir import SWEEP
from fedrax.sweeps.names import damaged
from fedrax.sweeps.plan import Job, Plan

PAUSE = 10.0
"""How many times as long as the last writing took until the next one: that of many thousand jobs takes a second."""


class Recorded(Protocol):
    """A job, and where it stands."""

    @property
    def job(self) -> Job:
        """Which."""

    def record(self) -> dict[str, Any]:
        """Its entry in the file."""


class Record:
    """The file while a plan runs; what other plans ran in the folder, as the stages of a search do, is kept in it."""

    def __init__(self, plan: Plan, tasks: Sequence[Recorded]) -> None:
        """Reads what is there. A record that is damaged is kept beside the new one (:func:`.damaged`)."""
        self._path, self._file, self._tasks = plan.out / SWEEP, str(plan.file), tasks
        earlier, wrong = recorded(plan.out)
        if wrong:
            with contextlib.suppress(OSError):  # It can be done without.
                os.replace(self._path, damaged(plan.out))
        self._earlier = {key: entry for key, entry in earlier.items() if Path(entry.get("log", "")).is_file()}
        self._stale, self._next = False, 0.0

    def write(self) -> None:
        """Writes it.

        Raises:
            FedraxError: it cannot be written, in one line.
        """
        began = time.monotonic()
        now = {(task.job.setup.name, task.job.seeds): task.record() for task in self._tasks}
        write_json(self._path, {"file": self._file, "jobs": [*{**self._earlier, **now}.values()]})
        ended = time.monotonic()
        self._stale, self._next = False, ended + PAUSE * (ended - began)

    def changed(self) -> None:
        """Has it written anew by :meth:`keep_up`."""
        self._stale = True

    def keep_up(self) -> None:
        """Writes what has changed, once it is time to.

        Where that fails, as on a full disk, the jobs go on: it is tried again, and at the end it is told.
        """
        if self._stale and time.monotonic() >= self._next:
            with contextlib.suppress(FedraxError):
                self.write()


def damage(out: Path) -> str:
    """A line that says what is wrong with ``sweep.json``, and what follows; empty where nothing is."""
    _, wrong = recorded(out)
    return wrong and (
        f"{out / SWEEP} is damaged ({wrong}): the runs themselves say what is done, and only attempts and seconds "
        f"before this start are not counted; it is written anew, and what is there now kept as {damaged(out).name}"
    )


class _Entry(pydantic.BaseModel):
    """What of an entry of ``sweep.json`` is read; a record of an earlier version has one seed for every run."""

    setup: str
    seed: int
    seeds: list[int] = pydantic.Field(default=[], min_length=1)
    attempts: int = pydantic.Field(default=0, ge=0)
    seconds: float = pydantic.Field(default=0.0, ge=0, allow_inf_nan=False)
    log: str = ""


def recorded(out: Path) -> tuple[dict[tuple[str, tuple[int, ...]], dict[str, Any]], str]:
    """The entries of ``sweep.json`` by setup and seeds, and what is wrong with the first that are none, if any are."""
    record = out / SWEEP
    if not record.is_file():
        return {}, ""
    try:
        content = decoded(record.read_bytes())
    except ValueError:
        return {}, "it is not JSON"
    jobs = content.get("jobs") if isinstance(content, dict) else None
    if not isinstance(jobs, list):
        return {}, "it has no list of jobs"
    entries, wrong = {}, ""
    for place, entry in enumerate(jobs):
        fault = misfit(entry, _Entry)
        if fault is None:
            entries[(entry["setup"], tuple(entry.get("seeds", [entry["seed"]])))] = entry
        else:
            wrong = wrong or f"job {place + 1}: {fault}"
    return entries, wrong
