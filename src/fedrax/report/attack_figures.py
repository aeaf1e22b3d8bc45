"""What attacks did: how well the filter found the attackers, and each rule's return under each attack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fedrax.aggregators.base import aggregators
from fedrax.report.charts import Chart, values_chart
from fedrax.report.curves import STATISTICS, Vector, counted, final_scores
from fedrax.report.maps import draw_map
from fedrax.report.palette import PALETTE
from fedrax.report.runs import Group
from fedrax.report.style import MUTED, colour, new_figure, styled
from fedrax.report.tables import Estimate, estimates

RULES = {0: "none: nobody accepted", 1: "first rule (R1)", 2: "second rule (R2)"}
"""What ``filter_rule`` counts: FedPG-BR's two radii, and its fallback."""
QUALITY = {"filter_recall": "recall", "filter_precision": "precision"}
"""Of finding Byzantine agents: columns of a round, and what figures call them."""
BINS = 60


class AttackTable(NamedTuple):
    """Final returns by rule and attack."""

    rules: tuple[str, ...]
    attacks: tuple[str, ...]
    returns: npt.NDArray[np.float64]
    """``[rules, attacks]``; NaN where nothing ran."""
    statistic: str


def has_filter_quality(group: Group) -> bool:
    """Whether some round of the group recorded what a filter did; a rule that rejects nobody is none."""
    kind = group.runs[0].kind("aggregator") or ""
    if kind in aggregators and not aggregators[kind].rejects:
        return False  # Earlier versions recorded a recall of 0 for it.
    return any(
        _known(row.get(name))
        for history in group.histories
        for row in history.rows
        for name in (*QUALITY, "filter_rule")
    )


def filter_scores(group: Group, name: str) -> Vector:
    """Each seed's mean of a column of :data:`QUALITY` over the rounds in which it is defined, of seeds with any."""
    if not has_filter_quality(group):
        return np.array([])
    each = [[row[name] for row in history.rows if _known(row.get(name))] for history in counted(group)]
    return np.array([np.mean(values) for values in each if values])


def filter_quality_table(groups: Sequence[Group]) -> tuple[list[str], list[list[str]]] | None:
    """Headings and lines: the means of recall and precision of each group that has any; None where none has."""
    scores = [(group.label, [filter_scores(group, name) for name in QUALITY]) for group in groups]
    scores = [(label, each) for label, each in scores if any(seeds.size for seeds in each)]
    if not scores:
        return None
    columns = [estimates([Estimate.of(each[place], "mean") for _, each in scores]) for place, _ in enumerate(QUALITY)]
    # A seed that never rejected anybody has a recall and no precision.
    seeds = [" and ".join(dict.fromkeys(str(column.size) for column in each)) for _, each in scores]
    labels = [label for label, _ in scores]
    return ["", "seeds", *(f"mean {label}" for label in QUALITY.values())], [
        list(line) for line in zip(labels, seeds, *columns, strict=True)
    ]


