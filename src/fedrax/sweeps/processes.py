"""What the processes of a sweep share and what they do not: cores, threads and signals."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from fedrax.signals import handled
from fedrax.sweeps.plan import cores

THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")
"""What the numerical libraries read; NPROC is XLA's. No XLA flag, as those would miss the compilation cache."""


class Stop:
    """How often the user asked to stop."""

    def __init__(self) -> None:
        self.asked = 0
        self.number = 0
        """The last signal that asked."""

    def ask(self, number: int, frame: FrameType | None) -> None:
        """A signal's handler."""
        self.asked += 1
        self.number = number


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
def stoppable() -> Iterator[Stop]:
    """Counts requests to stop, rather than being torn out of whatever goes on."""
    stop = Stop()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)  # Unless nohup wants to outlive its terminal.
    with handled(stop.ask, numbers):
        yield stop
