"""Where each job of a sweep stands: on the disk before it starts, and while it runs."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from fedrax.config import Config, resolve
from fedrax.errors import FedraxError
from fedrax.records.files import read_json
from fedrax.records.rows import read_tail, seed_of
from fedrax.records.rundir import RunDirectory
from fedrax.records.standing import Standing, fraction_done, recorded_ends
from fedrax.runtime.continuation import differences
from fedrax.sweeps.plan import Job, Plan
from fedrax.sweeps.record import recorded

State = Literal["waiting", "running", "done", "failed", "interrupted"]

TAIL_BYTES = 1 << 16
"""As much of a run's records as is read for its progress: some hundred rows."""


@dataclasses.dataclass
class Task:
    """A job, and what became of it so far."""

    job: Job
    state: State = "waiting"
    attempts: int = 0
    """Over all starts of the sweep, as are ``seconds``."""
    seconds: float = 0.0
    exit_code: int | None = None
    """Of the last attempt; negative, the signal that ended it."""
    reason: str = ""
    """The last line that a failed attempt left in its log."""
    called: str | None = None
    """What its run is called, where it was begun under another name than the file's now."""
    progress: Standing = dataclasses.field(default_factory=lambda: Standing("waiting"))

    @property
    def finished(self) -> bool:
        """Whether the run reached its end, and not that of an earlier stage: it writes its summary last.

        A run that failed at the end of its budget has a summary too, which says so.
        """
        directory = RunDirectory(self.job.directory)
        if not directory.summary.is_file() or "failed" in read_json(directory.summary, "summary"):
            return False
        return not self.job.grown or _there(self.job).budget == self.job.config.budget

    @property
    def started(self) -> bool:
        """Whether there is something to resume."""
        return RunDirectory(self.job.directory).is_run()

    def read_progress(self) -> None:
        """Brings ``progress`` up to date."""
        self.progress = read_progress(RunDirectory(self.job.directory).metrics_jsonl, self.job.config)

    def record(self) -> dict[str, Any]:
        """Its entry in ``sweep.json``."""
        return {
            "setup": self.job.setup.name,
            "seed": self.job.seeds[0],
            "seeds": list(self.job.seeds),
            "state": self.state,
            "attempts": self.attempts,
            "seconds": self.seconds,
            "exit_code": self.exit_code,
            "reason": self.reason,
            "run": str(self.job.directory),
            "log": str(self.job.log),
        }


def tasks_of(plan: Plan) -> list[Task]:
    """The jobs as earlier starts of the sweep left them: done, or waiting to be trained or resumed.

    Raises:
        FedraxError: a run lies there that was configured otherwise.
    """
    earlier, _ = recorded(plan.out)
    tasks = []
    for job in plan.jobs:
        entry = earlier.get((job.setup.name, job.seeds), {})
        task = Task(job, attempts=entry.get("attempts", 0), seconds=entry.get("seconds", 0.0))
        if task.started:
            task.called = _unchanged(job)
            task.read_progress()
            if task.finished:
                task.state, task.exit_code = "done", 0
        tasks.append(task)
    return tasks


def unapplied(tasks: Sequence[Task]) -> str:
    """A line on settings of the file that runs which were begun do not follow; empty where there are none."""
    kept = [task for task in tasks if task.called is not None]
    others = f" and {len(kept) - 1} others" if len(kept) > 1 else ""
    return (
        ""
        if not kept
        else (
            f"name = {kept[0].job.config.name!r} is not applied to what was begun under another one: "
            f"{kept[0].job.name}{others} stay as they are ({kept[0].called!r})"
        )
    )


def read_progress(path: Path, config: Config) -> Standing:
    """What the tail of a ``metrics.jsonl`` says of a run, of its seeds together; nothing yet, the beginning.

    The return of a finished run is the one it ended with, of which no row may tell.
    """
    rows = read_tail(path, TAIL_BYTES)
    if not rows:
        return Standing("waiting")
    # A seed whose budget ended rounds ago is not in the tail any more.
    last = {row.get("seed"): row for row in rows}.values()
    returns = {seed_of(row): row["return"] for row in rows if row.get("return") is not None}
    returns |= recorded_ends(RunDirectory(path.parent))
    budget, agents = config.budget.model_dump(), config.federation.agents
    return Standing(
        "training",
        fraction=min(fraction_done(row, budget, agents) for row in last),
        rounds=max(row["round"] + 1 for row in last),
        last_return=statistics.fmean(returns.values()) if returns else None,
        steps=sum(row.get("total_steps") or 0 for row in last),
        seconds=max(row.get("seconds") or 0.0 for row in last),
    )


def _there(job: Job) -> Config:
    try:
        return resolve(RunDirectory(job.directory).config, plugins=job.config.plugins)
    except FedraxError as error:
        raise FedraxError(f"{job.name}: {error}; move {job.directory} away") from None


def _unchanged(job: Job) -> str | None:
    """The name that the run there was begun with, where it has another one now, which does not change an experiment.

    Raises:
        FedraxError: the run is not the one that would be trained there now.
    """
    grown = {text.partition("=")[0] for text in job.grown}
    changed = differences(_there(job), job.config)
    for key, (before, now) in changed.items():
        if key != "name" and key not in grown:
            raise FedraxError(
                f"{job.name} was started with {key} = {before!r} and would now run with {now!r}; move {job.directory} "
                "away, or give the sweep another out"
            )
    return changed["name"][0] if "name" in changed else None
