"""What the processes of a sweep share and what they do not: cores, threads, the sweep's lock, and signals."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from fedrax.errors import FedraxError
from fedrax.records.files import reason
from fedrax.sweep.plan import cores

THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")
"""What the numerical libraries read; NPROC is XLA's. No XLA flag, as those would miss the compilation cache."""


class Stop:
    """How often the user asked to stop."""

    def __init__(self) -> None:
        self.asked = 0

    def ask(self, number: int, frame: FrameType | None) -> None:
        """A signal's handler."""
        self.asked += 1


def environment(cores_per_job: int) -> dict[str, str]:
    """The environment variables of a job on so many cores."""
    defaults = {
        # The last line of a log is the error itself, not JAX's remark on its traceback.
        "JAX_TRACEBACK_FILTERING": "quiet_remove_frames",
        # Jobs share an accelerator: none may take its memory whole.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    return {**defaults, **os.environ, **dict.fromkeys(THREAD_LIMITS, str(cores_per_job))}


@contextlib.contextmanager
def placed(slot: int, cores_per_job: int) -> Iterator[None]:
    """Processes started within run on a slot's cores, from their first instruction on.

    No two slots share a core unless there are too few.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    own, available = os.sched_getaffinity(0), cores()
    first = slot * cores_per_job
    os.sched_setaffinity(0, {available[(first + index) % len(available)] for index in range(cores_per_job)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


@contextlib.contextmanager
def locked(out: Path) -> Iterator[int]:
    """A lock on the sweep that its jobs inherit: it lasts until the last of them has ended, even if we die first.

    Yields its file descriptor.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise FedraxError(f"cannot write to {out}: {reason(error)}; give the sweep another out") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FedraxError(
                f"{out} is in use: another sweep, or a job that a killed one left, still runs; wait for it or end it"
            ) from None
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """Counts requests to stop, rather than being torn out of whatever goes on."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup wants to outlive its terminal.
        numbers.append(signal.SIGHUP)
    before = [signal.signal(number, stop.ask) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
