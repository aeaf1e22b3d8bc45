"""Errors that a user can act on.

Every error the package raises on purpose is one line that says what was wrong, what is allowed and what to do.
The command line prints it without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LIKELY = 0.66
"""Least similarity of a misspelling, by :func:`difflib.SequenceMatcher.ratio`: two of three letters in their order."""
SLIPS = 3
"""Characters that a misspelling has too many or too few at most: "nonsense" is no misspelling of "none"."""
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

    A long text loses its middle: what was wrong comes first, what to do last. Line breaks, as a path may have, are
    written as in Python.
    """

    def __init__(self, text: str) -> None:
        half = LONGEST_TEXT // 2
        text = "".join(x if x.isprintable() else repr(x)[1:-1] for x in text)
        super().__init__(text if len(text) <= LONGEST_TEXT else f"{text[:half]} ... {text[-half:]}")


def near(name: str, allowed: Iterable[str]) -> list[str]:
    """Those of ``allowed`` that ``name`` is likely a misspelling or the beginning of, the closest first."""
    names = list(allowed)
    alike = [each for each in names if abs(len(each) - len(name)) <= SLIPS]
    close = difflib.get_close_matches(name, alike, n=SOME, cutoff=LIKELY)
    return list(dict.fromkeys([*close, *(each for each in names if len(name) > 2 and each.startswith(name))]))[:SOME]


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
