"""An attempt at a job: in a process of its own, or in one that trains several runs one after the other."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence

from fedrax.config import Config
from fedrax.runtime.draws import runs_native
from fedrax.supervision import Process, start
from fedrax.sweeps.processes import environment
from fedrax.sweeps.tasks import Task

ATTEMPT = "=== attempt"
"""How the line in a log begins that comes before an attempt's own."""
COMPILED = b"compiled"
"""What a worker answers once a run's program exists, in JAX's cache too."""
FEDRAX = [sys.executable, "-m", "fedrax.cli"]


def arguments_of(task: Task) -> list[str]:
    """The arguments of a task's next attempt: train, or resume what an earlier attempt began."""
    job = task.job
    if task.started:
        moved = [word for plugin in job.config.plugins for word in ("--plugins", plugin)]
        return ["resume", str(job.directory), *job.grown, "--quiet", *moved]
    source = [] if job.setup.preset is None else [job.setup.preset]
    return ["train", *source, *job.overrides, "--out", str(job.directory), "--quiet"]


def command_of(task: Task) -> list[str]:
    """The command line of a task's next attempt."""
    return [*FEDRAX, *arguments_of(task)]


def may_share(config: Config) -> bool:
    """Whether such runs may follow one another in a process: nothing outlives one but compiled programs.

    Not where plugins register what other setups' plugins may call the same, and not with environments outside of JAX,
    which may leave anything behind.
    """
    return not config.plugins and config.runtime.kind != "flower" and runs_native(config)


class Attempt:
    """A process with one job."""

    def __init__(self, task: Task, command: Sequence[str], cores: int, lock: int) -> None:
        """Starts it; it inherits the sweep's ``lock``."""
        self.task, self.began = task, time.monotonic()
        self.process: Process = start(
            task.job.name, command, task.job.log, environment(cores), header=_header(task, command), pass_fds=(lock,)
        )

    def status(self) -> int | None:
        """The exit status; None while it runs."""
        return self.process.poll()


class Worker:
    """A process with one job after the other (:mod:`fedrax.sweep_worker`)."""

    def __init__(self, first: Task, cores: int, lock: int) -> None:
        """Starts it; what it prints before its first job is in that job's log."""
        self._answers, writing = os.pipe()
        os.set_blocking(self._answers, False)
        command = [sys.executable, "-m", "fedrax.sweep_worker", str(writing)]
        try:
            self.process: Process = start(
                first.job.name,
                command,
                first.job.log,
                environment(cores),
                pass_fds=(lock, writing),
                stdin=subprocess.PIPE,
            )
        except BaseException:
            os.close(self._answers)
            raise
        finally:
            os.close(writing)
        self._unread = b""
        self.task, self.compiled = first, False
        """Its job, or the last one, and whether that one's program exists."""
        self.began = time.monotonic()

    def give(self, task: Task) -> None:
        """The next job, once the last one has ended."""
        self.task, self.began, self.compiled = task, time.monotonic(), False
        arguments = arguments_of(task)
        task.job.log.parent.mkdir(parents=True, exist_ok=True)
        with task.job.log.open("ab") as file:
            file.write(_header(task, [*FEDRAX, *arguments]).encode())
        line = json.dumps({"arguments": arguments, "log": str(task.job.log.absolute())})
        assert self.process.stdin is not None
        # A process that has died is noticed by its status.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{line}\n".encode())
            self.process.stdin.flush()

    def status(self) -> int | None:
        """The exit status of its job, or of the process if it has died; None while the job runs."""
        status = self.process.poll()
        # Where the process has died, what it started itself may hold the pipe open.
        with contextlib.suppress(BlockingIOError):
            self._unread += os.read(self._answers, 4096)
        *answers, self._unread = self._unread.split(b"\n")
        for answer in answers:
            if answer == COMPILED:
                self.compiled = True
            else:
                status = int(answer)
        return status

    def close(self) -> None:
        """Lets it end."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
            os.close(self._answers)


def _header(task: Task, command: Sequence[str]) -> str:
    return f"{ATTEMPT} {task.attempts + 1}, {time.strftime('%Y-%m-%d %H:%M:%S')}: {shlex.join(command)}\n"