@styled
def filter_quality_figure(groups: Sequence[Group], title: str = "") -> Figure | None:
    """Precision and recall of finding Byzantine agents, and which rule fired; a column per group.

    Rounds are averaged in at most 60 bins over all seeds. Precision is undefined in a round that rejects
    nobody; such rounds do not enter it. None when no group has recorded any of it.
    """
    shown = [group for group in groups if has_filter_quality(group)]
    if not shown:
        return None
    fires = _fires(shown)
    ratios = (3, 2) if fires else (1,)
    figure = new_figure(max(7.6, 3.4 * len(shown) + 0.6), 5.4 if fires else 3.8, title)
    grid = figure.subplots(len(ratios), len(shown), sharex="col", sharey="row", squeeze=False, height_ratios=ratios)
    for column, group in enumerate(shown):
        _draw_quality(grid[0, column], group)
        grid[0, column].set_title(group.label)
        if fires:
            _draw_rules(grid[1, column], group)
        grid[-1, column].set_xlim(left=0)
    # Where nobody attacks there is neither precision nor recall, and an empty panel says nothing.
    for axes in grid.flat:
        axes.set_visible(axes.has_data())
    for row, name in zip(grid, ("precision, recall", "rule that fired,\nshare of rounds"), strict=False):
        first = next((axes for axes in row if axes.get_visible()), row[0])
        first.set_ylabel(name)
        first.tick_params(labelleft=True)
    for column_of_axes in grid.T:
        last = next((axes for axes in column_of_axes[::-1] if axes.get_visible()), column_of_axes[-1])
        last.set_xlabel("rounds")
        last.tick_params(labelbottom=True)
    handles = {
        label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    legend = figure.legend(
        handles=list(handles.values()),
        labels=list(handles),
        loc="outside lower left",
        ncols=5,
        title="Mean over seeds and neighbouring rounds. Positive: Byzantine. "
        "Precision: only rounds that rejected somebody.",
        title_fontsize=8.5,
        alignment="left",
    )
    legend.get_title().set_color(MUTED)
    return figure


def filter_quality_chart(groups: Sequence[Group]) -> Chart:
    """The same numbers, one of them at a time, a line per group that recorded any."""
    shown = [group for group in groups if has_filter_quality(group)]
    names = dict(QUALITY)
    if _fires(shown):
        names |= {f"rule {rule}": f"share of rounds with {text}" for rule, text in RULES.items()}
    lines = {}
    for group in shown:
        binned = {name: _binned(*recorded) for name in QUALITY if (recorded := _recorded(group, name))[0].size}
        rounds, fired = _recorded(group, "filter_rule")
        if rounds.size:
            binned |= {f"rule {rule}": _binned(rounds, (fired == rule).astype(np.float64)) for rule in RULES}
        x = np.unique(np.concatenate([centres for centres, _ in binned.values()]))
        lines[group.label] = {"x": list(x)} | {
            name: list(_at(x, centres, means)) for name, (centres, means) in binned.items()
        }
    known = {name: label for name, label in names.items() if any(name in line for line in lines.values())}
    return values_chart("rounds", known, lines)


def _at(x: Vector, centres: Vector, means: Vector) -> Vector:
    """The means at those of ``x`` that are their centres, NaN at the others."""
    values = np.full(len(x), np.nan)
    values[np.searchsorted(x, centres)] = means
    return values


def _fires(groups: Sequence[Group]) -> bool:
    """Whether one of several rules fires: only FedPG-BR's filters have them."""
    return any(_recorded(group, "filter_rule")[0].size for group in groups)


def _draw_quality(axes: Axes, group: Group) -> None:
    for index, (column, label) in enumerate(QUALITY.items()):
        rounds, values = _recorded(group, column)
        if rounds.size:
            centres, means = _binned(rounds, values)
            axes.plot(
                centres,
                means,
                label=label,
                color=colour(index),
                linewidth=1.7,
                marker="o",
                markersize=3,
                clip_on=False,
            )
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _draw_rules(axes: Axes, group: Group) -> None:
    rounds, fired = _recorded(group, "filter_rule")
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if not rounds.size:
        return
    below: Vector | None = None
    for rule in sorted(set(RULES) | set(fired.astype(int).tolist()), key=lambda rule: (rule == 0, rule)):
        centres, share = _binned(rounds, (fired.astype(int) == rule).astype(np.float64))
        below = np.zeros_like(share) if below is None else below
        axes.bar(
            centres,
            share,
            bottom=below,
            width=np.diff(centres).min() if centres.size > 1 else 0.8,
            color=PALETTE[(2, 4, 6)[rule - 1] if 1 <= rule <= 2 else 3],
            linewidth=0,
            label=RULES.get(rule, f"rule {rule}"),
        )
        below = below + share


def _known(value: object) -> bool:
    return isinstance(value, (int, float)) and not np.isnan(value)


def _recorded(group: Group, column: str) -> tuple[Vector, Vector]:
    pairs = [
        (row["round"] + 1, row[column])
        for history in group.histories
        for row in history.rows
        if _known(row.get(column))
    ]
    table = np.asarray(pairs, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _binned(rounds: Vector, values: Vector) -> tuple[Vector, Vector]:
    """Means over bins of equally many neighbouring rounds: ``(centres, means)`` of the bins that hold any.

    Rounds are counted from 1.
    """
    width = max(1, int(np.ceil(rounds.max() / BINS)))
    index = ((rounds - 1) // width).astype(int)
    filled = np.unique(index)
    means = np.bincount(index, weights=values)[filled] / np.bincount(index)[filled]
    return filled * width + (width + 1) / 2, means


def attack_table(groups: Sequence[Group], statistic: str = "iqm") -> AttackTable | None:
    """Final returns by (rule, attack), or None without attacks or with two configurations in one cell."""
    cells: dict[tuple[str, str], float] = {}
    for group in groups:
        run = group.runs[0]
        aggregator = run.kind("aggregator")
        rule = " + ".join(part for part in (run.kind("strategy"), aggregator) if part) or run.name
        cell = (rule, run.kind("attack") or "none")
        if cell in cells:
            return None
        scores = final_scores(group)
        cells[cell] = float(STATISTICS[statistic][1](scores)) if scores.size else float("nan")
    rules = tuple(dict.fromkeys(rule for rule, _ in cells))
    attacks = tuple(dict.fromkeys(attack for _, attack in cells))
    if len(cells) < 2 or set(attacks) <= {"none"}:
        return None
    returns = np.array([[cells.get((rule, attack), np.nan) for attack in attacks] for rule in rules])
    return AttackTable(rules, attacks, returns, statistic)


@styled
def attack_heatmap(table: AttackTable, title: str = "") -> Figure:
    """The table as a heat map with the numbers written in; empty cells never ran."""
    rows, columns = table.returns.shape
    figure = new_figure(max(6.0, 1.35 * columns + 3.4), max(2.6, 0.62 * rows + 2.0), title)
    axes = figure.add_subplot()
    known = table.returns[np.isfinite(table.returns)]
    draw_map(
        figure,
        axes,
        table.returns,
        rows=table.rules,
        columns=table.attacks,
        written=lambda value: f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}",
        bounds=(float(known.min()), float(known.max())) if known.size else (0.0, 1.0),
        bar=f"final return, {STATISTICS[table.statistic][0]} over seeds",
    )
    axes.set_xticks(np.arange(columns) + 0.5, table.attacks, rotation=20 if columns > 4 else 0)
    axes.set_yticks(np.arange(rows) + 0.5, table.rules)
    axes.set_xlabel("attack")
    return figure
