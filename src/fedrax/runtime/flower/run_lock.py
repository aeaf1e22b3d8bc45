"""The lock and the log files of a run on nodes, by which other processes tell whether it goes on."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from fedrax.records import lock

LOG = "federation.log"
"""What people should know, a line each."""
WHY = "stopped.txt"
"""Why the server gave up, where it did."""
LOCK = lock.SERVER_LOCK
ENDING_SECONDS = 15.0
"""How long what a command started may take to end once that is gone."""
LOOK_SECONDS = 0.2
REFUSED_PARTS = "refused.txt"
"""In the folder of Flower's files: the parts of messages that the SuperLink did not take because of their size."""


def held(folder: Path) -> contextlib.AbstractContextManager[int]:
    """Locks the run for this process: two servers cannot share one, and the lock ends with its process.

    The supervising command holds another one (:data:`fedrax.records.lock.LOCK`), as it outlives its servers.

    Raises:
        FedraxError: another server holds it.
    """
    return lock.held(folder, LOCK)


def is_held(folder: Path) -> bool:
    """Whether a server trains the run now."""
    return lock.is_held(folder, LOCK)


def gets_free(folder: Path, seconds: float = ENDING_SECONDS) -> bool:
    """Whether no server trains the run any more, within so many seconds.

    Of a command that was killed, the server ends a little later.
    """
    deadline = time.monotonic() + seconds
    while is_held(folder):
        if time.monotonic() >= deadline:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def last_held(folder: Path) -> int | None:
    """When a server last wrote that it holds the run, in nanoseconds; None where none has, or is just about to."""
    try:
        found = (folder / LOCK).stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns if found.st_size else None


class Tail:
    """Lines of a file that is being written, each once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = path.stat().st_size if path.exists() else 0

    def lines(self) -> list[str]:
        """Whole lines that came since the last call."""
        if not self.path.exists():
            return []
        with open(self.path, "rb") as file:
            file.seek(self.place)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.place += len(whole)
        return whole.decode(errors="replace").splitlines()
