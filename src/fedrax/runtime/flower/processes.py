"""Flower's processes: their commands and environment, and how they are started again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from fedrax.errors import FedraxError
from fedrax.records.lock import COMMAND, command_line
from fedrax.supervision import start, stop_all

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Flower sends no telemetry and installs nothing."""
STAGES = ((signal.SIGTERM, 10.0),)
"""How a process is ended before it is killed."""
AGAIN_SECONDS = 2.0
"""Before a process that died is started again."""


def environment(folder: Path) -> dict[str, str]:
    """The environment variables of Flower's processes; they start one another by name."""
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, **QUIET, "FLWR_HOME": str(folder), "PATH": paths, COMMAND: json.dumps(command_line())}


class Watched:
    """A process that is started again whenever it dies; a context manager that stops it.

    Its log is its owner's alone: nodes' words may be in it.
    """

    def __init__(self, command: Sequence[str], log: Path, variables: Mapping[str, str]) -> None:
        self.command, self.log, self.variables = command, log, variables
        # Of `python -m package.module name ...`, which is most of them, the last words that say what it is.
        module = command[2].rpartition(".")[2] if command[1] == "-m" else ""
        self.name = (command[3] if module in ("commands", "guard") else module) or Path(command[0]).name
        self.died: float | None = None
        self.starts = 0

    def __enter__(self) -> Watched:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stop_all([self.process], STAGES)

    def start(self) -> None:
        """Starts the process."""
        self.starts += 1
        self.process = start(self.name, self.command, self.log, self.variables, private=True)

    def watch(self) -> str | None:
        """Starts the process again if it has been dead for a while; what to tell people, once for every death.

        Raises:
            FedraxError: it cannot be started again.
        """
        status = self.process.poll()
        if status is None:
            return None
        if self.died is None:
            self.died = time.monotonic()
            return f"{self.name} ended ({status}), see {self.log}; it is started again"
        if time.monotonic() - self.died >= AGAIN_SECONDS:
            self.died = None
            self.start()
        return None


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def flower_command(name: str) -> str:
    """The path of one of Flower's commands.

    Raises:
        FedraxError: Flower is not installed.
    """
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if found is None:
        raise FedraxError(f"{name} is not installed; pip install 'fedrax[flower]'")
    return found


def guarded_command(name: str) -> list[str]:
    """One of Flower's commands that takes runs from its own machine only."""
    return [sys.executable, "-m", "fedrax.runtime.flower.guard", name]


def patched_command(name: str) -> list[str]:
    """One of Flower's commands, patched (:mod:`.flower_patches`)."""
    return [sys.executable, "-m", "fedrax.runtime.flower.flower_patches.commands", name]
