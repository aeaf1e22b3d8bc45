"""What setups may be called: each name is that of a folder, beside what a sweep and its reports write."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from fedrax.errors import FedraxError, shown
from fedrax.records.files import ERRORS
from fedrax.records.rundir import SWEEP

SEARCH = "search.json"
"""What a search writes into its folder: its trials, and what they came to."""
OWN = frozenset({SWEEP, SEARCH, ERRORS})
NUMBERED = re.compile(r"report(-\d+)?\.(html|pdf|svg|png)|sweep\.damaged(-\d+)?\.json")
"""What ``fedrax report`` writes into the folder of a sweep, where it is told no other place, and :func:`damaged`."""
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,+=-]*")
LONGEST = 255
"""Characters of a folder's name: what Linux, macOS and Windows allow."""


def damaged(out: Path) -> Path:
    """Where a record of a sweep that could not be read whole is kept, once another one is written: a free name."""
    paths = (out / f"sweep.damaged{'' if count == 1 else f'-{count}'}.json" for count in itertools.count(1))
    return next(path for path in paths if not path.exists())


def check_name(name: str, out: Path) -> None:
    """Refuses a name of which no folder in ``out`` can be, or none that leaves a sweep's own files their names.

    Raises:
        FedraxError: one line that says which.
    """
    if not NAME.fullmatch(name):
        raise FedraxError(
            f"{shown(name)} cannot be a setup's name: it names a folder, so use letters, digits and _.,+=-"
        )
    if len(name) > LONGEST:
        raise FedraxError(
            f"{shown(name)} cannot be a setup's name: it names a folder, so at most {LONGEST} characters are allowed; "
            "shorten it, or give the values of the grid in setups of their own"
        )
    # A file system may not tell capitals apart.
    if name.lower() in OWN or NUMBERED.fullmatch(name.lower()):
        raise FedraxError(
            f"{name!r} cannot be a setup's name: {out / name.lower()} is a file of the sweep or of its report; give it "
            "another name"
        )
    folder = out / name
    if folder.exists() and not folder.is_dir():
        raise FedraxError(
            f"{name!r} cannot be a setup's name: {folder} is a file, where its runs need a folder; move it away, or "
            "give the setup another name"
        )
