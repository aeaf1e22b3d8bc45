"""Errors that a user can act on.

Every error the package raises on purpose is one line that says what was wrong, what is allowed and what to do.
The command line prints it without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SOME = 8
"""Of many names, so many of the closest ones are listed."""
FEW = 12
"""Names that are listed whole."""
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


def near(name: str, allowed: Iterable[str]) -> list[str]:
    """Those of ``allowed`` that ``name`` may be a slip of the pen for, or the beginning of, the closest first.

    A slip are two letters, of a long name every third, and less than half of it.
    """

    def is_near(other: str) -> bool:
        most = min(max(2, len(name) // 3), (len(name) - 1) // 2)
        return (len(name) > 2 and other.startswith(name)) or _letters_apart(name, other, most) <= most

    close = difflib.get_close_matches(name, list(allowed), n=SOME, cutoff=0.5)
    return [other for other in close if is_near(other)]


def _letters_apart(one: str, other: str, most: int) -> int:
    """How many letters are to be put in, left out, replaced or swapped with the next; only more than ``most`` where
    there are."""
    if abs(len(one) - len(other)) > most:
        return most + 1
    before, row = list(range(len(other) + 1)), list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        last, before, row = before, row, [i, *([0] * len(other))]
        for j, wanted in enumerate(other, 1):
            row[j] = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                row[j] = min(row[j], last[j - 2] + 1)
    return row[-1]


def nearest(name: str, allowed: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` for the allowed name closest to ``name``, or the empty string."""
    found = near(name, allowed)
    return f" (did you mean {found[0]!r}?)" if found else ""


def suggestions(name: str, allowed: Iterable[str], see: str = "") -> str:
    """``" (did you mean 'x'?); allowed: x, y, z"``: all that is allowed, or of many names those closest to ``name``.

    ``see`` is a command that lists them all.
    """
    names = sorted(set(allowed))
    if len(names) <= FEW:
        return f"{nearest(name, names)}; allowed: {', '.join(names) or 'none'}"
    # Of names in many parts (`fedpg-br/cartpole`, `runtime.flower.quorum`) somebody may know one.
    parts = [each for each in names if name and name.lower() in each.lower()]
    more = f"; all: {see}" if see else ""
    if not parts and not near(name, names):
        return f"; {see} shows the {len(names)} there are" if see else _some(names)
    close = [*near(name, names), *parts, *difflib.get_close_matches(name, names, n=SOME, cutoff=0.5)]
    close = list(dict.fromkeys(close))[:SOME]
    return f"{nearest(name, names)}; allowed: {', '.join(close)} and {len(names) - len(close)} others{more}"


def _some(names: list[str]) -> str:
    return f"; there are {len(names)}, such as {', '.join(names[:3])}"


def unknown(what: str, name: str, allowed: Iterable[str], see: str = "") -> FedraxError:
    """The error for a name that is none of ``allowed``, with the :func:`suggestions` of it."""
    return FedraxError(f"unknown {what} {shown(name)}{suggestions(name, allowed, see)}")


def shown(value: object) -> str:
    """What somebody gave, on one line, and no longer than what helps to find it."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text)} characters)"
