"""Runs the jobs of a sweep, several at once on cores of their own, and survives whatever ends them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fedrax.errors import FedraxError
from fedrax.records.lock import held
from fedrax.supervision import POLL_SECONDS, Process, stop_all
from fedrax.sweeps.attempts import ATTEMPT, Attempt, Worker, command_of
from fedrax.sweeps.board import Board
from fedrax.sweeps.order import Waiting
from fedrax.sweeps.plan import Plan
from fedrax.sweeps.processes import Stop, placed, stoppable
from fedrax.sweeps.record import Record, damage
from fedrax.sweeps.tasks import Task, tasks_of, unapplied
from fedrax.wording import counted

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
    stopped: int = 0
    """The signal that asked to stop, or 0: also where nothing was left that it could interrupt."""

    @property
    def failed(self) -> tuple[Task, ...]:
        """The jobs whose last attempt failed."""
        return tuple(task for task in self.tasks if task.state == "failed")

    @property
    def reportable(self) -> bool:
        """Whether there is a run to report: none where all failed, and a folder without runs is refused."""
        return any(task.started and task.state != "failed" for task in self.tasks)

    @property
    def status(self) -> int:
        """The exit status of the command."""
        return 128 + self.interrupted if self.interrupted else 1 if self.failed else 0


class Session:
    """What plans that are run one after the other have in common: a folder's lock, processes, and requests to stop."""

    def __init__(self, lock: int, stop: Stop) -> None:
        self.lock, self.stop = lock, stop
        self.idle: dict[int, Worker] = {}
        """By slot: the processes that have nothing to do."""
        self.compiled: set[str] = set()
        """Shapes of which a program exists (:class:`.order.Waiting`)."""

    def close(self) -> None:
        """Ends its processes."""
        workers = [*self.idle.values()]
        self.idle.clear()
        for worker in workers:
            worker.close()
        left = [worker.process for worker in workers if worker.process.poll() is None]
        stop_all(left, [(signal.SIGINT, GRACE_SECONDS)], hurry=lambda: self.stop.asked > 1)


@contextlib.contextmanager
def opened(out: Path) -> Iterator[Session]:
    """A session in this folder.

    Raises:
        FedraxError: another sweep is at work there.
    """
    # Its jobs inherit the lock: it lasts until the last of them has ended, even if this process dies first.
    with held(out) as lock, stoppable() as stop:
        session = Session(lock, stop)
        try:
            yield session
        finally:
            session.close()


def run_plan(
    plan: Plan,
    *,
    session: Session | None = None,
    retry: int = 0,
    terminal: bool | None = None,
    command: Callable[[Task], Sequence[str]] | None = None,
    check: Callable[[Plan], Plan] = lambda plan: plan,
) -> Outcome:
    """Runs what is missing of a plan, and prints how it goes.

    Args:
        plan: the jobs.
        session: of plans in the same folder that are run before and after; unset, one of its own.
        retry: how often a failed job is tried again.
        terminal: whether to draw a moving table; unset, whether standard output is a terminal.
        command: what an attempt executes, each in a process of its own; unset, Fedrax, whose processes may train one
            run after the other.
        check: raises :class:`FedraxError` for a plan that cannot be carried out, or adds notes to it.

    Raises:
        FedraxError: the sweep cannot start; what goes wrong in a job does not raise.
    """
    if retry < 0:
        raise FedraxError(f"retry = {retry} is not allowed: it must be at least 0")
    with opened(plan.out) if session is None else contextlib.nullcontext(session) as used:
        stop = used.stop
        plan = check(plan)
        tasks = tasks_of(plan)
        notes = (*plan.notes, unapplied(tasks), damage(plan.out))
        record = Record(plan, tasks)
        record.write()
        runner = _Runner(plan, tasks, retry, command, used, record)
        with Board(tasks, terminal=terminal) as board:
            for note in filter(None, notes):
                board.note(note)
            try:
                runner.run(board, stop)
            finally:
                runner.end(board, stop)
                record.write()
    unfinished = any(task.state in ("interrupted", "waiting") for task in tasks)
    outcome = Outcome(plan.out, tuple(tasks), interrupted=stop.number if unfinished else 0, stopped=stop.number)
    print(_closing(plan, outcome), flush=True)
    if session is None and outcome.reportable:
        print(report_command(plan.out), flush=True)
    return outcome


