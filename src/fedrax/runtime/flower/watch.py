"""What a run on nodes leaves in its directory while it goes on, and how to tell whether it does."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from fedrax.errors import FedraxError

LOG = "federation.log"
"""What people should know, a line each."""
WHY = "stopped.txt"
"""Why the server gave up, where it did."""
LOCK = ".server.lock"
EXCHANGES = "exchanges.jsonl"


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds the run for this process: two servers cannot share one, and a server's death is seen at once.

    Raises:
        FedraxError: another server holds it.
    """
    descriptor = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FedraxError(f"another server trains the run in {folder}; wait for it or stop it") from None
        yield
    finally:
        os.close(descriptor)


def is_held(folder: Path) -> bool:
    """Whether a server trains the run now."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


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
