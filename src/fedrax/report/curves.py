"""Learning curves: one seed's evaluations over a chosen cost, and a group's aggregate with its interval."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from fedrax.errors import unknown
from fedrax.evaluation.statistics import Statistic, iqm, mean, stratified_bootstrap
from fedrax.records.rows import Row
from fedrax.report.runs import Group, History

Vector = npt.NDArray[np.float64]

STATISTICS: dict[str, tuple[str, Statistic]] = {"iqm": ("IQM", iqm), "mean": ("mean", mean)}
"""Aggregates over seeds: name -> (what a figure calls it, function)."""


NEAR, MOSTLY = 0.005, 0.95
"""Lines coincide that are no further apart than this share of the range, at this share of their points."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """A cost that a return can be plotted against."""

    label: str
    """With its unit."""
    cost: Callable[[Row, History], float | None]
    """The cumulative cost at a row, or None where the row does not say."""


def column(name: str) -> Callable[[Row, History], float | None]:
    """Reads a column of ``metrics.jsonl``."""
    return lambda row, history: row.get(name)


def rounds_done(row: Row, history: History) -> float | None:
    """Rounds up to and with this row's, which is numbered from 0."""
    return None if row.get("round") is None else row["round"] + 1


def steps_per_agent(row: Row, history: History) -> float | None:
    """Environment steps of all agents over the number of agents."""
    steps = row.get("agent_steps")
    return None if steps is None or not history.agents else steps / history.agents


def _traffic(row: Row, history: History) -> float | None:
    up, down = row.get("bytes_up"), row.get("bytes_down")
    return None if up is None or down is None else up + down


AXES: dict[str, Axis] = {
    "trajectories": Axis("trajectories per agent (reference count)", column("trajectories")),
    "round": Axis("rounds", rounds_done),
    "steps_per_agent": Axis("environment steps per agent", steps_per_agent),
    "total_steps": Axis("environment steps, all agents and server", column("total_steps")),
    "bytes": Axis("bytes sent and received per agent", _traffic),
    "bytes_mesh": Axis("bytes sent per agent in a mesh", column("bytes_mesh")),
    "seconds": Axis("training time, s", column("seconds")),
}


@dataclasses.dataclass(frozen=True)
class SeedCurve:
    """One seed's evaluations: ``x`` and ``y`` of equal length, ``x`` not decreasing."""

    seed: int
    x: Vector
    y: Vector

    def at(self, grid: npt.ArrayLike) -> Vector:
        """The last evaluation at or before each grid point; NaN before the first and beyond the last one."""
        points = np.asarray(grid, dtype=np.float64)
        held = np.full(points.shape, np.nan)
        if self.x.size:
            index = np.searchsorted(self.x, points, side="right") - 1
            inside = (index >= 0) & (points <= self.x[-1])
            held[inside] = self.y[index[inside]]
        return held


@dataclasses.dataclass(frozen=True)
class Curve:
    """A group's aggregate over the costs that every seed has reached."""

    label: str
    seeds: tuple[SeedCurve, ...]
    x: Vector
    centre: Vector
    low: Vector
    """NaN throughout with one seed."""
    high: Vector
    statistic: str
    """A key of :data:`STATISTICS`."""
    smoothing: int
    """Evaluations in the trailing mean; 1 for none."""


def axis_of(name: str) -> Axis:
    """The axis by name, or a :class:`FedraxError` naming the nearest one."""
    if name not in AXES:
        raise unknown("x-axis", name, AXES)
    return AXES[name]


def seed_curve(history: History, x: str, value: str = "return", smoothing: int = 1) -> SeedCurve:
    """The rounds of a seed in which both ``x`` and ``value`` were recorded.

    Args:
        history: one seed's rows.
        x: a key of :data:`AXES`.
        value: a column of ``metrics.jsonl``; null means not a number.
        smoothing: mean over this many trailing evaluations, fewer at the start.
    """
    axis = axis_of(x)
    pairs = [
        (cost, np.nan if row[value] is None else row[value])
        for row in history.rows
        if value in row and (cost := axis.cost(row, history)) is not None
    ]
    points = np.asarray(pairs, dtype=np.float64).reshape(-1, 2)
    return SeedCurve(history.seed, points[:, 0], trailing(points[:, 1], smoothing))


def trailing(values: Vector, count: int) -> Vector:
    """The mean over so many trailing values, fewer at the start."""
    if count < 2:
        return values
    return np.array([values[max(0, end - count) : end].mean() for end in range(1, len(values) + 1)])


