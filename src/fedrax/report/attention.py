"""Who attends to whom, where critics attend over their peers' encoders (FedFormer)."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedrax.report.runs import Group, History
from fedrax.report.style import PAPER, colour, new_figure, styled

LATE = 0.25
"""Share of the rounds, the last ones, that the map is a mean over."""
WRITTEN = 12
"""Most agents whose shares are written into the map."""


@styled
def attention_figure(groups: Sequence[Group], title: str = "") -> Figure | None:
    """A row per group: the share that agent i's critics take of agent j's encodings, and shares over rounds.

    Encoders that were saved from an earlier run follow those of the agents.

    Both are means over seeds. The map is of the last quarter of the rounds. The lines are means over agents: of the
    own encoding, of one peer's, and of the summary token. None where no run recorded any of it.
    """
    known = [(group.label, recorded) for group in groups if (recorded := _attention(group)) is not None]
    if not known:
        return None
    figure = new_figure(9.6, 4.0 * len(known), title)
    grid = figure.subplots(len(known), 2, squeeze=False)
    for (label, (rounds, shares)), (left, right) in zip(known, grid, strict=True):
        late = shares[-max(1, round(LATE * len(shares))) :].mean(0)
        _draw_map(figure, left, late, label)
        _draw_lines(right, rounds, shares)
    return figure


def _attention(group: Group) -> tuple[Float[np.ndarray, " rounds"], Float[np.ndarray, "rounds agents everyone"]] | None:
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


def _draw_map(figure: Figure, axes: Axes, shares: Float[np.ndarray, "agents everyone"], label: str) -> None:
    agents, everyone = shares.shape
    image = axes.pcolormesh(
        shares, cmap=matplotlib.colormaps["cividis"], vmin=0, vmax=max(float(shares.max()), 1e-9), edgecolors=PAPER
    )
    if everyone <= WRITTEN:
        for (row, column), share in np.ndenumerate(shares):
            ink = "#111111" if share > 0.55 * shares.max() else "#fefefe"
            axes.text(column + 0.5, row + 0.5, f"{100 * share:.0f}", ha="center", va="center", color=ink)
    ticks = np.arange(0, everyone, 1 if everyone <= WRITTEN else 5)
    names = [str(tick) if tick < agents else f"saved {tick - agents}" for tick in ticks]
    axes.set_xticks(ticks + 0.5, names, rotation=0 if everyone == agents else 45)
    axes.set_yticks(ticks[ticks < agents] + 0.5, [str(tick) for tick in ticks[ticks < agents]])
    axes.set_xlabel("whose encodings (agent)")
    axes.set_ylabel("who attends (agent)")
    axes.set_title(label)
    axes.invert_yaxis()
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_label("share of attention" + (" (in the map: %)" if everyone <= WRITTEN else ""))
    bar.outline.set_visible(False)


def _draw_lines(axes: Axes, rounds: Float[np.ndarray, " rounds"], shares: Float[np.ndarray, "r n m"]) -> None:
    everyone = shares.shape[-1]
    own = np.diagonal(shares, axis1=1, axis2=2).mean(1)
    whole = shares.sum(2).mean(1)
    lines = {"own encoding": own, "summary": 1 - whole}
    if everyone > 1:
        lines["one peer's encoding (mean)"] = (whole - own) / (everyone - 1)
    for number, (name, values) in enumerate(lines.items()):
        axes.plot(rounds, values, color=colour(number), label=name)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.set_xlabel("rounds")
    axes.set_ylabel("share of attention")
    axes.legend()
