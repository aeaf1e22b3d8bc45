"""What runs reached and what it cost, as numbers with their intervals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from fedrax.evaluation.statistics import stratified_bootstrap
from fedrax.records.rows import Row
from fedrax.report.curves import (
    STATISTICS,
    Vector,
    best_scores,
    column,
    counted,
    evaluated_seeds,
    final_scores,
    rounds_done,
    steps_per_agent,
)
from fedrax.report.runs import Group, History

MISSING = "–"
TINY = 1e-4
"""Below it a number is written with a power of ten."""
FEW = 5
"""Seeds from which on a bootstrap interval is about as wide as it should be."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """An aggregate over seeds with its 95 % stratified-bootstrap interval, NaN where undefined."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, scores: Vector, statistic: str) -> Estimate:
        """The aggregate of ``scores[seeds]``; all NaN without a seed."""
        if not scores.size:
            return cls(math.nan, math.nan, math.nan)
        aggregate = STATISTICS[statistic][1]
        low, high = stratified_bootstrap(scores, aggregate)
        return cls(float(aggregate(scores)), float(low), float(high))

    def __str__(self) -> str:
        """``478 [470, 485]``, or the value alone where one seed leaves the interval undefined."""
        (text,) = estimates([self])
        return text


@dataclasses.dataclass(frozen=True)
class Result:
    """One group's line of the result table."""

    label: str
    seeds: int
    """Those that were evaluated, on which all numbers of the line rest."""
    begun: int
    """Those that were begun."""
    finished: bool
    final: Estimate
    best: Estimate
    each: tuple[tuple[int, float, float], ...]
    """Every evaluated seed with its final and its best value."""

    @property
    def counted(self) -> str:
        """``2``, or ``1 of 2`` where some seed has no evaluation yet."""
        return counted_of(self.seeds, self.begun)


def counted_of(seeds: int, begun: int) -> str:
    """``2``, or ``1 of 2`` where not all count."""
    return str(seeds) if seeds == begun else f"{seeds} of {begun}"


def number(value: float) -> str:
    """Four significant digits or all digits before the point; a dash for NaN."""
    if math.isnan(value):
        return MISSING
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def alike(*values: float) -> list[str]:
    """Numbers as :func:`number` has them, all with as many digits after the point as one of them needs.

    They are no more than make four significant digits of the largest. Numbers that are all tiny stay as they are.
    """
    texts = [number(value) for value in values]
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if 0 < largest < TINY:
        return texts
    most = max(0, 3 - math.floor(math.log10(largest))) if largest > 0 else 0
    digits = min(most, max((most if "e" in text else len(text.partition(".")[2]) for text in texts), default=0))
    return [f"{value:,.{digits}f}" if math.isfinite(value) else text for value, text in zip(values, texts, strict=True)]


def columns_alike(columns: Sequence[Sequence[float]]) -> list[list[str]]:
    """The cells of columns of one quantity: all with as many digits, so that they compare across columns too."""
    texts = iter(alike(*(value for column in columns for value in column)))
    return [[next(texts) for _ in column] for column in columns]


def estimates(column: Sequence[Estimate]) -> list[str]:
    """The cells of one column: all numbers of it have as many digits after the point, as :func:`alike` has them."""
    whole = [not math.isnan(one.low) and not math.isnan(one.high) for one in column]
    kept = [(one.value, one.low, one.high) if each else (one.value,) for one, each in zip(column, whole, strict=True)]
    texts = iter(alike(*(value for values in kept for value in values)))
    return [f"{next(texts)} [{next(texts)}, {next(texts)}]" if each else next(texts) for each in whole]


def significant(value: float) -> str:
    """Three significant digits, zeros at the end too; all digits before the point."""
    if value >= 999.5:
        return f"{value:,.0f}"
    return f"{value:#.3g}".removesuffix(".") if value else "0"


def bytes_text(value: float) -> str:
    """``1.06 MB``; decimal units. Whole bytes are exact."""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5 or unit == "GB":
            break
        value /= 1000
    return f"{value:.3g} B" if unit == "B" else f"{significant(value)} {unit}"


def duration(seconds: float) -> str:
    """``0.420 s``, ``1 min 12 s`` or ``2 h 5 min``."""
    if seconds < 59.95:
        return f"{significant(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


COSTS: dict[str, tuple[Callable[[Row, History], float | None], Callable[[float], str]]] = {
    "rounds": (rounds_done, number),
    "trajectories per agent (reference count)": (column("trajectories"), number),
    "trajectories, all": (column("total_trajectories"), number),
    "steps per agent": (steps_per_agent, number),
    "steps, all": (column("total_steps"), number),
    "gradient steps": (column("gradient_steps"), number),
    "up per agent": (column("bytes_up"), bytes_text),
    "down per agent": (column("bytes_down"), bytes_text),
    "per agent in a mesh": (column("bytes_mesh"), bytes_text),
    "training time": (column("seconds"), duration),
}
"""Heading -> (the cumulative cost at a row, how to write it)."""


def mean_costs(group: Group) -> dict[str, float]:
    """By heading of :data:`COSTS`, the means over the seeds that count (:func:`counted`) and recorded it."""
    costs = {}
    for heading, (cost, _) in COSTS.items():
        spent = [cost(history.rows[-1], history) for history in counted(group) if history.rows]
        known = [amount for amount in spent if amount is not None]
        if known:
            costs[heading] = float(np.mean(known))
    return costs


def cost_table(groups: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    """Headings and lines: each group's mean costs with their units, of those that some group recorded."""
    spent = [mean_costs(group) for group in groups]
    headings = [heading for heading in COSTS if any(heading in costs for costs in spent)]
    columns = []
    for heading in headings:
        write = COSTS[heading][1]
        known = [costs.get(heading, math.nan) for costs in spent]
        each = [MISSING if math.isnan(cost) else write(cost) for cost in known]
        columns.append(alike(*known) if write is number else each)
    return ["", *headings], [list(line) for line in zip([group.label for group in groups], *columns, strict=True)]


def result(group: Group, statistic: str = "iqm", value: str = "return") -> Result:
    """Final and best ``value`` of a group's seeds, as far as they were recorded."""
    return Result(
        label=group.label,
        seeds=len(evaluated_seeds(group, value)),
        begun=len(group.seeds),
        finished=group.finished,
        final=Estimate.of(final_scores(group, value), statistic),
        best=Estimate.of(best_scores(group, value), statistic),
        each=tuple(
            zip(evaluated_seeds(group, value), final_scores(group, value), best_scores(group, value), strict=True)
        ),
    )
