"""What a sweep shows: a live table on a terminal, a line per event anywhere else."""

from __future__ import annotations

import contextlib
import itertools
import shlex
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TextIO

import rich.console
import rich.live
import rich.table
import rich.text

from fedrax.records.progress import clock_time, short
from fedrax.sweeps.plan import Plan
from fedrax.sweeps.record import damage
from fedrax.sweeps.tasks import Task, unapplied

UPDATE_SECONDS = 1.0
PLAIN_COLUMNS = 200


class Board:
    """Shows where the tasks of a sweep stand; a context manager."""

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        stream: TextIO | None = None,
        terminal: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepares the display.

        Args:
            tasks: all of the sweep, done ones included.
            stream: where to; standard output unless set.
            terminal: whether to draw a moving table; unset, whether ``stream`` is a terminal.
            clock: seconds, from any origin.
        """
        self._tasks, self._clock = tasks, clock
        self._stream = sys.stdout if stream is None else stream
        self._begun = clock()
        self._fractions = {id(task): _fraction(task) for task in tasks}
        self._updated = self._begun
        self._live: rich.live.Live | None = None
        if self._stream.isatty() if terminal is None else terminal:
            console = rich.console.Console(file=self._stream, force_terminal=True)
            self._live = rich.live.Live(self._table(), console=console, auto_refresh=False)

    def update(self) -> None:
        """Reads how far the running tasks are, now and then, and shows it."""
        now = self._clock()
        if self._live is None or now - self._updated < UPDATE_SECONDS:
            return
        self._updated = now
        self._read()
        self._live.update(self._table(), refresh=True)

    def started(self, task: Task) -> None:
        """A task's process was started."""
        again = f" (attempt {task.attempts})" if task.attempts > 1 else ""
        self._event(f"{task.job.name}: started{again}")

    def ended(self, task: Task, seconds: float) -> None:
        """A task's process ended after so many seconds."""
        if task.state == "done":
            task.read_progress()
            value = task.progress.last_return
            result = "" if value is None else f", return {value:.4g}"
            self._read()
            done = sum(one.state == "done" for one in self._tasks)
            self._event(
                f"{task.job.name}: done in {clock_time(seconds)}{result}  [{done}/{len(self._tasks)}{self._left()}]"
            )
        elif task.state == "interrupted":
            self._event(f"{task.job.name}: interrupted")
        else:
            then = "; trying again" if task.state == "waiting" else ""
            self.note(f"{task.job.name}: failed, {failure(task)}{then}")

    def note(self, text: str) -> None:
        """Prints a line that stays, without disturbing the table."""
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
            return
        with contextlib.suppress(BrokenPipeError):  # Runs go on when nobody reads the lines any more.
            print(text, file=self._stream, flush=True)

    def _event(self, text: str) -> None:
        """A line where there is no table to show the same."""
        if self._live is None:
            self.note(text)

    def __enter__(self) -> Board:
        if self._live is not None:
            self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
            self._live.stop()

    def _read(self) -> None:
        for task in self._tasks:
            if task.state == "running":
                task.read_progress()

    def _left(self) -> str:
        """The time left if the rest goes on as fast as what this start of the sweep did so far."""
        open_tasks = [task for task in self._tasks if task.state in ("waiting", "running")]
        gained = sum(_fraction(task) - self._fractions[id(task)] for task in self._tasks)
        if not open_tasks or gained <= 0:
            return ""
        missing = sum(1 - task.progress.fraction for task in open_tasks)
        return f", left {clock_time((self._clock() - self._begun) * missing / gained)}"

    def _table(self) -> rich.table.Table:
        table = rich.table.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), caption_justify="left")
        done = sum(task.state == "done" for task in self._tasks)
        table.caption = f"{done}/{len(self._tasks)} done, {clock_time(self._clock() - self._begun)}{self._left()}"
        table.add_column("setup", overflow="fold")
        for heading in ("done", "running", "failed", "waiting"):
            table.add_column(heading, justify="right")
        table.add_column("seed: progress", overflow="fold")
        for heading in ("return", "steps/s"):
            table.add_column(heading, justify="right")
        groups: dict[str, list[Task]] = {}
        for task in self._tasks:
            groups.setdefault(task.job.setup.name, []).append(task)
        # A terminal cuts a long table off at its end, so what moves comes first.
        for name, tasks in sorted(groups.items(), key=lambda group: not any(t.state == "running" for t in group[1])):
            table.add_row(rich.text.Text(name), *_cells(tasks))
        return table


