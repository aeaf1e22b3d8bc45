"""A process of a sweep that trains one run after the other: what it imported and compiled serves all of them.

It reads a line of JSON for every run, ``{"arguments": ["train", ...], "log": PATH}``, and writes lines to the open file
whose number it is given: ``compiled`` once the run's program exists, and then the exit status that the command would
have had. A run that crashes ends the process.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from pathlib import Path

from fedrax.cli import main
from fedrax.runtime.library import Programs
from fedrax.sweeps.attempts import COMPILED


def work(answers: int) -> None:
    """Until there are no more lines."""
    # Between two runs a request to stop ends the process without a word; within one, the command says what to do.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # What a run starts and leaves behind would keep the sweep's end open.
    os.set_inheritable(answers, False)
    library = Programs(lambda: _answer(answers, COMPILED))
    for line in sys.stdin:
        run = json.loads(line)
        _log_to(Path(run["log"]))
        status = main(run["arguments"], library=library)
        sys.stdout.flush()
        sys.stderr.flush()
        # Replays are large, and may be part of a circle.
        gc.collect()
        _answer(answers, str(status).encode())


def _answer(answers: int, line: bytes) -> None:
    os.write(answers, line + b"\n")


def _log_to(log: Path) -> None:
    with log.open("ab", buffering=0) as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())


if __name__ == "__main__":
    work(int(sys.argv[1]))
