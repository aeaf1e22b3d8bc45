"""Charts of the page as data: what ``templates/charts.js`` draws, in tables that become JSON.

A chart has choices ``x`` and ``y``, pairs of name and label; the first of each is shown. Its ``groups`` have a
``label``, a ``colour`` and a number of ``dash``es, and one of

- ``seeds``: evaluations of each seed, ``x`` and ``y`` by name, which the page aggregates as :mod:`.curves` does, with
  the resamples of the chart's ``draws``;
- ``axis``, ``x``, ``y``: points over one of the choices of x, such as published ones;
- ``values``: by name of any choice; points of agents have ``names`` beside them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedrax.evaluation.statistics import resampled
from fedrax.records.rows import Row
from fedrax.report.curves import AXES, Vector, available_axes, trailing
from fedrax.report.palette import PALETTE
from fedrax.report.published import Series
from fedrax.report.runs import Group, History
from fedrax.report.style import colour

Chart = dict[str, Any]

VALUES = {
    "return": "evaluation return",
    "return_worst": "return of the worst agent",
    "success": "success in any step",
    "success_last": "success in the last step",
    "success_share": "share of steps at the goal",
    "success_worst": "success of the worst agent in any step",
    "success_last_worst": "success of the worst agent in the last step",
    "return_before": "return of agents before networks arrive",
    "return_after": "return of agents after networks arrived",
    "success_last_before": "success in the last step before networks arrive",
    "success_last_after": "success in the last step after networks arrived",
}
"""Columns of an evaluation that can be chosen, and what the axis says of them."""
MOST_POINTS, LEAST_OF_SEED = 16_000, 40
"""Evaluations of a chart, and those that each seed may have at least: a page of them has some hundred kilobytes."""


def curves_chart(
    groups: Sequence[Group],
    published: Mapping[str, Series],
    *,
    statistic: str,
    smoothing: int,
) -> Chart:
    """Evaluations of every seed over every recorded cost, and published points.

    Where there are more than :data:`MOST_POINTS`, each seed has one evaluation of so many, and the last. They are then
    smoothed already, as the page would take means of others than the picture does, and offers none.
    """
    axes = available_axes(groups)
    histories = [history for group in groups for history in group.histories]
    most = max(LEAST_OF_SEED, MOST_POINTS // max(1, len(histories)))
    values = [name for name in VALUES if any(row.get(name) is not None for seed in histories for row in seed.rows)]
    thinned = any(len(_evaluated(history)) > most for history in histories)
    before = smoothing if thinned else 1
    colours = {label: place for place, label in enumerate(dict.fromkeys([*(g.label for g in groups), *published]))}
    lines: list[Chart] = [
        {
            **look(group.label, colours[group.label]),
            "seeds": [_seed(history, axes, values, most, before) for history in group.histories],
        }
        for group in groups
    ]
    for label, series in published.items():
        lines.append(
            {
                **look(f"{label}, published (read off)", colours[label], dash=1),
                "axis": series.axis,
                "x": list(series.x),
                "y": list(series.y),
                "marked": True,
            }
        )
    return {
        "kind": "curves",
        "x": [(name, AXES[name].label) for name in axes],
        "y": [(name, VALUES[name]) for name in values or ["return"]],
        "statistic": statistic,
        "smoothing": 1 if thinned else smoothing,
        "thinned": thinned,
        "fromZero": True,
        "draws": {str(count): _draws(count) for count in sorted(_counts(lines, axes, values)) if count > 1},
        "groups": lines,
    }


def _counts(lines: Sequence[Chart], axes: Sequence[str], values: Sequence[str]) -> set[int]:
    """How many seeds of a line have a value over an axis, for whichever are chosen."""
    return {
        sum(axis in seed["x"] and value in seed["y"] for seed in line["seeds"])
        for line in lines
        if "seeds" in line
        for axis in axes
        for value in values
    }


def _draws(seeds: int) -> str:
    """How often each of so many seeds is in each resample of the tables' bootstrap, a byte each, row by row: base64.

    A page that drew others would have two intervals of one number.
    """
    drawn = resampled(seeds)[:, :, 0]
    counts = np.zeros(drawn.shape, np.uint8)
    np.add.at(counts, (np.arange(len(drawn))[:, None], drawn), 1)
    return base64.b64encode(counts.tobytes()).decode()


def lines_chart(
    x: str, y: str, lines: Mapping[str, Mapping[str, Any]], bounds: tuple[float, float] | None = None
) -> Chart:
    """Lines that are aggregates already: by label, ``x`` and ``y``, and ``low`` and ``high`` where there is a band.

    ``held`` lines keep a value up to the next. The y-axis has these ``bounds``, where they are given.
    """
    return {
        "kind": "lines",
        "x": [("x", x)],
        "y": [("y", y)],
        **({} if bounds is None else {"range": bounds}),
        "groups": [
            {**look(label, place), "axis": "x", **{key: _plain(value) for key, value in line.items()}}
            for place, (label, line) in enumerate(lines.items())
        ],
    }


def values_chart(x: str, y: Mapping[str, str], groups: Mapping[str, Mapping[str, Sequence[float]]]) -> Chart:
    """A line of each group, of which the value can be chosen: over its ``x``, by the names of ``y``.

    A group without one of the values has no line there; NaN are gaps.
    """
    return {
        "kind": "lines",
        "x": [("x", x)],
        "y": list(y.items()),
        "groups": [
            {**look(label, place), "values": {key: _plain(each) for key, each in values.items()}}
            for place, (label, values) in enumerate(groups.items())
        ],
    }


def points_chart(
    x: Mapping[str, str],
    y: Mapping[str, str],
    groups: Mapping[str, Mapping[str, Sequence[float]]],
    names: Sequence[str],
) -> Chart:
    """A point of each of ``names`` in every group, which holds values by the names of the choices ``x`` and ``y``."""
    return {
        "kind": "points",
        "x": list(x.items()),
        "y": list(y.items()),
        "groups": [
            {**look(label, place), "values": {key: _plain(each) for key, each in values.items()}, "names": list(names)}
            for place, (label, values) in enumerate(groups.items())
        ],
    }


def look(label: str, place: int, dash: int = 0) -> Chart:
    """Label and colour of the ``place``-th line; dashed, once the colours repeat."""
    tint = "var(--series-0)" if place % len(PALETTE) == 0 else colour(place)
    return {"label": label, "colour": tint, "dash": dash or place // len(PALETTE)}


def _evaluated(history: History) -> list[Row]:
    return [row for row in history.rows if "return" in row]


def _seed(history: History, axes: Sequence[str], values: Sequence[str], most: int, smoothing: int) -> Chart:
    rows = _evaluated(history)
    step = -(-len(rows) // most) if rows else 1
    # Counted from the end, so that the last evaluation is among them.
    kept = slice((len(rows) - 1) % step, None, step)
    costs = {name: [AXES[name].cost(row, history) for row in rows[kept]] for name in axes}
    return {
        "seed": history.seed,
        "x": {name: _progression(cost) for name, cost in costs.items() if any(x is not None for x in cost)},
        "y": {
            name: [_rounded(value) for value in _smoothed([row.get(name) for row in rows], smoothing)[kept]]
            for name in values
            if any(row.get(name) is not None for row in rows[kept])
        },
    }


def _smoothed(values: list[float | None], count: int) -> list[float | None]:
    return values if count < 2 else list(trailing(np.array(values, np.float64), count))


def _progression(costs: Sequence[float | None]) -> Any:
    """The costs, or where they are equally spaced their first, distance and number: a tenth of the page."""
    if len(costs) > 3 and all(isinstance(cost, int) for cost in costs):
        whole = [int(cost) for cost in costs if cost is not None]
        apart = set(np.diff(whole).tolist())
        if len(apart) == 1:
            return {"from": whole[0], "by": apart.pop(), "count": len(whole)}
    return [_rounded(cost) for cost in costs]


def _rounded(value: float | None) -> float | None:
    """Six significant digits, which is finer than any screen."""
    if value is None or isinstance(value, int):
        return value
    return float(f"{value:.6g}")


def _plain(values: Any) -> Any:
    if isinstance(values, (bool, int)):
        return values
    numbers: Vector = np.asarray(values, dtype=np.float64)
    return [_rounded(float(value)) for value in numbers]
