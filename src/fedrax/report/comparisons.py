"""Which of several groups is better and how sure that is, and what each agent gains over learning alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from scipy.stats import mannwhitneyu

from fedrax.evaluation.statistics import (
    improvement_interval,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap,
)
from fedrax.report.agents import agent_names, own_returns
from fedrax.report.charts import lines_chart
from fedrax.report.curves import AXES, STATISTICS, Vector, final_scores, natural_axis, seed_curve
from fedrax.report.runs import Group
from fedrax.report.style import colour, dashes, new_figure, styled
from fedrax.report.tables import MISSING, Estimate, alike, columns_alike, estimates
from fedrax.report.templating import chart_html, joined, part

PAIRS = 6
"""Most groups of which every pair has a line; of more, each beside the best one."""
LEVEL = 0.05
"""The most that the chance may be of calling any of a table's equal setups better or worse."""
FEWEST = 4
"""Seeds of both, below which nothing is called better."""
COLUMNS = 12
"""Most agents with a column each."""
NOTE = (
    "Chance: that a run of the one reaches a higher return than a run of the other, ties counting one half (Agarwal "
    "et al., 2021), over all pairs of their seeds; brackets: 95 % stratified bootstrap over seeds. Every seed counts "
    "with its last evaluation at or before the cost that is named, the largest that all seeds of both have reached. "
    "Better: where the interval lies above one half and a Mann-Whitney test rejects that both are equal, at 5 % for "
    "all lines of the table together (Holm, 1979). With three seeds each, one of two equal setups wins every pair one "
    "time in ten, so that below four each nothing is called better."
)
PROFILE = "Share of seeds whose final return is above a level: the higher a line, the better at that level."
UNEQUAL = " Budgets were not used alike: what trained for longer has an advantage here."
GAIN = (
    "Final return of each agent in its own environment, of its own policy or the shared one, less that of the same "
    "agent learning alone, mean over seeds; brackets: 95 % stratified bootstrap over the seeds that both have, seed by "
    "seed. Over: who learns alone under the same settings outside of strategy, or else the only ones who do."
)


def comparison_html(groups: Sequence[Group], statistic: str, prefix: str) -> Markup | None:
    """Chances of improvement, and profiles of final returns; None without two groups of several seeds."""
    table = improvement_table(groups, statistic)
    if table is None:
        return None
    profiles = profiles_of(groups)
    chart = lines_chart("final return", "share of seeds above", profiles, (0, 1.02))
    drawn = chart_html(chart, profile_figure(profiles), f"profile{prefix}", "Share of seeds above each final return")
    shown = [group for group in groups if group.label in profiles]
    told = PROFILE + (UNEQUAL if len({_reached(group, natural_axis(shown)) for group in shown}) > 1 else "")
    return joined(
        [part("noted_table", *table, NOTE), part("headed", "Performance profiles", drawn), part("small", told)]
    )


def improvement_table(groups: Sequence[Group], statistic: str) -> tuple[list[str], list[list[str]]] | None:
    """Headings and lines: of pairs of groups, the better first, the chance that its runs are better.

    Groups with a single seed are left out, and so are diverged ones; None where fewer than two are left.
    """
    scores = _scores(groups)
    if len(scores) < 2:
        return None
    known = {group.label: group for group in groups}
    axis = natural_axis([known[label] for label in scores])
    ranked = sorted(scores, key=lambda label: -float(STATISTICS[statistic][1](scores[label])))
    pairs = [(one, other) for place, one in enumerate(ranked) for other in ranked[place + 1 :]]
    if len(ranked) > PAIRS:
        pairs = [pair for pair in pairs if pair[0] == ranked[0]]
    costs = [min(_reached(known[label], axis) for label in pair) for pair in pairs]
    values = [tuple(_at(known[label], cost, axis) for label in pair) for pair, cost in zip(pairs, costs, strict=True)]
    rejected = holm([_chance_alike(*each) for each in values])
    lines = []
    for (one, other), cost, (ours, theirs), differ in zip(pairs, alike(*costs), values, rejected, strict=True):
        low, high = improvement_interval(ours, theirs)
        verdict = "not certain"
        if not np.isfinite([*ours, *theirs]).all():
            verdict = "unequal budgets"
        elif min(len(ours), len(theirs)) < FEWEST:
            verdict = "too few seeds"
        elif differ and (low > 0.5 or high < 0.5):
            verdict = "better" if low > 0.5 else "worse"
        chance = probability_of_improvement(ours, theirs)
        told = MISSING if math.isnan(chance) else f"{_share(chance)} [{_share(low)}, {_share(high)}]"
        lines.append([one, other, told, verdict, f"{len(ours)} and {len(theirs)}", cost])
    return ["", "over", "chance of a higher return", "which is", "seeds", f"after {AXES[axis].label}"], lines


