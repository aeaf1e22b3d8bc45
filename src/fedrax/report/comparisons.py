"""Which of several groups is better and how sure that is, and what each agent gains over learning alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from fedrax.evaluation.statistics import (
    improvement_interval,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap,
)
from fedrax.report.agents import own_returns
from fedrax.report.charts import lines_chart
from fedrax.report.curves import STATISTICS, Vector, final_scores
from fedrax.report.runs import Group
from fedrax.report.style import colour, dashes, new_figure, styled
from fedrax.report.tables import MISSING, Estimate, number
from fedrax.report.templating import chart_html, joined, part

PAIRS = 6
"""Most groups of which every pair has a line; of more, each beside the best one."""
LEVEL = 0.05
"""Below which the chance must be that all seeds of equal setups were won by one of them, before anything is certain."""
LEVELS = 60
"""Returns at which a profile is drawn."""
COLUMNS = 12
"""Most agents with a column each."""
NOTE = (
    "Chance: that a run of the one ends with a higher return than a run of the other, ties counting one half (Agarwal "
    "et al., 2021), over all pairs of their seeds; brackets: 95 % stratified bootstrap over seeds. Better: where the "
    "interval lies above one half. With few seeds it is too narrow: of two equal setups with three seeds "
    "each, one wins every pair one time in ten, so that below four each nothing is called better."
)
PROFILE = "Share of seeds whose final return is above a level: the higher a line, the better at that level."
GAIN = (
    "Final return of each agent in its own environment, of its own policy or the shared one, less that of the same "
    "agent learning alone, mean over seeds; brackets: 95 % stratified bootstrap over the seeds that both have, seed by "
    "seed."
)


def comparison_html(groups: Sequence[Group], statistic: str, prefix: str) -> Markup | None:
    """Chances of improvement, and profiles of final returns; None without two groups of several seeds."""
    table = improvement_table(groups, statistic)
    if table is None:
        return None
    profiles = profiles_of(groups)
    chart = lines_chart("final return", "share of seeds above", profiles, (0, 1.02))
    drawn = chart_html(chart, profile_figure(profiles), f"profile{prefix}", "Share of seeds above each final return")
    return joined(
        [part("noted_table", *table, NOTE), part("headed", "Performance profiles", drawn), part("small", PROFILE)]
    )


def improvement_table(groups: Sequence[Group], statistic: str) -> tuple[list[str], list[list[str]]] | None:
    """Headings and lines: of pairs of groups, the better first, the chance that its runs are better.

    Groups with a single seed are left out, and so are diverged ones; None where fewer than two are left.
    """
    scores = _scores(groups)
    if len(scores) < 2:
        return None
    ranked = sorted(scores, key=lambda label: -float(STATISTICS[statistic][1](scores[label])))
    pairs = [(one, other) for place, one in enumerate(ranked) for other in ranked[place + 1 :]]
    if len(ranked) > PAIRS:
        pairs = [pair for pair in pairs if pair[0] == ranked[0]]
    lines = []
    for one, other in pairs:
        chance = probability_of_improvement(scores[one], scores[other])
        low, high = improvement_interval(scores[one], scores[other])
        counts = (len(scores[one]), len(scores[other]))
        verdict = "better" if low > 0.5 else "worse" if high < 0.5 else "not certain"
        if 2 / math.comb(sum(counts), counts[0]) > LEVEL:
            verdict = "too few seeds"
        seeds = f"{counts[0]} and {counts[1]}"
        lines.append([one, other, f"{_share(chance)} [{_share(low)}, {_share(high)}]", verdict, seeds])
    return ["", "over", "chance of a higher return", "which is", "seeds"], lines


def profiles_of(groups: Sequence[Group]) -> dict[str, dict[str, object]]:
    """By label, the share of seeds above each level of the final return with its interval."""
    scores = _scores(groups)
    ends = [float(bound(each)) for each in scores.values() for bound in (np.min, np.max)]
    margin = (max(ends) - min(ends)) * 0.02 or max(abs(ends[0]) * 0.02, 0.01)
    levels = np.linspace(min(ends) - margin, max(ends) + margin, LEVELS)
    found: dict[str, dict[str, object]] = {}
    for label, each in scores.items():
        low, high = stratified_bootstrap((each > levels[:, None])[..., None], STATISTICS["mean"][1])
        share = performance_profile(each, levels)
        found[label] = {"x": levels, "y": share, "low": low, "high": high, "held": True}
    return found


@styled
def profile_figure(profiles: Mapping[str, Mapping[str, object]], title: str = "") -> Figure:
    """The profiles as steps with their bands."""
    figure = new_figure(7.6, 4.6, title)
    axes = figure.add_subplot()
    for place, (label, line) in enumerate(profiles.items()):
        x, y, low, high = (np.asarray(line[name]) for name in ("x", "y", "low", "high"))
        axes.fill_between(x, low, high, step="post", color=colour(place), alpha=0.2, linewidth=0)
        axes.plot(x, y, color=colour(place), linestyle=dashes(place), drawstyle="steps-post", label=label)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("final return")
    axes.set_ylabel("share of seeds above")
    figure.legend(loc="outside lower left", ncols=2)
    return figure


def gain_table(groups: Sequence[Group]) -> tuple[list[str], list[list[str]]] | None:
    """Headings and lines: what each group gives its agents over the one whose agents learn alone.

    None where there is no such group, or no other with as many agents and a seed in common.
    """
    alone = next((group for group in groups if group.runs[0].kind("strategy") == "local"), None)
    returns = None if alone is None else _by_seed(alone)
    if alone is None or not returns:
        return None
    agents = len(next(iter(returns.values())))
    shown = range(agents) if agents <= COLUMNS else range(0)
    lines = []
    for group in groups:
        theirs = {} if group is alone else _by_seed(group)
        common = [seed for seed in theirs if seed in returns and len(theirs[seed]) == agents]
        if not common:
            continue
        gains = np.array([theirs[seed] - returns[seed] for seed in common])
        better = (gains.mean(0) > 0).sum()
        lines.append(
            [
                group.label,
                str(Estimate.of(gains.mean(1), "mean")),
                str(Estimate.of(gains.min(1), "mean")),
                f"{better} of {agents}",
                *(number(float(gain)) for gain in gains.mean(0)[list(shown)]),
            ]
        )
    headings = ["", "gain of the mean agent", "smallest gain", "agents that gain", *(f"agent {k}" for k in shown)]
    return (headings, lines) if lines else None


def _by_seed(group: Group) -> dict[int, Vector]:
    """Each seed's last returns by agent."""
    found = ((history.seed, own_returns(history)) for history in group.histories)
    return {seed: returns for seed, returns in found if returns is not None}


def _scores(groups: Sequence[Group]) -> dict[str, Vector]:
    scores = {group.label: final_scores(group) for group in groups}
    return {label: each for label, each in scores.items() if each.size > 1 and np.isfinite(each).all()}


def _share(value: float) -> str:
    return MISSING if math.isnan(value) else f"{100 * value:.0f} %"
