"""Why the server's process ended, which Flower started: by the traceback that it left, or the last words of its log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedrax.records.files import ERRORS
from fedrax.runtime.flower.run_lock import Tail

TRACEBACK = "Traceback (most recent call last):"
LONGEST = 300
"""Characters shown of what was said last."""


class Deaths:
    """Says of one death after the other why it was."""

    def __init__(self, folder: Path, log: Path) -> None:
        """``folder`` is the run's, ``log`` that of whoever starts the process."""
        self.file, self.log = folder / ERRORS, log
        self.errors, self.words = Tail(self.file), Tail(log)

    def why(self) -> str:
        """What is known of the death that was just seen, in one line."""
        said, words = exception_line(self.errors.lines()), last_line(self.words.lines())
        if said is not None:
            return f"{said}; the traceback is in {self.file}"
        if words is not None:
            return f"it left no traceback, as when it is killed, and {self.log} ends with {words!r}"
        return f"it left no traceback, as when it is killed, and nothing in {self.log}"


def exception_line(lines: Sequence[str]) -> str | None:
    """The line of the last traceback's exception: the first one after it that is not indented."""
    begins = [number for number, line in enumerate(lines) if line == TRACEBACK]
    after = (line for line in lines[begins[-1] + 1 :] if line and not line.startswith(" ")) if begins else iter(())
    return shortened(next(after, None))


def last_line(lines: Sequence[str]) -> str | None:
    """The last one that is not empty."""
    return shortened(next((line.strip() for line in reversed(lines) if line.strip()), None))


def shortened(text: str | None) -> str | None:
    """A line as a terminal may show it."""
    if text is None or len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]} ..."