class _Runner:
    def __init__(
        self,
        plan: Plan,
        tasks: list[Task],
        retry: int,
        command: Callable[[Task], Sequence[str]] | None,
        session: Session,
        record: Record,
    ) -> None:
        self._plan, self._tasks, self._command, self._session = plan, tasks, command, session
        self._record = record
        self._waiting = Waiting(
            (task for task in tasks if task.state == "waiting"), sharing=command is None, compiled=session.compiled
        )
        self._retries = {id(task): retry for task in tasks}
        self._running: dict[int, Attempt | Worker] = {}
        """By slot: the cores that a process has."""

    def run(self, board: Board, stop: Stop) -> None:
        """Until nothing is left to do, or the user asks to stop."""
        while (self._waiting or self._running) and not stop.asked:
            for slot in range(self._plan.at_once):
                if slot not in self._running and not stop.asked:
                    self._fill(slot, board)
            for slot, running in list(self._running.items()):
                status = running.status()
                if isinstance(running, Worker) and running.compiled:
                    self._waiting.compiled(running.task)
                if status is not None:
                    self._ended(slot, status, board, stopping=False)
            self._record.keep_up()
            board.update()
            time.sleep(POLL_SECONDS)

    def end(self, board: Board, stop: Stop) -> None:
        """Ends what still runs: asks, waits, and then kills. Asked twice, the user does not want to wait."""
        if self._running:
            board.note(f"stopping {counted(len(self._running), 'running job')}")
        slots = {running.process: slot for slot, running in self._running.items()}

        def ended(process: Process) -> None:
            if process in slots:
                self._ended(slots[process], process.returncode, board, stopping=True)

        stop_all([*slots], [(signal.SIGINT, GRACE_SECONDS)], hurry=lambda: stop.asked > 1, ended=ended)
        for task in self._tasks:
            # What waits and was never begun was not interrupted.
            if task.state == "running" or (task.state == "waiting" and (task.attempts or task.started)):
                task.state = "interrupted"

    def _fill(self, slot: int, board: Board) -> None:
        """Starts a job on these cores, if there is one for them."""
        worker, running = self._session.idle.get(slot), [attempt.task for attempt in self._running.values()]
        if worker is not None and worker.process.poll() is not None:
            # It died while it had nothing to do, which is no job's failure.
            self._retire(slot)
            worker = None
        task = self._waiting.take(running, None if worker is None else worker.task)
        if task is None:
            return
        cores = self._plan.cores_per_job
        if self._waiting.shape(task) is not None:
            if worker is None:
                with placed(slot, cores):
                    worker = Worker(task, cores, self._session.lock)
            self._session.idle.pop(slot, None)
            worker.give(task)
            self._running[slot] = worker
        else:
            self._retire(slot)
            with placed(slot, cores):
                self._running[slot] = Attempt(task, (self._command or command_of)(task), cores, self._session.lock)
        task.attempts, task.state, task.reason, task.exit_code = task.attempts + 1, "running", "", None
        self._record.changed()
        board.started(task)

    def _retire(self, slot: int) -> None:
        """Lets an idle process end."""
        if (worker := self._session.idle.pop(slot, None)) is not None:
            worker.close()
            if worker.process.poll() is None:
                stop_all([worker.process], [(signal.SIGTERM, GRACE_SECONDS)])

    def _ended(self, slot: int, status: int, board: Board, *, stopping: bool) -> None:
        """Takes note of a job that ended; what failed in a process may fail what follows."""
        running = self._running.pop(slot)
        task, seconds = running.task, time.monotonic() - running.began
        if isinstance(running, Worker):
            self._session.idle[slot] = running
            if status != 0 or stopping:
                self._retire(slot)
        task.seconds += seconds
        task.exit_code = status
        # A process that is stopped may have finished its run just before.
        if (task.exit_code == 0 or stopping) and task.finished:
            task.state = "done"
        elif stopping:
            task.state = "interrupted"
        else:
            task.reason = _last_line(task.job.log)
            if self._retries[id(task)] > 0:
                self._retries[id(task)] -= 1
                task.state = "waiting"
                self._waiting.add(task)
            else:
                task.state = "failed"
        self._record.changed()
        board.ended(task, seconds)


def _last_line(log: Path) -> str:
    """What the last attempt said last; nothing where it was silent."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines and not lines[-1].startswith(ATTEMPT) else ""


def _closing(plan: Plan, outcome: Outcome) -> str:
    states = [task.state for task in outcome.tasks]
    said = {"done": "done", "failed": "failed", "interrupted": "interrupted", "waiting": "not started"}
    lines = [", ".join(f"{states.count(state)} {text}" for state, text in said.items() if state in states)]
    # Why was told when it failed.
    lines += [f"{task.job.name}: failed (attempt {task.attempts}), see {task.job.log}" for task in outcome.failed]
    again = f"fedrax sweep {shlex.quote(str(plan.file))}"
    if outcome.interrupted:
        lines.append(f"{again} continues")
    elif outcome.failed:
        lines.append(f"{again} tries again what failed")
    return "\n".join(lines)


def report_command(out: Path) -> str:
    """What shows the runs in a folder."""
    return shlex.join(["fedrax", "report", str(out)])
