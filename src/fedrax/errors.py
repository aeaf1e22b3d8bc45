"""Errors that a user can act on.

Every error the package raises on purpose is one line that says what was wrong, what is allowed and what to do.
The command line prints it without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FedraxError(ValueError):
    """A mistake a user can mend: its text is one line, and the command line prints it without a traceback."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` for the allowed name closest to ``name``, or the empty string."""
    found = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return f" (did you mean {found[0]!r}?)" if found else ""


def unknown(what: str, name: str, allowed: Iterable[str]) -> FedraxError:
    """The error for a name that is none of ``allowed``: names the nearest one, and lists them all."""
    names = sorted(allowed)
    return FedraxError(f"unknown {what} {name!r}{nearest(name, names)}; allowed: {', '.join(names)}")
