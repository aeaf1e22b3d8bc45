"""One writer at a time in a directory: a lock that ends with the process that holds it, however that ends.

It is the kernel's, on a file held open (``flock``, which Linux passes on to the server of a network file system), so a
file left by a process that is gone is no obstacle. Readers take no lock and never wait.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from fedrax.errors import FedraxError
from fedrax.parsing import parsed_json
from fedrax.records.file_lock import locked
from fedrax.records.files import reason, write_all

LOCK = ".lock"
"""The file that whoever trains in a run's directory holds."""

SERVER_LOCK = ".server.lock"
"""The same of a federation's server, which a command with the other one starts again and again."""

COMMAND = "FEDRAX_COMMAND"
"""The environment variable by which processes learn the command that started them, as JSON."""

WAITS = (0.01, 0.1)
"""Seconds before the lock is tried again: :func:`is_held` holds it for microseconds."""

logger = logging.getLogger(__name__)

_open: set[int] = set()
"""The descriptors of the locks that this process holds."""

_taken_so_far: list[Path] = []


@contextlib.contextmanager
def held(folder: Path, name: str = LOCK) -> Iterator[int]:
    """Holds ``folder``, made if it does not exist, for this process; yields the lock's descriptor.

    The descriptor is not inherited, unless it is passed to a child on purpose: the lock then lasts until that has ended
    too. Where the file system has no locks, a warning says so and the block runs without one.

    Raises:
        FedraxError: another process holds it, which the message names; or nothing can be written there.
    """
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise FedraxError(
            f"cannot write to {folder}: {reason(error)}; mend the permissions or choose another directory"
        ) from None
    _open.add(descriptor)
    try:
        try:
            taken = _taken(descriptor)
        except OSError as error:
            logger.warning("%s cannot be locked (%s): let only one process write there", path, reason(error))
            taken = True
        if not taken:
            raise FedraxError(f"{folder} is in use by {holder(path)}; wait for it or end it")
        _taken_so_far.append(folder)
        with contextlib.suppress(OSError):  # On a full disk the lock holds all the same, and is only nameless.
            os.ftruncate(descriptor, 0)
            write_all(descriptor, f"{json.dumps(_self())}\n".encode())
        yield descriptor
    finally:
        if descriptor in _open:
            _open.remove(descriptor)
            os.close(descriptor)


def is_held(folder: Path, name: str = LOCK) -> bool:
    """Whether a process holds ``folder`` now."""
    try:
        descriptor = os.open(folder / name, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not locked(descriptor, alone=False)
    finally:
        os.close(descriptor)


def written_folders() -> tuple[Path, ...]:
    """What this process holds or has held, in the order in which it took it."""
    return tuple(_taken_so_far)


def holder(path: Path) -> str:
    """Who holds a lock, as its file says: process, machine, command and since when."""
    try:
        known = parsed_json(path.read_bytes())
        words = f"process {known['pid']} on {known['host']} since {known['since']} ({known['command']})"
        gone = known["host"] == socket.gethostname() and not _lives(int(known["pid"]))
    except (OSError, ValueError, LookupError, TypeError):  # It may just be writing who it is.
        return "another process"
    return f"what was started by {words}, which has ended" if gone else words


def _taken(descriptor: int) -> bool:
    """Takes the lock; False where another process holds it for longer than one that only looks would."""
    for wait in (*WAITS, None):
        if locked(descriptor, alone=True):
            return True
        if wait is not None:
            time.sleep(wait)
    return False


def _lives(pid: int) -> bool:
    if sys.platform == "win32":
        return True  # There `os.kill` with 0 ends the process.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def command_line() -> list[str]:
    """What the user typed. A process of Flower's says that of the command which started it: its own holds a secret."""
    given = os.environ.get(COMMAND)
    return sys.argv if given is None else [str(word) for word in parsed_json(given.encode())]


def _self() -> dict[str, str | int]:
    program, *arguments = command_line()
    command = shlex.join([os.path.basename(program), *arguments])
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "command": " ".join(command.split())}


def _let_go() -> None:
    """In a forked child, which would otherwise keep its parent's locks beyond the parent's end."""
    while _open:
        os.close(_open.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
