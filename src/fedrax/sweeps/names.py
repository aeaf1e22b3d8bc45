"""What setups may be called: each name is that of a folder, beside what a sweep and its reports write."""

from __future__ import annotations

import re
from pathlib import Path

from fedrax.errors import FedraxError, shown
from fedrax.records.files import ERRORS
from fedrax.records.rundir import SWEEP

SEARCH = "search.json"
"""What a search writes into its folder: its trials, and what they came to."""
DAMAGED = "sweep.damaged.json"
"""A record of a sweep that could not be read whole, once another one is written."""
OWN = frozenset({SWEEP, SEARCH, DAMAGED, ERRORS})
REPORT = re.compile(r"report(-\d+)?\.(html|pdf|svg|png)")
"""What ``fedrax report`` writes into the folder of a sweep, where it is told no other place."""
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,+=-]*")
LONGEST = 255
"""Characters of a folder's name: what Linux, macOS and Windows allow."""


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
    if name.lower() in OWN or REPORT.fullmatch(name.lower()):
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
