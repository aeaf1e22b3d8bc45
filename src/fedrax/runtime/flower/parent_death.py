"""Becomes a command, tied to the process that started it: ``python -m fedrax.runtime.flower.parent_death COMMAND ...``.

Where the kernel is Linux it ends the command when its parent dies, however that dies, so a killed node or server leaves
nothing behind.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PARENT_DEATH_SIGNAL = 1
"""The kernel's ``PR_SET_PDEATHSIG``."""


def main(command: list[str]) -> None:
    """Does not return."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
