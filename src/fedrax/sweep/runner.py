"""Runs the jobs of a sweep, each a process of its own on cores of its own, and survives whatever ends them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from fedrax.errors import FedraxError
from fedrax.records.files import reason, write_json
from fedrax.records.lock import held
from fedrax.sweep.board import Board, failure
from fedrax.sweep.plan import Plan
from fedrax.sweep.processes import Stop, environment, placed, stoppable
from fedrax.sweep.tasks import Task, tasks_of

POLL_SECONDS = 0.1
GRACE_SECONDS = 30.0
"""How long an interrupted job may take to end."""

LAST_BYTES = 1 << 16
"""Where the last line of a log is looked for."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a sweep."""

    out: Path
    tasks: tuple[Task, ...]
    interrupted: int
    """The signal that did, or 0."""

    @property
    def failed(self) -> tuple[Task, ...]:
        """The jobs whose last attempt failed."""
        return tuple(task for task in self.tasks if task.state == "failed")

    @property
    def status(self) -> int:
        """The exit status of the command."""
        return 128 + self.interrupted if self.interrupted else 1 if self.failed else 0


@dataclasses.dataclass
class _Running:
    task: Task
    process: subprocess.Popen[bytes]
    slot: int
    began: float
    log_offset: int


def command_of(task: Task) -> list[str]:
    """The command line of a task's next attempt: train, or resume what an earlier attempt began."""
    fedrax, job = [sys.executable, "-m", "fedrax.cli"], task.job
    if task.started:
        moved = [word for plugin in job.config.plugins for word in ("--plugins", plugin)]
        return [*fedrax, "resume", str(job.directory), "--quiet", *moved]
    return [*fedrax, "train", job.setup.preset, *job.overrides, "--out", str(job.directory), "--quiet"]


def run_plan(
    plan: Plan,
    *,
    retry: int = 0,
    terminal: bool | None = None,
    command: Callable[[Task], Sequence[str]] = command_of,
) -> Outcome:
    """Runs what is missing of a plan, and prints how it goes.

    Args:
        plan: the jobs.
        retry: how often a failed job is tried again.
        terminal: whether to draw a moving table; unset, whether standard output is a terminal.
        command: what an attempt executes.

    Raises:
        FedraxError: the sweep cannot start; what goes wrong in a job does not raise.
    """
    if retry < 0:
        raise FedraxError(f"retry = {retry} is not allowed: it must be at least 0")
    # Its jobs inherit the lock: it lasts until the last of them has ended, even if this process dies first.
    with held(plan.out) as lock, stoppable() as stop:
        tasks = tasks_of(plan)
        runner = _Runner(plan, tasks, retry, command, lock)
        with Board(tasks, terminal=terminal) as board:
            for note in plan.notes:
                board.note(note)
            try:
                runner.run(board, stop)
            finally:
                runner.end(board, stop)
                write_json(plan.out / "sweep.json", {"file": str(plan.file), "jobs": [task.record() for task in tasks]})
    unfinished = any(task.state == "interrupted" for task in tasks)
    outcome = Outcome(plan.out, tuple(tasks), interrupted=stop.number if unfinished else 0)
    print(_closing(plan, outcome), flush=True)
    return outcome