def holm(chances: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Which of several hypotheses are rejected when the chance of rejecting any true one is at most ``level``.

    Holm (1979), A simple sequentially rejective multiple test procedure. NaN is not rejected.
    """
    rejected = [False] * len(chances)
    order = sorted(range(len(chances)), key=lambda place: (math.isnan(chances[place]), chances[place]))
    for done, place in enumerate(order):
        if not chances[place] <= level / (len(chances) - done):
            break
        rejected[place] = True
    return rejected


def _chance_alike(ours: Vector, theirs: Vector) -> float:
    """The chance of scores so far apart, or further, under equal setups: two-sided Mann-Whitney; NaN with a NaN."""
    both = np.concatenate([ours, theirs])
    if not np.isfinite(both).all():
        return math.nan
    return 1.0 if np.ptp(both) == 0 else float(mannwhitneyu(ours, theirs).pvalue)


def _reached(group: Group, axis: str) -> float:
    """The largest cost at which every seed of a group was evaluated or later."""
    curves = (seed_curve(history, axis) for history in group.histories)
    return min((float(curve.x[-1]) for curve in curves if curve.x.size), default=math.nan)


def _at(group: Group, cost: float, axis: str) -> Vector:
    """Each seed's last evaluation at or before a cost, ``[seeds]``; NaN of a seed that has none."""
    curves = [seed_curve(history, axis) for history in group.histories if seed_curve(history, "round").y.size]
    return np.array([curve.at([cost])[0] for curve in curves])


def profiles_of(groups: Sequence[Group]) -> dict[str, dict[str, object]]:
    """By label, the share of seeds above each level of the final return with its interval.

    It falls at the group's own scores alone, so that these, and an end beyond all groups', are the levels: the steps
    are exact. A level's share holds up to the next.
    """
    scores = _scores(groups)
    ends = [float(bound(each)) for each in scores.values() for bound in (np.min, np.max)]
    margin = (max(ends) - min(ends)) * 0.02 or max(abs(ends[0]) * 0.02, 0.01)
    found: dict[str, dict[str, object]] = {}
    for label, each in scores.items():
        levels = np.concatenate([[min(ends) - margin], np.unique(each), [max(ends) + margin]])
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
    found = []
    for group in groups:
        alone = _alone(group, groups)
        ours, theirs = ({}, {}) if alone is None else (_by_seed(alone), _by_seed(group))
        common = [seed for seed in theirs if seed in ours and len(theirs[seed]) == len(ours[seed])]
        if alone is not None and common:
            found.append((group, alone.label, np.array([theirs[seed] - ours[seed] for seed in common])))
    if not found:
        return None
    agents = max(gains.shape[1] for *_, gains in found)
    shown = range(agents if agents <= COLUMNS else 0)
    mean = estimates([Estimate.of(gains.mean(1), "mean") for *_, gains in found])
    least = estimates([Estimate.of(gains.min(1), "mean") for *_, gains in found])
    means = [gains.mean(0) for *_, gains in found]
    each = columns_alike([[float(gain[k]) if k < gain.size else math.nan for gain in means] for k in shown])
    gaining = [f"{(gains.mean(0) > 0).sum()} of {gains.shape[1]}" for *_, gains in found]
    names = [[group.label for group, *_ in found], [reference for _, reference, _ in found]]
    lines = [list(line) for line in zip(*names, mean, least, gaining, *each, strict=True)]
    headings = ["", "over", "gain of the mean agent", "smallest gain", "agents that gain"]
    return [*headings, *agent_names([group for group, *_ in found], len(shown))], lines


def _alone(group: Group, groups: Sequence[Group]) -> Group | None:
    """The group whose agents learn alone that another is to be compared with.

    Its settings are the same outside of strategy; where none is, the only one that learns alone; None of several.
    """
    local = [each for each in groups if each.runs[0].kind("strategy") == "local"]
    if any(group is each for each in local):
        return None
    alike = [each for each in local if _outside_strategy(each) == _outside_strategy(group)]
    candidates = alike or local
    return candidates[0] if len(candidates) == 1 else None


def _outside_strategy(group: Group) -> dict[str, object]:
    return {key: value for key, value in group.runs[0].settings.items() if not key.startswith("strategy.")}


def _by_seed(group: Group) -> dict[int, Vector]:
    """Each seed's last returns by agent."""
    found = ((history.seed, own_returns(history)) for history in group.histories)
    return {seed: returns for seed, returns in found if returns is not None}


def _scores(groups: Sequence[Group]) -> dict[str, Vector]:
    scores = {group.label: final_scores(group) for group in groups}
    return {label: each for label, each in scores.items() if each.size > 1 and np.isfinite(each).all()}


def _share(value: float) -> str:
    return MISSING if math.isnan(value) else f"{100 * value:.0f} %"
