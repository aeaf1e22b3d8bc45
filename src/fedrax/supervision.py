"""Starts the processes of a command and stops them: each in a session of its own, logged, and never left behind.

A session keeps a terminal's Ctrl-C from the process, so that the command ends what it started in order. The session is
a process group too: a signal reaches whatever the process started itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fedrax.errors import FedraxError
from fedrax.records.files import owner_only, reason

Process = subprocess.Popen[bytes]

POLL_SECONDS = 0.1
MEMBERS_SECONDS = 0.2
"""How much slower than a process that was told to end its group may be."""
KILLED_SECONDS = 10.0
"""How long a killed process may take; what waits for a broken device ends later or never."""


def start(
    name: str,
    command: Sequence[str],
    log: Path,
    variables: Mapping[str, str],
    *,
    header: str = "",
    pass_fds: Sequence[int] = (),
    private: bool = False,
    stdin: int = subprocess.DEVNULL,
) -> Process:
    """Starts a command that, where the kernel is Linux, ends with this process (:mod:`.parent_death`).

    Args:
        name: what a message calls it.
        log: the file to whose end its standard output and error go; made with its folder if it does not exist.
        variables: its environment.
        header: written to the log first.
        pass_fds: open files that it inherits.
        stdin: what it reads, as :class:`subprocess.Popen` has it; nothing unless given.
        private: only the owner may read the log, also one that others could read before.

    Raises:
        FedraxError: there is no such command, or nothing can be written to its log.
    """
    if sys.platform == "win32":
        raise FedraxError(
            f"cannot start {name}: sweeps and federations of processes need Linux or macOS; on Windows use WSL, or "
            "`fedrax train`"
        )
    if shutil.which(command[0], path=variables.get("PATH")) is None:
        raise FedraxError(f"cannot start {name}: there is no command {command[0]}")
    if sys.platform == "linux":
        # Isolated and without the site's packages, it starts in a fraction of the time.
        script = Path(__file__).with_name("parent_death.py")
        command = [sys.executable, "-I", "-S", str(script), str(os.getpid()), *command]
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab", buffering=0, opener=owner_only if private else None) as file:
            file.write(header.encode())
            return subprocess.Popen(
                command,
                stdin=stdin,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=variables,
                start_new_session=True,
                pass_fds=pass_fds,
            )
    except OSError as error:
        raise FedraxError(f"cannot start {name}: {reason(error)} ({log})") from None


def stop_all(
    processes: Sequence[Process],
    stages: Sequence[tuple[signal.Signals, float]],
    *,
    hurry: Callable[[], bool] = lambda: False,
    ended: Callable[[Process], None] = lambda process: None,
) -> None:
    """Ends processes and their groups, stage by stage; what is left is killed, also when an exception interrupts this.

    Args:
        stages: the signals to send one after the other, and how many seconds each may take.
        hurry: asked again and again; once it says so, nothing is waited for.
        ended: called with every process as soon as it has ended.
    """
    left = list(processes)
    try:
        for number, seconds in stages:
            _signal(left, number)
            _await(left, seconds, hurry, ended)
    finally:
        _signal(left, signal.SIGKILL)
        _await(left, KILLED_SECONDS, lambda: False, ended)


def _await(left: list[Process], seconds: float, hurry: Callable[[], bool], ended: Callable[[Process], None]) -> None:
    """Takes out of ``left`` what ends within so many seconds, and kills the rest of its group."""
    deadline = time.monotonic() + seconds
    while left and time.monotonic() < deadline and not hurry():
        gone = [process for process in left if process.poll() is not None]
        time.sleep(MEMBERS_SECONDS if gone else POLL_SECONDS)
        _signal(gone, signal.SIGKILL)
        for process in gone:
            left.remove(process)
            ended(process)


def _signal(processes: Sequence[Process], number: signal.Signals) -> None:
    for process in processes:
        # macOS refuses to signal a group of which only ended processes are left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
