"""How evenly agents fare, and how much their environments differ, as tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from fedrax.report.runs import Group, History
from fedrax.report.tables import MISSING, Estimate, number

COLUMNS = 12
"""Most agents with a column each."""


def agents_table(groups: Sequence[Group], statistic: str) -> tuple[list[str], list[list[str]]] | None:
    """Headings and lines: the last evaluation's return of the mean agent, of the worst, and the agents' deviation.

    The deviation is taken over agents within a seed; every column is then an aggregate over seeds. Where agents' own
    policies were evaluated in others' environments too, their mean in their own stands beside it. Few agents have a
    column each as well. Where environments tell of success, the share of episodes that reached the goal follows.
    None where no run was evaluated agent by agent.
    """
    known = [(group.label, returns) for group in groups if (returns := final_agent_returns(group)) is not None]
    if not known:
        return None
    agents = max(returns.shape[1] for _, returns in known)
    shown = agents if agents <= COLUMNS else 0
    success = {group.label: final_agent_returns(group, "agent_success") for group in groups}
    reached = any(each is not None for each in success.values())
    own = {group.label: final_agent_returns(group, "agent_own_returns") for group in groups}
    beside = ["mean agent in its own environment"] if any(each is not None for each in own.values()) else []
    headings = ["", "mean agent", "worst agent", "deviation of agents", *beside, *(f"agent {k}" for k in range(shown))]
    if reached:
        headings += ["success of the mean agent", *(f"success of agent {k}" for k in range(shown))]
    lines = []
    for label, returns in known:
        statistics = [returns.mean(1), returns.min(1), returns.std(1)]
        single = [number(float(column.mean())) for column in returns.T[:shown]]
        theirs = own[label]
        in_own = [MISSING if theirs is None else str(Estimate.of(theirs.mean(1), statistic)) for _ in beside]
        rates = success[label]
        goals = [MISSING] * (shown + 1 if reached else 0)
        if rates is not None:
            goals = [str(Estimate.of(rates.mean(1), statistic)), *(number(float(x.mean())) for x in rates.T[:shown])]
        lines.append([label, *(str(Estimate.of(each, statistic)) for each in statistics), *in_own, *single, *goals])
    return headings, lines


def final_agent_returns(group: Group, name: str = "agent_returns") -> Float[np.ndarray, "seeds agents"] | None:
    """Every agent's return in each seed's last evaluation; None where there is none."""
    rows = [row for history in group.histories if (row := _last(history, name)) is not None]
    return np.array(rows, float) if rows else None


def divergence_table(groups: Sequence[Group]) -> tuple[list[str], list[list[str]]] | None:
    """Headings and lines: how much the agents' environments differ, as each group's first run measured it."""
    known = [(group.label, dict(group.runs[0].manifest.get("divergence") or {})) for group in groups]
    names = list(dict.fromkeys(name for _, divergence in known for name in divergence))
    if not names:
        return None
    return ["", *names], [[label, *(number(float(found.get(name, 0.0))) for name in names)] for label, found in known]


def _last(history: History, name: str) -> list[float] | None:
    for row in reversed(history.rows):
        returns = row.get(name)
        if returns is not None and all(value is not None for value in returns):
            return list(returns)
    return None