def summarise(
    group: Group,
    x: str = "trajectories",
    value: str = "return",
    statistic: str = "iqm",
    smoothing: int = 1,
    points: int = 300,
) -> Curve:
    """The aggregate of a group's seeds with its 95 % stratified-bootstrap interval.

    Seeds are held at their last evaluation, never interpolated, and the aggregate ends where the first seed
    ends: beyond, it would be that of other seeds. Seeds without an evaluation are left out.

    Args:
        group: runs of one configuration.
        x: a key of :data:`AXES`.
        value: a column of ``metrics.jsonl``.
        statistic: a key of :data:`STATISTICS`.
        smoothing: trailing evaluations averaged per seed.
        points: the most grid points; with fewer evaluations the grid is the evaluations themselves.
    """
    if statistic not in STATISTICS:
        raise unknown("statistic", statistic, STATISTICS)
    seeds = tuple(curve for history in group.histories if (curve := seed_curve(history, x, value, smoothing)).x.size)
    grid = _common_grid(seeds, points)
    empty = np.empty(0)
    if not grid.size:
        return Curve(group.label, seeds, empty, empty, empty, empty, statistic, smoothing)
    scores = np.stack([seed.at(grid) for seed in seeds], axis=-1)[..., None]
    aggregate = STATISTICS[statistic][1]
    low, high = stratified_bootstrap(scores, aggregate)
    return Curve(group.label, seeds, grid, aggregate(scores), low, high, statistic, smoothing)


def coinciding(curves: Sequence[Curve]) -> dict[str, list[str]]:
    """Labels of curves that lie upon earlier ones, with these: almost always nearer than a 200th of the range."""
    known = [curve for curve in curves if curve.x.size > 1]
    heights = np.concatenate([curve.centre[np.isfinite(curve.centre)] for curve in known] or [np.empty(0)])
    if not heights.size:
        return {}
    close = NEAR * float(np.ptp(heights))
    found: dict[str, list[str]] = {}
    for place, curve in enumerate(known):
        for other in known[:place]:
            theirs = SeedCurve(0, other.x, other.centre).at(curve.x)
            both = np.isfinite(curve.centre) & np.isfinite(theirs)
            if both.sum() > 1 and (np.abs(curve.centre - theirs)[both] <= close).mean() >= MOSTLY:
                found.setdefault(curve.label, []).append(other.label)
    return found


def aggregate_at(
    group: Group, at: Sequence[float], x: str = "trajectories", value: str = "return", statistic: str = "iqm"
) -> tuple[Vector, Vector, Vector]:
    """``(centre, low, high)`` at given costs, each ``[len(at)]``; NaN where some seed has no value."""
    seeds = [curve for history in group.histories if (curve := seed_curve(history, x, value)).x.size]
    if not seeds:
        nothing = np.full(len(at), np.nan)
        return nothing, nothing, nothing
    scores = np.stack([seed.at(at) for seed in seeds], axis=-1)[..., None]
    aggregate = STATISTICS[statistic][1]
    return aggregate(scores), *stratified_bootstrap(scores, aggregate)


def natural_axis(groups: Sequence[Group]) -> str:
    """The axis to compare over first: steps per agent where every run's budget counts them, else trajectories."""
    budgets = [run.config.get("budget", {}) for group in groups for run in group.runs]
    counts_steps = bool(budgets) and all(budget.get("steps_per_agent", "none") != "none" for budget in budgets)
    return "steps_per_agent" if counts_steps else "trajectories"


def available_axes(groups: Sequence[Group], value: str = "return") -> list[str]:
    """The axes for which at least one seed has recorded ``value``: the natural one, then the order of :data:`AXES`."""
    first = natural_axis(groups)
    return [
        name
        for name in (first, *(other for other in AXES if other != first))
        if any(seed_curve(history, name, value).x.size for group in groups for history in group.histories)
    ]


def _common_grid(seeds: Sequence[SeedCurve], points: int) -> Vector:
    """Costs between the latest first and the earliest last evaluation, at most ``points`` of them."""
    if not seeds:
        return np.empty(0)
    start = max(seed.x[0] for seed in seeds)
    end = min(seed.x[-1] for seed in seeds)
    evaluations = np.unique(np.concatenate([seed.x for seed in seeds]))
    evaluations = evaluations[(evaluations >= start) & (evaluations <= end)]
    return evaluations if evaluations.size <= points else np.linspace(start, end, points)


def final_scores(group: Group, value: str = "return") -> Vector:
    """Each seed's last evaluation, ``[seeds]``; seeds that were never evaluated are left out."""
    return np.array([scores[-1] for scores in _evaluations(group, value)])


def best_scores(group: Group, value: str = "return") -> Vector:
    """Each seed's highest evaluation, ``[seeds]``: biased upwards, being a maximum over noisy evaluations."""
    return np.array([np.nan if np.isnan(scores).all() else np.nanmax(scores) for scores in _evaluations(group, value)])


def evaluated_seeds(group: Group, value: str = "return") -> list[int]:
    """The seeds that :func:`final_scores` and :func:`best_scores` are of."""
    return [curve.seed for history in group.histories if (curve := seed_curve(history, "round", value)).y.size]


def counted(group: Group, value: str = "return") -> tuple[History, ...]:
    """The histories that a line's numbers are of: of its evaluated seeds, or of all where none was evaluated."""
    seeds = evaluated_seeds(group, value)
    return tuple(history for history in group.histories if history.seed in seeds) or group.histories


def _evaluations(group: Group, value: str) -> list[Vector]:
    curves = (seed_curve(history, "round", value) for history in group.histories)
    return [curve.y for curve in curves if curve.y.size]
