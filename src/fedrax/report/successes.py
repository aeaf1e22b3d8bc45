"""How often agents reach their goals, where environments say so: of all episodes of the last evaluations, by agent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from fedrax.environments.success import LAST, SHARE, SUCCESS
from fedrax.evaluation.measure import Environments
from fedrax.evaluation.pairs import choose_pairs
from fedrax.evaluation.statistics import wilson
from fedrax.report.agents import COLUMNS, agent_names, final_agent_returns
from fedrax.report.personal import keeps_own
from fedrax.report.runs import Group
from fedrax.report.tables import MISSING

KINDS = {SUCCESS: "in any step", LAST: "in the last step", SHARE: "share of steps"}
"""What counts as success, and how a table calls it."""
NOTE = (
    "Share of the episodes of every seed's last evaluation, in percent. Brackets are 95 % intervals of Wilson's score "
    "over these episodes, all seeds' together: they say how exactly these policies were measured, and not how much "
    "seeds differ. (Of a share of steps they are at least as wide as they need be, as an episode counts as one trial.) "
    "The worst agent is that of each seed, the mean over seeds."
)


def success_table(groups: Sequence[Group]) -> tuple[list[str], list[list[str]]] | None:
    """Headings and lines: a line for each group and kind of success; None where no environment tells of it.

    A few agents have a column each, of the same policies and environments as their returns.
    """
    known = [(group, kind, last) for group in groups for kind in KINDS if (last := _last(group, kind)) is not None]
    if not known:
        return None
    each = [final_agent_returns(group, f"agent_{kind}") for group, kind, _ in known]
    agents = max((rates.shape[1] for rates in each if rates is not None), default=0)
    shown = agents if agents <= COLUMNS else 0
    headings = [
        "",
        "success",
        "all episodes",
        *(["worst agent"] if agents else []),
        *agent_names([group for group, _, _ in known], shown),
    ]
    lines = []
    for (group, kind, last), rates in zip(known, each, strict=True):
        episodes = episodes_of(group)
        line = [group.label, KINDS[kind], _cell(float(last.mean()), last.size * episodes)]
        if agents:
            line.append(MISSING if rates is None else f"{100 * rates.min(1).mean():.0f}")
        cells = []
        if rates is not None:
            trials = len(rates) * episodes // rates.shape[1]
            cells = [_cell(float(share), trials) for share in rates.mean(0)]
        lines.append([*line, *(cells[k] if k < len(cells) else MISSING for k in range(shown))])
    return headings, lines


def episodes_of(group: Group) -> int:
    """How many episodes one seed's evaluation counts."""
    run = group.runs[0]
    settings, federation = run.config["evaluation"], run.config["federation"]
    where, personal, agents = group.measure["evaluation.environments"], keeps_own(group), int(federation["agents"])
    asked, seed = int(settings["episodes"]), int(settings["seed"])
    pairs = choose_pairs(cast(Environments, where), personal=personal, agents=agents, episodes=asked, seed=seed)
    policies = agents if personal else 1
    different = pairs.episodes
    if pairs.environments is not None:
        # A goal is an initial state: a policy that is greedy does there what it did before.
        named = (run.config["environment"].get(name) for name in ("held_out_goals", "goals"))
        different = min(different, next((goals for goals in named if isinstance(goals, int) and goals), different))
    return policies * len(pairs.counted) * different


def _last(group: Group, kind: str) -> np.ndarray | None:
    """Of each seed that was evaluated, the last value."""
    found = []
    for history in group.histories:
        values = [row[kind] for row in history.rows if row.get(kind) is not None]
        found += values[-1:]
    return np.array(found, float) if found else None


def _cell(share: float, trials: int) -> str:
    low, high = wilson(share * trials, trials)
    return f"{100 * share:.0f} [{100 * low:.0f}, {100 * high:.0f}]"
