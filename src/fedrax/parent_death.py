"""Becomes a command, tied to the process that started it: ``python parent_death.py PARENT COMMAND ...`` on Linux.

The kernel sends the command SIGTERM when its parent dies, however that dies, so that a killed sweep, node or server
leaves nothing behind. Needs the standard library alone.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PARENT_DEATH_SIGNAL = 1
"""The kernel's ``PR_SET_PDEATHSIG``."""


def main(parent: int, command: list[str]) -> None:
    """Does not return.

    Args:
        parent: the number of the process that started it, which may be dead already.
    """
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
