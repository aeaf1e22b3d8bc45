"""How far training is, live: one line that changes on a terminal and in a notebook, lines now and then elsewhere.

What comes before the first round, compiling above all, has a clock of its own.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

import rich.console
import rich.progress
import rich.text

from fedrax.records.notebook import cell_line

PLAIN_SECONDS = 5.0
"""The least time between two plain lines, so that a log of a long run stays readable."""


class _Line(rich.progress.ProgressColumn):
    """The text of a task; while it waits for something, with the seconds that have passed."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock

    def render(self, task: rich.progress.Task) -> rich.text.Text:
        """One line."""
        since = task.fields["since"]
        passed = "" if since is None else f" {self._clock() - since:.0f} s"
        return rich.text.Text(f"{task.description}{passed}")


class Progress:
    """Shows ``round 120/305  return 471.2  5.1M steps/s  left 0:12``; a context manager.

    Rates and the time left count from the first update, without what is compiled later, so neither compiling nor, after
    a resume, earlier rounds distort them. At the end stands ``trained for 34.6 s``: ``seconds_train`` of the run's
    summary.
    """

    def __init__(
        self,
        total: float | None = None,
        unit: str = "round",
        terminal: bool | None = None,
        *,
        enabled: bool = True,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        compiling: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Prepares the display.

        Args:
            total: the budget, in ``unit``; unset, the line shows a percentage.
            unit: what the budget counts: ``round``, ``steps``, ``steps/agent`` or ``trajectories/agent``.
            terminal: whether to draw a moving line; unset, whether ``stream`` is a terminal.
            enabled: False shows nothing at all.
            stream: where to; standard output unless set.
            clock: seconds, from any origin.
            compiling: of these, seconds spent compiling so far; programs may compile when they are first met.
        """
        self._total, self._unit, self._enabled, self._clock = total, unit, enabled, clock
        self._compiling = compiling
        self._stream = sys.stdout if stream is None else stream
        self._first: tuple[float, float, float] | None = None
        self._line, self._printed, self._printed_at = "", "", -math.inf
        self._live: rich.progress.Progress | None = None
        # A cell shows what is printed to the process's own output.
        self._cell = cell_line() if enabled and stream is None and terminal is None else None
        if enabled and (self._stream.isatty() if terminal is None else terminal):
            self._live = rich.progress.Progress(
                rich.progress.BarColumn(bar_width=20),
                _Line(clock),
                console=rich.console.Console(file=self._stream, force_terminal=True),
            )
            self._task = self._live.add_task("starting", total=None, since=None)

    def wait(self, what: str) -> None:
        """Says what goes on until the next update, such as ``compiling``, and for how long it has; a log, that it does.

        A bar that moves to and fro stands for it.
        """
        if self._live is not None:
            self._live.update(self._task, total=None, description=what, since=self._clock(), refresh=True)
        elif self._cell is not None:
            self._cell.show(f"{what} ...")
        elif self._enabled:
            print(f"{what} ...", file=self._stream, flush=True)

    def update(
        self,
        *,
        fraction: float,
        round: int,
        evaluation: float = math.nan,
        evaluated: int = 0,
        steps: float = math.nan,
        seconds: float = math.nan,
    ) -> None:
        """Shows where training is. A log has a line for the end of the budget only when the evaluation there is done.

        Args:
            fraction: of the budget used, 0 to 1.
            round: rounds done.
            evaluation: the latest mean evaluation return (with several seeds, their mean); NaN when unknown.
            evaluated: after which round it was measured, where that is an earlier one; 0 where it is this one.
            steps: environment steps taken since the run began, all agents and seeds; NaN when unknown.
            seconds: ``seconds_train`` of the run so far, which is shown at its end; NaN when unknown.
        """
        now = self._clock()
        worked = now - self._compiling()
        if self._first is None:
            self._first = (worked, fraction, steps)
        self._line = self._describe(worked, fraction, round, _measured(evaluation, evaluated), steps, seconds)
        if self._live is not None:
            done = min(fraction, 1.0)
            self._live.update(self._task, total=1.0, completed=done, description=self._line, since=None)
        elif self._cell is not None:
            self._cell.show(self._line)
        elif fraction < 1 and now - self._printed_at >= PLAIN_SECONDS:
            self._printed_at = now
            self._print_line()

    def note(self, text: str) -> None:
        """Prints a line that stays, such as a warning, without disturbing the display."""
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
        elif self._enabled:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Leaves the last state standing."""
        if self._live is not None:
            self._live.stop()
        elif self._cell is not None:
            self._cell.show(self._line, last=True)
        else:
            self._print_line()

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _print_line(self) -> None:
        if self._enabled and self._line != self._printed:
            print(self._line, file=self._stream, flush=True)
            self._printed = self._line

    def _describe(self, worked: float, fraction: float, round: int, measured: str, steps: float, seconds: float) -> str:
        assert self._first is not None
        start, fraction_then, steps_then = self._first
        elapsed, gained = worked - start, fraction - fraction_then
        parts = [self._position(fraction, round)]
        if measured:
            parts.append(measured)
        if elapsed > 0 and steps > steps_then:
            parts.append(f"{short((steps - steps_then) / elapsed)} steps/s")
        if fraction >= 1:
            if math.isfinite(seconds):
                parts.append(f"trained for {seconds:,.1f} s")
        elif elapsed > 0 and gained > 0:
            parts.append(f"left {clock_time(elapsed * (1 - fraction) / gained)}")
        return "  ".join(parts)

    def _position(self, fraction: float, round: int) -> str:
        if self._total is None:
            return f"round {round}  {math.floor(100 * fraction)}%"
        if self._unit == "round":
            return f"round {round}/{self._total:.0f}"
        return f"round {round}  {self._unit} {short(fraction * self._total)}/{short(self._total)}"


def _measured(evaluation: float, evaluated: int) -> str:
    if not math.isfinite(evaluation):
        return ""
    return f"return {evaluation:.1f}" + (f" (round {evaluated})" if evaluated else "")


def short(number: float) -> str:
    """``number`` in at most four digits: ``950``, ``81.2k``, ``5.1M``, ``2.0G``."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= factor:
            return f"{number / (1e3 if letter == 'k' else factor):.1f}{letter}"
    return f"{number:.0f}"


def clock_time(seconds: float) -> str:
    """``m:ss``, or ``h:mm:ss`` from an hour on."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
