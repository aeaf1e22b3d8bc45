"""One line of a notebook's cell that is replaced, where others are printed one below the other."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

SECONDS = 0.2
"""The least time between two changes of the line: each is a message to the browser, and kept by nobody."""


class CellLine:
    """A line in the output of the cell that runs; the notebook keeps the last text of it."""

    def __init__(self, publish: Callable[..., Any], clock: Callable[[], float] = time.monotonic) -> None:
        """Args:
        publish: of the shell's ``display_pub``.
        clock: seconds, from any origin.
        """
        self._publish, self._clock = publish, clock
        self._place = {"display_id": uuid.uuid4().hex}
        self._text = self._shown = ""
        self._at: float | None = None

    def show(self, text: str, *, last: bool = False) -> None:
        """Puts the text in the place of the line's former one, at once where it is the ``last``."""
        self._text, now = text, self._clock()
        if text == self._shown or (not last and self._at is not None and now - self._at < SECONDS):
            return
        self._publish({"text/plain": text}, transient=self._place, update=self._at is not None)
        self._shown, self._at = text, now


def cell_line() -> CellLine | None:
    """A line in the output of the cell that runs; None outside of notebooks."""
    ipython = sys.modules.get("IPython")
    shell: Any = None if ipython is None else ipython.get_ipython()
    return CellLine(shell.display_pub.publish) if hasattr(shell, "kernel") else None
