"""What a command may say of anything that it is given."""

from __future__ import annotations

import signal
import time

import hypothesis

from fedrax.cli import main

LINES, CHARACTERS, SECONDS = 8, 1500, 20
HUNG = 60
"""Seconds after which a command is not waited for."""


def many(count: int) -> hypothesis.settings:
    """So many examples, the same ones each time; those that fail are not made smaller, as each takes long."""
    return hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )


def status_of(arguments: list[str], capsys) -> int:
    """The exit status of a command, whose words are few, on purpose, and soon said."""
    capsys.readouterr()
    before = signal.signal(signal.SIGALRM, _hung)
    signal.alarm(HUNG)
    started = time.monotonic()
    try:
        status = main(arguments)
    except SystemExit as error:  # argparse's way out
        status = error.code
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    seconds = time.monotonic() - started
    said = capsys.readouterr().err
    shown = f"{[word[:200] for word in arguments]}: {status}, {said[:1000]}"
    assert status in (0, 1, 2), shown
    assert "Traceback" not in said, shown
    assert "the traceback is in" not in said, shown
    assert status == 0 or said.strip(), f"nothing said of {shown}"
    assert len(said.strip().splitlines()) <= LINES, shown
    assert len(said) <= CHARACTERS, shown
    assert seconds <= SECONDS, f"{seconds:.0f} s for {shown}"
    return status


def _hung(number: int, frame: object) -> None:
    raise TimeoutError(f"nothing for {HUNG} s")
