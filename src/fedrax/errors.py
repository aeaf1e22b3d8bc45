"""Errors that a user can act on.

Every error the package raises on purpose is one line that says what was wrong, what is allowed and what to do.
The command line prints it without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST, SOME = 40, 8
"""Names that are listed whole, and those that are listed of more."""
LONGEST = 120
"""Characters shown of a value."""
LONGEST_TEXT = 1200
"""Characters of an error."""


class FedraxError(ValueError):
    """A mistake a user can mend: its text is one line, and the command line prints it without a traceback.

    A long text loses its middle: what was wrong comes first, what to do last.
    """

    def __init__(self, text: str) -> None:
        half = LONGEST_TEXT // 2
        super().__init__(text if len(text) <= LONGEST_TEXT else f"{text[:half]} ... {text[-half:]}")


def nearest(name: str, allowed: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` for the allowed name closest to ``name``, or the empty string."""
    found = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return f" (did you mean {found[0]!r}?)" if found else ""


def unknown(what: str, name: str, allowed: Iterable[str]) -> FedraxError:
    """The error for a name that is none of ``allowed``: names the nearest one, and lists them, or so many of them."""
    names = sorted(allowed)
    if len(names) <= MOST:
        listed = ", ".join(names)
    else:
        near = difflib.get_close_matches(name, names, n=SOME, cutoff=0.3) or names[:SOME]
        listed = f"{', '.join(near)} and {len(names) - len(near)} others (fedrax list)"
    return FedraxError(f"unknown {what} {shown(name)}{nearest(name, names)}; allowed: {listed}")


def shown(value: object) -> str:
    """What somebody gave, on one line, and no longer than what helps to find it."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text)} characters)"
