"""How tables for a paper write names, numbers and what must be known of them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from fedrax.report.tables import FEW, Estimate, Result

STATISTIC = "iqm"
"""Of the seeds."""
DAGGER = r"$^\dagger$"
"""Behind the name or the number of what is unfinished, in LaTeX."""
SIGNS = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--"}
"""What LaTeX writes otherwise than with a backslash before it."""


NEGATIVE = re.compile(r"(?<![\w.-])-(?:inf|\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?)")
"""A negative number as tables write it, and not a hyphen of a name."""


def latex(text: str) -> str:
    """The text as LaTeX shows it."""
    return "".join(SIGNS.get(sign, f"\\{sign}" if sign in "&%$#_{}" else sign) for sign in text)


def latex_numbers(text: str) -> str:
    """Numbers as LaTeX shows them: negative ones in math mode, where a hyphen is a minus sign."""
    return NEGATIVE.sub(lambda found: f"${found[0].replace(',', '{,}')}$", latex(text))


def latex_notes(lines: Sequence[Result], columns: int, *first: str) -> list[str]:
    """What the table's reader must know of its results, as the page's notes say it: a row each, over all columns."""
    notes = list(first)
    if any(not line.finished for line in lines):
        notes.append(f"{DAGGER} unfinished: as far as recorded")
    if any(line.seeds != line.begun for line in lines):
        notes.append("lines are of the seeds that were evaluated")
    if any(1 < line.seeds < FEW for line in lines):
        notes.append(latex(f"[95 %]: bootstrap over seeds, too narrow with fewer than {FEW} seeds"))
    return [rf"\multicolumn{{{columns}}}{{l}}{{\footnotesize {note}}} \\" for note in notes]


def numbers(estimate: Estimate) -> tuple[float, float, float]:
    """The value and its interval."""
    return estimate.value, estimate.low, estimate.high


def cell(value: float) -> str:
    """Six digits, for CSV; empty where there is none."""
    return "" if math.isnan(value) else f"{value:.6g}"
