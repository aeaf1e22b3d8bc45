"""Progress: self-contained lines in a log, one moving line on a terminal."""

from __future__ import annotations

import contextlib
import io
import math

import pytest

from fedrax.records.progress import Progress, clock_time, short


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_has_everything() -> None:
    clock, stream = Clock(), io.StringIO()
    with Progress(305, "round", stream=stream, clock=clock) as progress:
        progress.update(fraction=0.0, round=0, steps=0)
        clock.now += 8.0
        progress.update(fraction=0.4, round=120, evaluation=471.2, steps=40.8e6)
    assert stream.getvalue() == "round 0/305\nround 120/305  return 471.2  5.1M steps/s  left 0:12\n"


def test_a_return_of_an_earlier_round_is_shown_as_that() -> None:
    stream = io.StringIO()
    with Progress(20, stream=stream) as progress:
        progress.update(fraction=1.0, round=20, evaluation=9.4, evaluated=10)
    assert stream.getvalue() == "round 20/20  return 9.4 (round 10)\n"


def test_a_line_at_most_every_few_seconds_and_always_the_last() -> None:
    clock, stream = Clock(), io.StringIO()
    with Progress(20, stream=stream, clock=clock) as progress:
        for number in range(1, 21):
            progress.update(fraction=number / 20, round=number, seconds=0.5 * number)
            clock.now += 1.0
    lines = stream.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "round 1/20",
        "round 6/20",
        "round 11/20",
        "round 16/20",
        "round 20/20",
    ]
    assert lines[1] == "round 6/20  left 0:14"
    assert lines[-1] == "round 20/20  trained for 10.0 s"


def test_the_end_of_a_budget_is_one_line_after_its_evaluation() -> None:
    clock, stream = Clock(), io.StringIO()
    with Progress(5, stream=stream, clock=clock) as progress:
        for number in range(1, 6):
            clock.now += 10.0
            progress.update(fraction=number / 5, round=number, evaluation=-159.0, evaluated=4 if number == 5 else 0)
        clock.now += 10.0
        progress.update(fraction=1.0, round=5, evaluation=-158.0)
    assert [line.split("  ")[:2] for line in stream.getvalue().splitlines()[-2:]] == [
        ["round 4/5", "return -159.0"],
        ["round 5/5", "return -158.0"],
    ]


def test_a_failing_run_shows_how_far_it_got() -> None:
    clock, stream = Clock(), io.StringIO()
    with contextlib.suppress(ZeroDivisionError), Progress(20, stream=stream, clock=clock) as progress:
        progress.update(fraction=0.1, round=2)
        progress.update(fraction=0.2, round=4)
        raise ZeroDivisionError
    assert stream.getvalue() == "round 2/20\nround 4/20\n"


@pytest.mark.parametrize(
    ("total", "unit", "line"),
    [
        (None, "round", "round 12  25%"),
        (5000, "trajectories", "round 12  trajectories 1250/5000"),
        (4e6, "steps", "round 12  steps 1.0M/4.0M"),
    ],
)
def test_any_budget(total: float | None, unit: str, line: str) -> None:
    stream = io.StringIO()
    with Progress(total, unit, stream=stream, clock=Clock()) as progress:
        progress.update(fraction=0.25, round=12, evaluation=math.nan)
    assert stream.getvalue() == f"{line}\n"


def test_a_resumed_run_counts_only_its_own_time() -> None:
    clock, stream = Clock(), io.StringIO()
    with Progress(100, stream=stream, clock=clock) as progress:
        progress.update(fraction=0.9, round=90, steps=9e6)
        clock.now += 10.0
        progress.update(fraction=0.95, round=95, steps=9.5e6)
    assert stream.getvalue().splitlines()[-1] == "round 95/100  50.0k steps/s  left 0:10"


def test_neither_rates_nor_the_time_left_hold_what_is_compiled_between_rounds() -> None:
    """Programs of a host environment compile when they are first met: here for nine of ten seconds."""
    clock, stream, compiled = Clock(), io.StringIO(), [5.0]
    with Progress(10, stream=stream, clock=clock, compiling=lambda: compiled[0]) as progress:
        progress.update(fraction=0.1, round=1, steps=100)
        clock.now += 10.0
        compiled[0] += 9.0
        progress.update(fraction=0.2, round=2, steps=200)
    assert stream.getvalue().splitlines()[-1] == "round 2/10  100 steps/s  left 0:08"


def test_a_terminal_gets_one_moving_line_and_notes_above_it() -> None:
    clock, stream = Clock(), Terminal()
    with Progress(4, stream=stream, clock=clock) as progress:
        progress.update(fraction=0.5, round=2, evaluation=9.25)
        progress.note("round 2: excluded agents [3], whose messages could not be used")
        clock.now += 3.0
        progress.update(fraction=1.0, round=4, evaluation=20.0, seconds=1234.56)
    shown = stream.getvalue()
    assert "round 2: excluded agents [3], whose messages could not be used\n" in shown
    assert shown.rstrip().split("\r")[-1].count("round 4/4  return 20.0  trained for 1,234.6 s") == 1
    assert "\x1b[2K" in shown, "the line must be redrawn in place"


def test_what_comes_before_the_first_round_has_a_clock() -> None:
    clock, stream = Clock(), Terminal()
    with Progress(4, stream=stream, clock=clock) as progress:
        progress.wait("compiling")
        clock.now += 7.0
        assert progress._live is not None
        progress._live.refresh()  # As it does ten times a second.
        progress.update(fraction=0.25, round=1)
    shown = stream.getvalue()
    assert "compiling 0 s" in shown
    assert "compiling 7 s" in shown
    assert "compiling" not in shown.rstrip().split("\r")[-1]


def test_a_log_is_told_once_what_goes_on() -> None:
    clock, stream = Clock(), io.StringIO()
    with Progress(4, stream=stream, clock=clock) as progress:
        progress.wait("compiling")
        clock.now += 7.0
        progress.wait("compiled in 7.0 s; training rounds 1 to 2")
        progress.update(fraction=0.5, round=2)
    assert stream.getvalue() == "compiling ...\ncompiled in 7.0 s; training rounds 1 to 2 ...\nround 2/4\n"


def test_a_log_gets_notes_as_lines() -> None:
    stream = io.StringIO()
    with Progress(4, stream=stream) as progress:
        progress.note("a [warning]")
    assert stream.getvalue() == "a [warning]\n"


def test_disabled_shows_nothing() -> None:
    for stream in (io.StringIO(), Terminal()):
        with Progress(4, enabled=False, stream=stream) as progress:
            progress.wait("compiling")
            progress.update(fraction=1.0, round=4)
            progress.note("a warning")
        assert stream.getvalue() == ""


def test_numbers_and_times_are_short() -> None:
    numbers = (0, 950.4, 9999, 81_240, 999_000, 5.1e6, 2e9)
    assert [short(n) for n in numbers] == ["0", "950", "9999", "81.2k", "999.0k", "5.1M", "2.0G"]
    times = (0.4, 59.6, 754, 3600, 36_061)
    assert [clock_time(t) for t in times] == ["0:00", "1:00", "12:34", "1:00:00", "10:01:01"]
