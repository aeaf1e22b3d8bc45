"""Memory of environments that hold themselves by cycles of references, as simulators with their renderers do."""

from __future__ import annotations

import gc

GROWTH = 1 << 18
"""How much the process's highest memory grows before cycles are looked for, in the system's unit (KiB on Linux)."""

_highest = 0


def free_closed() -> None:
    """Frees environments that were closed and dropped, where memory has grown; always where the system cannot say.

    Python looks for cycles by how many objects there are, and a simulator is few objects and many megabytes: fifty of
    Fetch's for each evaluation filled gigabytes within minutes.
    """
    global _highest
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:  # Windows has none.
        gc.collect()
        return
    highest = getrusage(RUSAGE_SELF).ru_maxrss
    if highest > _highest + GROWTH:
        gc.collect()
        _highest = highest
