"""Small parts of sentences."""

from __future__ import annotations


def counted(number: int, what: str) -> str:
    """``1 round``, ``2 rounds``: a number with the word for what it counts."""
    return f"{number:,} {what}{'s' * (number != 1)}"
