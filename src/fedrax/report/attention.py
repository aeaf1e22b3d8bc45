"""Who attends to whom, where critics attend over their peers' encoders (FedFormer)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedrax.report.charts import Chart, values_chart
from fedrax.report.maps import WRITTEN, draw_map
from fedrax.report.runs import Group, History
from fedrax.report.style import ShownFigure, colour, new_figure, styled

PERIODS = 4
"""Of the rounds, as equal as can be, that a map each is a mean over."""
LINES = {"own": "own encoding", "peer": "one peer's encoding (mean)", "summary": "summary"}

Attention = tuple[Float[np.ndarray, " rounds"], Float[np.ndarray, "rounds agents everyone"]]
"""Rounds, and the share that agent i's critics take of agent j's encodings, the mean over seeds."""


def attention_of(groups: Sequence[Group]) -> dict[str, Attention]:
    """Of each group that recorded any, by its label. Encoders saved from an earlier run follow those of the agents."""
    found = {group.label: _attention(group) for group in groups}
    return {label: recorded for label, recorded in found.items() if recorded is not None}


@styled
def attention_figure(known: Mapping[str, Attention], title: str = "") -> Figure:
    """Maps of each group, in a row: the shares over a first, second ... part of the rounds, in one scale of colours."""
    columns = min(PERIODS, max(len(rounds) for rounds, _ in known.values()))
    figure = new_figure(max(5.2, 3.2 * columns + 0.6), 3.3 * len(known), title)
    grid = figure.subplots(len(known), columns, squeeze=False)
    for (label, (rounds, shares)), row in zip(known.items(), grid, strict=True):
        parts = np.array_split(np.arange(len(rounds)), min(columns, len(rounds)))
        means = [shares[part].mean(0) for part in parts]
        most = 100 * float(max(mean.max() for mean in means))
        for number, (axes, part) in enumerate(zip(row, parts, strict=False)):
            first, last = int(rounds[part[0]]), int(rounds[part[-1]])
            when = f"rounds {first} to {last}" if last > first else f"round {first}"
            axes.set_title(f"{label}\n{when}" if number == 0 else when)
            _draw_map(figure, axes, means[number], (0.0, most), bar=number == len(parts) - 1)
        for axes in row[len(parts) :]:
            axes.set_visible(False)
    return figure


@styled
def attention_lines(known: Mapping[str, Attention], title: str = "") -> Figure:
    """A panel per group: shares over rounds, the means over agents."""
    figure = new_figure(max(5.2, 3.4 * len(known)), 3.6, title)
    grid = figure.subplots(1, len(known), sharey=True, squeeze=False)
    for (label, recorded), axes in zip(known.items(), grid.flat, strict=True):
        _draw_lines(axes, *recorded)
        axes.set_title(label)
    grid[0, 0].set_ylabel("share of attention")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=3)
    return figure


def attention_chart(known: Mapping[str, Attention]) -> Chart:
    """The same, one of the shares at a time, a line per group."""
    lines = {
        label: {"x": list(rounds), **{name: list(values) for name, values in _means(shares).items()}}
        for label, (rounds, shares) in known.items()
    }
    names = {name: f"share of attention to the {label}" for name, label in LINES.items()}
    return values_chart(
        "rounds", {name: label for name, label in names.items() if any(name in x for x in lines.values())}, lines
    )


def _attention(group: Group) -> Attention | None:
    """Rounds, and the mean over seeds in those that all of them have; without rounds in which nobody had learned."""
    each = [_of_seed(history) for history in group.histories]
    rounds = sorted(set.intersection(*(set(one) for one in each))) if each else []
    if not rounds:
        return None
    return np.array(rounds), np.mean([[one[number] for number in rounds] for one in each], axis=0)


def _of_seed(history: History) -> dict[int, Float[np.ndarray, "agents everyone"]]:
    """By the number of rounds done."""
    rows = {row["round"] + 1: np.array(row["attention"], float) for row in history.rows if row.get("attention")}
    return {number: shares for number, shares in rows.items() if shares.any()}


def _draw_map(
    figure: ShownFigure,
    axes: Axes,
    shares: Float[np.ndarray, "agents everyone"],
    bounds: tuple[float, float],
    *,
    bar: bool,
) -> None:
    agents, everyone = shares.shape
    few = everyone <= WRITTEN
    names = [str(number) if number < agents else f"saved {number - agents}" for number in range(everyone)]
    draw_map(
        figure,
        axes,
        100 * shares,
        rows=[f"agent {number}" for number in range(agents)],
        columns=[f"encodings of {'' if number >= agents else 'agent '}{name}" for number, name in enumerate(names)],
        written=(lambda share: f"{share:.0f}") if few else None,
        bounds=bounds,
        bar="share of attention, %" if bar else "",
    )
    ticks = np.arange(0, everyone, 1 if few else 5)
    axes.set_xticks(ticks + 0.5, [names[tick] for tick in ticks], rotation=0 if everyone == agents else 45)
    axes.set_yticks(ticks[ticks < agents] + 0.5, [str(tick) for tick in ticks[ticks < agents]])
    axes.set_xlabel("whose encodings (agent)")
    axes.set_ylabel("who attends (agent)")


def _draw_lines(axes: Axes, rounds: Float[np.ndarray, " rounds"], shares: Float[np.ndarray, "r n m"]) -> None:
    for number, (name, values) in enumerate(_means(shares).items()):
        axes.plot(rounds, values, color=colour(number), label=LINES[name])
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.set_xlabel("rounds")


def _means(shares: Float[np.ndarray, "r n m"]) -> dict[str, Float[np.ndarray, " r"]]:
    """Over agents: of the own encoding, of one peer's, and of the summary token."""
    everyone = shares.shape[-1]
    own = np.diagonal(shares, axis1=1, axis2=2).mean(1)
    whole = shares.sum(2).mean(1)
    peer = {"peer": (whole - own) / (everyone - 1)} if everyone > 1 else {}
    return {"own": own, **peer, "summary": 1 - whole}