class _Runner:
    def __init__(
        self, plan: Plan, tasks: list[Task], retry: int, command: Callable[[Task], Sequence[str]], lock: int
    ) -> None:
        self._plan, self._tasks, self._command, self._lock = plan, tasks, command, lock
        self._waiting = deque(task for task in tasks if task.state == "waiting")
        self._retries = {id(task): retry for task in tasks}
        self._free = list(range(plan.at_once))
        self._running: list[_Running] = []

    def run(self, board: Board, stop: Stop) -> None:
        """Until nothing is left to do, or the user asks to stop."""
        while (self._waiting or self._running) and not stop.asked:
            while self._waiting and self._free and not stop.asked:
                self._start(self._waiting.popleft(), board)
            self._collect(board, stopping=False)
            board.update()
            time.sleep(POLL_SECONDS)

    def end(self, board: Board, stop: Stop) -> None:
        """Ends what still runs: asks, waits, and then kills. Asked twice, the user does not want to wait."""
        if self._running:
            board.note(f"stopping {len(self._running)} running jobs")
        for running in self._running:
            _signal(running, signal.SIGINT)
        deadline = time.monotonic() + GRACE_SECONDS
        while self._running:
            if time.monotonic() > deadline or stop.asked > 1:
                for running in self._running:
                    _signal(running, signal.SIGKILL)
            self._collect(board, stopping=True)
            time.sleep(POLL_SECONDS)
        for task in self._tasks:
            if task.state == "waiting":
                task.state = "interrupted"

    def _start(self, task: Task, board: Board) -> None:
        command = list(self._command(task))
        job, slot = task.job, self._free.pop(0)
        try:
            job.log.parent.mkdir(parents=True, exist_ok=True)
            with job.log.open("ab") as log:
                header = (
                    f"=== attempt {task.attempts + 1}, {time.strftime('%Y-%m-%d %H:%M:%S')}: {shlex.join(command)}\n"
                )
                log.write(header.encode())
                log.flush()
                offset = log.tell()
                with placed(slot, self._plan.cores_per_job):
                    # Its own session: a terminal's Ctrl-C reaches only the sweep, which ends its jobs in order.
                    process = subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        env=environment(self._plan.cores_per_job),
                        start_new_session=True,
                        pass_fds=(self._lock,),
                    )
        except OSError as error:
            raise FedraxError(f"cannot start {job.name}: {reason(error)}") from None
        task.attempts, task.state, task.reason, task.exit_code = task.attempts + 1, "running", "", None
        self._running.append(_Running(task, process, slot, time.monotonic(), offset))
        board.started(task)

    def _collect(self, board: Board, *, stopping: bool) -> None:
        """Takes note of the jobs that ended."""
        for running in list(self._running):
            code = running.process.poll()
            if code is None:
                continue
            self._running.remove(running)
            self._free.append(running.slot)
            self._free.sort()
            task, seconds = running.task, time.monotonic() - running.began
            task.seconds += seconds
            task.exit_code = code
            if code == 0 and task.finished:
                task.state = "done"
            elif stopping:
                task.state = "interrupted"
            else:
                task.reason = _last_line(task.job.log, running.log_offset)
                if self._retries[id(task)] > 0:
                    self._retries[id(task)] -= 1
                    task.state = "waiting"
                    self._waiting.append(task)
                else:
                    task.state = "failed"
            board.ended(task, seconds)


def _signal(running: _Running, number: signal.Signals) -> None:
    # Its session is its group, so this reaches whatever it started.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(running.process.pid, number)


def _last_line(log: Path, offset: int) -> str:
    with log.open("rb") as file:
        file.seek(max(offset, file.seek(0, os.SEEK_END) - LAST_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _closing(plan: Plan, outcome: Outcome) -> str:
    states = [task.state for task in outcome.tasks]
    counts = ((states.count(state), state) for state in ("done", "failed", "interrupted"))
    lines = [", ".join(f"{count} {state}" for count, state in counts if count)]
    lines += [f"{task.job.name}: failed (attempt {task.attempts}), {failure(task)}" for task in outcome.failed]
    if outcome.interrupted:
        lines.append(f"fedrax sweep {shlex.quote(str(plan.file))} continues")
    # A folder of runs stands for the runs in it, and a report refuses one that has none.
    folders = dict.fromkeys(str(task.job.directory.parent) for task in outcome.tasks if task.started)
    if folders:
        lines.append(shlex.join(["fedrax", "report", *folders, "--out", str(plan.out / "report.html")]))
    return "\n".join(lines)
