"""What a command may say of anything that it is given."""

from __future__ import annotations

import time

from fedrax.cli import main

LINES, CHARACTERS, SECONDS = 8, 1500, 20


def status_of(arguments: list[str], capsys) -> int:
    """The exit status of a command, whose words are few, on purpose, and soon said."""
    capsys.readouterr()
    started = time.monotonic()
    try:
        status = main(arguments)
    except SystemExit as error:  # argparse's way out
        status = error.code
    seconds = time.monotonic() - started
    said = capsys.readouterr().err
    shown = f"{[word[:200] for word in arguments]}: {status}, {said[:1000]}"
    assert status in (0, 1, 2), shown
    assert "Traceback" not in said, shown
    assert "please report" not in said, shown
    assert status == 0 or said.strip(), f"nothing said of {shown}"
    assert len(said.strip().splitlines()) <= LINES, shown
    assert len(said) <= CHARACTERS, shown
    assert seconds <= SECONDS, f"{seconds:.0f} s for {shown}"
    return status
