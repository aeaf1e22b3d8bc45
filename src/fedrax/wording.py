"""Small parts of sentences."""

from __future__ import annotations

import inspect
import re

_ROLE = re.compile(r":(?:[a-z]+:)?[a-z]+:`(~?)\.?([^`]+?)(?:\s*<[^`>]*>)?`")
"""A reference in a docstring: ``:func:`~fedrax.message.packed` ``."""


def plain(text: str) -> str:
    """A docstring, or a part of one, as it is shown: without indentation, and references as the plain names."""

    def name(role: re.Match[str]) -> str:
        shortened, target = role.groups()
        return target.rpartition(".")[2] if shortened else target

    return _ROLE.sub(name, inspect.cleandoc(text))


def documentation(of: object) -> str:
    """What a component, a module or another object says of itself, :func:`plain`; empty where it says nothing."""
    return plain(of.__doc__ or "")


def counted(number: int, what: str) -> str:
    """``1 round``, ``2 rounds``: a number with the word for what it counts."""
    return f"{number:,} {what}{'s' * (number != 1)}"