def failure(task: Task) -> str:
    """Why the last attempt failed, and where to read more."""
    code = task.exit_code
    how = f"exit status {code}"
    if code is not None and code < 0:
        # The kernel kills so whoever takes too much memory.
        often = " (often: out of memory)" * (code == -signal.SIGKILL)
        how = f"killed by signal {-code}{often}"
    return f"{how}: {task.reason or 'no output'} ({task.job.log})"


def _fraction(task: Task) -> float:
    # A run may end short of its budget's last round or step.
    return 1.0 if task.state == "done" else task.progress.fraction


def _range(seeds: Sequence[int]) -> str:
    return "-".join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))


def _cells(tasks: Sequence[Task]) -> list[str]:
    def count(*states: str) -> str:
        return str(sum(task.state in states for task in tasks) or "")

    running = [task for task in tasks if task.state == "running"]
    returns = [task.progress.last_return for task in tasks if task.progress.last_return is not None]
    speed = sum(task.progress.steps / task.progress.seconds for task in running if task.progress.seconds > 0)
    return [
        count("done"),
        count("running"),
        count("failed"),
        count("waiting", "interrupted"),
        "  ".join(f"{_range(task.job.seeds)}: {task.progress.fraction:.0%}" for task in running),
        f"{statistics.fmean(returns):.4g}" if returns else "",
        short(speed) if speed else "",
    ]


def show_plan(plan: Plan, tasks: Sequence[Task], stream: TextIO | None = None) -> None:
    """Prints what a sweep would do."""
    stream = sys.stdout if stream is None else stream
    # Where nothing is as wide as a window, overrides are not broken to fit one.
    width = None if stream.isatty() else PLAIN_COLUMNS
    console = rich.console.Console(file=stream, width=width, highlight=False, markup=False)
    for note in filter(None, (*plan.notes, unapplied(tasks), damage(plan.out))):
        console.print(note, soft_wrap=True)
    # Only what comes first in all of them: a later layer wins over it in each.
    listed = [setup.overrides for setup in plan.setups]
    together = itertools.takewhile(lambda texts: len(set(texts)) == 1, zip(*listed, strict=False))
    shared = len(list(together)) if len(listed) > 1 else 0
    if shared:
        console.print(f"all setups: {shlex.join(listed[0][:shared])}", soft_wrap=True)
    table = rich.table.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("setup", "preset", "overrides"):
        table.add_column(heading, overflow="fold")
    for heading in ("done", "to resume", "to train"):
        table.add_column(heading, justify="right")
    for setup in plan.setups:
        mine = [task for task in tasks if task.job.setup == setup]
        done = sum(task.state == "done" for task in mine)
        resumed = sum(task.started and task.state != "done" for task in mine)
        counts = (done, resumed, len(mine) - done - resumed)
        cells = (setup.name, setup.preset or "", "\n".join(setup.overrides[shared:]))
        table.add_row(*map(rich.text.Text, cells), *(str(count or "") for count in counts))
    console.print(table)
    seeds = sorted({seed for task in tasks for seed in task.job.seeds})
    console.print(
        f"{len(plan.setups)} setups, seeds {', '.join(map(str, seeds))}: {len(tasks)} runs in {plan.out}, "
        f"{plan.at_once} at once on {plan.cores_per_job} core{'s' * (plan.cores_per_job > 1)} each",
        soft_wrap=True,
    )
