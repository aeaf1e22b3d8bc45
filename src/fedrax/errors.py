"""Errors that a user can act on.

Every error the package raises on purpose is one line that says what was wrong, what is allowed and what to do.
The command line prints it without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LIKELY, SURE = 0.66, 0.8
"""Least similarity of a misspelling by few slips, and by more, by :func:`difflib.SequenceMatcher.ratio`."""
SLIPS = 3
"""Characters, of both together, that are not in the other: "nothing" and "smoothing" have four, and are not SURE."""
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
        half, text = LONGEST_TEXT // 2, one_line(text)
        super().__init__(text if len(text) <= LONGEST_TEXT else f"{text[:half]} ... {text[-half:]}")


def one_line(text: str) -> str:
    """The text with what breaks lines or moves a terminal's cursor written as in Python."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def near(name: str, allowed: Iterable[str]) -> list[str]:
    """Those of ``allowed`` that ``name`` is likely a misspelling or the beginning of, the closest first.

    Case does not matter.
    """
    names = list(allowed)
    likeness = {each: _likeness(name.lower(), each.lower()) for each in names}
    # Of versions, which are equally like it, the newest first: CartPole-v1 before CartPole-v0.
    latest = sorted((each for each in likeness if likeness[each]), reverse=True)
    close = sorted(latest, key=lambda each: -likeness[each])[:SOME]
    begun = [each for each in names if len(name) > 2 and each.lower().startswith(name.lower())]
    return list(dict.fromkeys([*close, *begun]))[:SOME]


def _likeness(name: str, allowed: str) -> float:
    """The similarity of two names, between 0 and 1; 0 where one is no likely misspelling of the other."""
    matcher = difflib.SequenceMatcher(None, name, allowed)
    if matcher.real_quick_ratio() < LIKELY or matcher.quick_ratio() < LIKELY:
        return 0.0
    ratio = matcher.ratio()
    if ratio < SURE:
        slips = round((1 - ratio) * (len(name) + len(allowed)))
        # First letters are seldom wrong, though the first two may be swapped: "target" is no misspelling of "agent".
        if ratio < LIKELY or slips > SLIPS or name[0] not in allowed[:2] or allowed[0] not in name[:2]:
            return 0.0
    return ratio


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
        return f"; all {len(names)}: {see}" if see else _some(names)
    close = list(dict.fromkeys([*near(name, names), *parts]))[:SOME]
    return f"{nearest(name, names)}; allowed: {', '.join(close)} and {len(names) - len(close)} others{more}"


def _some(names: list[str]) -> str:
    return f"; there are {len(names)}, such as {', '.join(names[:3])}"


def unknown(what: str, name: str, allowed: Iterable[str], see: str = "") -> FedraxError:
    """The error for a name that is none of ``allowed``, with the :func:`suggestions` of it."""
    return FedraxError(f"unknown {what} {shown(name)}{suggestions(name, allowed, see)}")


def shown(value: object) -> str:
    """What somebody gave, on one line, and no longer than what helps to find it."""
    try:
        text = repr(value)
    except Exception:  # Nested too deeply, or of a class whose own method fails.
        text = f"a {type(value).__name__}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text)} characters)"


def shown_setting(value: object) -> str:
    """The same of a setting's value: ``none``, which is no text, stands for None as well."""
    return value if value == "none" and isinstance(value, str) else shown(value)
