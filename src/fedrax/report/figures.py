"""Learning curves as figures: one x-axis, or one panel per attack."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedrax.errors import FedraxError
from fedrax.report.curves import AXES, STATISTICS, Curve, axis_of, coinciding, summarise
from fedrax.report.published import Series
from fedrax.report.runs import Group, check_one_measure
from fedrax.report.style import MUTED, PAPER, colour, cost_axis, dashes, new_figure, styled

READ_OFF = "published (read off)"
MOST_SEEDS = 36
"""Of all groups, that have a line each: more hide what they are drawn beneath."""
UPON = (0, (1.2, 1.6))
"""Dashes of a line that lies upon another, which shows between them."""
Colours = Mapping[str, int]
"""Position in the palette, by label."""


def value_label(value: str) -> str:
    """What the y-axis says for a column of ``metrics.jsonl``."""
    return "evaluation return" if value == "return" else value.replace("_", " ")


@styled
def curves_figure(
    groups: Sequence[Group],
    x: str = "trajectories",
    published: Mapping[str, Series] | None = None,
    title: str = "",
    *,
    value: str = "return",
    statistic: str = "iqm",
    smoothing: int = 1,
    points: int = 300,
) -> Figure:
    """Each group's aggregate with its 95 % interval, its seeds as faint lines, and published points.

    Of more than :data:`MOST_SEEDS` seeds there are no lines.

    Args:
        groups: runs to compare.
        x: a key of :data:`fedrax.report.curves.AXES`.
        published: by group label; it takes the group's colour. Other labels get a colour of their own.
        title: above the figure.
        value: a column of ``metrics.jsonl``.
        statistic: ``iqm`` or ``mean``.
        smoothing: trailing evaluations averaged per seed.
        points: of an aggregate, at most.

    Raises:
        FedraxError: an unknown axis or statistic, published points over another axis, or groups that were evaluated
            differently.
    """
    check_one_measure(groups)
    figure = new_figure(7.6, 5.2, title)
    axes = figure.add_subplot()
    colours = _colours([groups], [published or {}])
    curves = [summarise(group, x, value, statistic, smoothing, points) for group in groups]
    _draw(axes, curves, x, published or {}, colours)
    axes.set_ylabel(value_label(value))
    _legend(figure, curves, colours, published or {})
    return figure


@styled
def panels_figure(
    panels: Mapping[str, Sequence[Group]],
    x: str = "trajectories",
    published: Mapping[str, Mapping[str, Series]] | None = None,
    title: str = "",
    *,
    value: str = "return",
    statistic: str = "iqm",
) -> Figure:
    """One panel per condition (an attack, say), with the same colour for the same label in each.

    Args:
        panels: groups by panel title.
        x: a key of :data:`fedrax.report.curves.AXES`.
        published: by panel title, then by group label.
        title: above the figure.
        value: a column of ``metrics.jsonl``.
        statistic: ``iqm`` or ``mean``.
    """
    check_one_measure([group for groups in panels.values() for group in groups])
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(3.4 * columns + 0.6, 3.0 * rows + 1.6, title)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    published = published or {}
    colours = _colours(list(panels.values()), list(published.values()))
    curves: list[Curve] = []
    for axes, (name, groups) in zip(grid.flat, panels.items(), strict=False):
        drawn = [summarise(group, x, value, statistic) for group in groups]
        _draw(axes, drawn, x, published.get(name, {}), colours)
        axes.set_title(name)
        curves += drawn
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel(value_label(value))
    _legend(
        figure,
        curves,
        colours,
        {label: line for shown in published.values() for label, line in shown.items()},
    )
    return figure


def _colours(groups: Sequence[Sequence[Group]], published: Sequence[Mapping[str, Series]]) -> Colours:
    labels = [group.label for members in groups for group in members]
    labels += [label for lines in published for label in lines]
    return {label: index for index, label in enumerate(dict.fromkeys(labels))}


def _draw(
    axes: Axes,
    curves: Sequence[Curve],
    x: str,
    published: Mapping[str, Series],
    colours: Colours,
) -> None:
    axes.set_xlabel(axis_of(x).label)
    for label, series in published.items():
        if series.axis != x:
            raise FedraxError(
                f"published {series.name!r} is over {AXES[series.axis].label}; draw it with x={series.axis!r}"
            )
        axes.plot(
            series.x,
            series.y,
            color=colour(colours[label]),
            linestyle=(0, (4, 3)),
            linewidth=1.2,
            marker="o",
            markersize=6,
            markeredgecolor=PAPER,
            markeredgewidth=0.9,
            zorder=4,
        )
    hiding, thin = coinciding(curves), _seeds_drawn(curves)
    for curve in curves:
        tint = colour(colours[curve.label])
        if thin and len(curve.seeds) > 1:
            for seed in curve.seeds:
                axes.plot(seed.x, seed.y, color=tint, linewidth=0.6, alpha=0.3, drawstyle="steps-post", zorder=1.5)
        if curve.x.size and not np.isnan(curve.low).all():
            axes.fill_between(curve.x, curve.low, curve.high, step="post", color=tint, alpha=0.2, linewidth=0, zorder=2)
        axes.plot(
            curve.x,
            curve.centre,
            color=tint,
            linewidth=1.7,
            linestyle=UPON if curve.label in hiding else dashes(colours[curve.label]),
            # A single evaluation is a point, and a line through one point is invisible.
            marker="o" if curve.x.size == 1 else None,
            drawstyle="steps-post",
            zorder=3,
        )
        if not curve.x.size:
            for seed in curve.seeds:
                axes.plot(seed.x, seed.y, color=tint, linestyle="none", marker="o", markersize=4, zorder=3)
    if not any(curve.seeds for curve in curves) and not published:
        axes.text(0.5, 0.5, "no evaluation yet", transform=axes.transAxes, ha="center", color=MUTED)
    cost_axis(axes)


def _seeds_drawn(curves: Sequence[Curve]) -> bool:
    return sum(len(curve.seeds) for curve in curves) <= MOST_SEEDS


def describe(curves: Sequence[Curve]) -> str:
    """What lines, bands and faint lines mean, in one sentence each, and which lines lie upon others."""
    drawn = [curve for curve in curves if curve.x.size]
    scattered = [curve for curve in curves if curve.seeds and not curve.x.size]
    points = (
        ["points: evaluations of seeds that have no cost in common at which to aggregate them"] if scattered else []
    )
    if not drawn:
        return f"P{points[0][1:]}." if points else ""
    counts = sorted({len(curve.seeds) for curve in drawn})
    several = counts[-1] > 1
    number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    name = STATISTICS[drawn[0].statistic][0]
    lines = f"{name} of {number} seeds" if several else "one seed"
    text = [f"Lines: {lines}, held from evaluation to evaluation"]
    if drawn[0].smoothing > 1:
        text[0] += f", mean of the {drawn[0].smoothing} last evaluations"
    if several:
        text.append("band: 95 % stratified bootstrap over seeds" + (", none with one seed" if counts[0] == 1 else ""))
        if _seeds_drawn(curves):
            text.append("thin: seeds")
    upon = [f"{label} (dotted) lies on {' and '.join(others)}" for label, others in coinciding(curves).items()]
    return "; ".join([*text, *points, *upon]) + "."


def _legend(
    figure: Figure,
    curves: Sequence[Curve],
    colours: Colours,
    published: Mapping[str, Series],
) -> None:
    """Below the axes, where it covers no data, headed by what lines and bands mean."""
    ours, hiding = {curve.label for curve in curves}, coinciding(curves)
    handles: list[Artist] = []
    for label, index in colours.items():
        only_published = label not in ours
        handles.append(
            Line2D(
                [],
                [],
                color=colour(index),
                linewidth=1.2 if only_published else 2.4,
                linestyle=(0, (4, 3)) if only_published else UPON if label in hiding else dashes(index),
                marker="o" if only_published else None,
                markeredgecolor=PAPER,
                label=f"{label}, {READ_OFF}" if only_published else label,
            )
        )
    if any(label in ours for label in published):
        handles.append(
            Line2D([], [], color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), marker="o", markersize=6,
                   markeredgecolor=PAPER, label=f"{READ_OFF}, same colours")
        )  # fmt: skip
    width = figure.get_size_inches()[0]
    longest = max((len(str(handle.get_label())) for handle in handles), default=1)
    columns = max(1, min(len(handles), int(width * 12.5 / (longest + 8))))
    legend = figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=columns,
        title="\n".join(textwrap.wrap(describe(curves), int(width * 14))),
        title_fontsize=8.5,
        alignment="left",
        columnspacing=1.6,
        handlelength=2.6,
    )
    legend.get_title().set_color(MUTED)
