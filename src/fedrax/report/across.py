"""How every policy fares in every agent's environment, as maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from markupsafe import Markup
from matplotlib.figure import Figure

from fedrax.records.across import Across, read_across
from fedrax.report.maps import WRITTEN, draw_map
from fedrax.report.runs import Group, Run, named_runs
from fedrax.report.style import new_figure, styled
from fedrax.report.tables import number
from fedrax.report.templating import figure_html, joined, part


def across_html(groups: Sequence[Group]) -> Markup | None:
    """A map of each run that was evaluated with ``--across``; None where none was.

    Raises:
        FedraxError: a record is damaged.
    """
    parts = []
    for place, (label, run) in enumerate(named_runs(groups)):
        found = read_across(run.path)
        if found is None:
            continue
        mean = np.mean(list(found.returns.values()), axis=0)
        seeds = f"the mean over {len(found.returns)} seeds" if len(found.returns) > 1 else "one seed"
        drawn = figure_html(
            across_figure(mean, label), f"across-{place}", "Return of every policy in every environment"
        )
        own = ""
        if mean.shape[0] == mean.shape[1] > 1:
            inside = float(np.diagonal(mean).mean())
            outside = float((mean.sum() - np.trace(mean)) / (mean.size - len(mean)))
            own = (
                f" In its agent's own environment a policy reaches {number(inside)} on average, in others' "
                f"{number(outside)}."
            )
        which = f"Policy {found.policy!r}{_when(found)}"
        parts += [
            drawn,
            part("small", f"{which}, {found.episodes} episodes of each pair, {seeds}.{own}{_since(found, run)}"),
        ]
    return joined(parts) if parts else None


def _when(found: Across) -> str:
    """After how many rounds a policy was the run's, where its name does not say."""
    return "" if found.rounds is None or found.policy.isdecimal() else f" after {found.rounds} rounds"


def _since(found: Across, run: Run) -> str:
    """That the run has gone on since it was evaluated, and its policy may be another one."""
    done = max((history.rows[-1]["round"] + 1 for history in run.histories if history.rows), default=0)
    if not _when(found) or found.rounds is None or done <= found.rounds:
        return ""
    return f" The run has gone on since, to {done} rounds: evaluate it again for what it has now."


@styled
def across_figure(returns: Float[np.ndarray, "policies environments"], title: str = "") -> Figure:
    """A row of each policy, a column of each environment; numbers where there are few."""
    policies, environments = returns.shape
    side = 0.55 if max(returns.shape) <= WRITTEN else 0.2
    figure = new_figure(min(11.0, 3.6 + side * 1.3 * environments), min(9.0, 1.6 + side * policies), title)
    axes = figure.add_subplot()
    low, high = float(np.nanmin(returns)), float(np.nanmax(returns))
    draw_map(
        figure,
        axes,
        returns,
        rows=["the shared policy"] if policies == 1 else [f"policy of agent {k}" for k in range(policies)],
        columns=[f"environment of agent {k}" for k in range(environments)],
        written=number if max(returns.shape) <= WRITTEN else None,
        bounds=(low, high),
        bar="return" if high > low else "",
    )
    for ticks, count in ((axes.set_xticks, environments), (axes.set_yticks, policies)):
        places = np.arange(0, count, 1 if count <= WRITTEN else -(-count // 20))
        ticks(places + 0.5, [str(place) for place in places])
    if policies == 1:
        axes.set_yticks([0.5], ["shared"])
    axes.set_xlabel("environment of agent")
    axes.set_ylabel("policy" if policies == 1 else "policy of agent")
    return figure
