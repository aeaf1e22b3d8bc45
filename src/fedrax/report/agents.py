"""How evenly agents fare, and how much their environments differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from fedrax.environments.tasks import TASK
from fedrax.report.charts import Chart, points_chart
from fedrax.report.curves import Vector
from fedrax.report.draws import Draw, drawn_for
from fedrax.report.personal import agent_is
from fedrax.report.runs import Group, History, Run
from fedrax.report.style import colour, new_figure, styled
from fedrax.report.tables import Estimate, alike, columns_alike, estimates

COLUMNS = 12
"""Most agents with a column each."""


def agent_names(groups: Sequence[Group], count: int) -> list[str]:
    """``agent k`` of so many, each with its task where agents have several and all groups' have the same."""
    each = {_tasks(group.runs[0]) for group in groups}
    tasks = each.pop() if len(each) == 1 else ()
    return [f"agent {k} ({tasks[k % len(tasks)]})" if tasks else f"agent {k}" for k in range(count)]


def _tasks(run: Run) -> tuple[str, ...]:
    """That agents have in turn; none where all are in one environment."""
    return tuple(run.config.get("environment", {}).get("tasks") or ())


def agents_table(groups: Sequence[Group], statistic: str) -> tuple[list[str], list[list[str]]] | None:
    """Headings and lines: the last evaluation's return of the mean agent, of the worst, and the agents' deviation.

    The deviation is taken over agents within a seed; every column is then an aggregate over seeds. Where agents' own
    policies were evaluated in others' environments too, their mean in their own stands beside it. Few agents have a
    column each as well, and each line says what agent k's return is of.
    None where no run was evaluated agent by agent.
    """
    known = [(group, returns) for group in groups if (returns := final_agent_returns(group)) is not None]
    if not known:
        return None
    agents = max(returns.shape[1] for _, returns in known)
    shown = agents if agents <= COLUMNS else 0
    each = [returns for _, returns in known]
    headings = ["", "agent k: return of", "mean agent", "worst agent", "deviation of agents"]
    columns = [[group.label for group, _ in known], [agent_is(group) for group, _ in known]]
    for over in (np.mean, np.min, np.std):
        columns.append(estimates([Estimate.of(over(returns, axis=1), statistic) for returns in each]))
    own = [final_agent_returns(group, "agent_own_returns") for group, _ in known]
    if any(returns is not None for returns in own):
        headings.append("mean agent in its own environment")
        columns.append(_of_mean_agent(own, statistic))
    headings += agent_names([group for group, _ in known], shown)
    columns += _of_each_agent(each, shown)
    return headings, [list(line) for line in zip(*columns, strict=True)]


def _of_mean_agent(values: Sequence[Vector | None], statistic: str) -> list[str]:
    """The cells of a column: of ``values[seeds, agents]`` by line, the aggregate over seeds of the mean agent."""
    return estimates([Estimate.of(np.empty(0) if each is None else each.mean(1), statistic) for each in values])


def _of_each_agent(values: Sequence[Vector | None], shown: int) -> list[list[str]]:
    """The cells of a column for each of the agents that are shown: the mean over seeds."""
    means = [np.empty(0) if each is None else each.mean(0) for each in values]
    return columns_alike([[float(mean[k]) if k < mean.size else math.nan for mean in means] for k in range(shown)])


def final_agent_returns(group: Group, name: str = "agent_returns") -> Float[np.ndarray, "seeds agents"] | None:
    """Every agent's return, or success, in each seed's last evaluation; None where there is none."""
    rows = [row for history in group.histories if (row := last_of_agents(history, name)) is not None]
    return np.array(rows, float) if rows else None


def divergence_table(groups: Sequence[Group]) -> tuple[list[str], list[list[str]]] | None:
    """Headings and lines: how much the agents' environments differ, as each group's first run measured it."""
    known = [(group.label, dict(group.runs[0].manifest.get("divergence") or {})) for group in groups]
    names = list(dict.fromkeys(name for _, divergence in known for name in divergence))
    if not names:
        return None
    columns = [alike(*(float(found.get(name, 0.0)) for _, found in known)) for name in names]
    return ["", *names], [list(line) for line in zip([label for label, _ in known], *columns, strict=True)]


def own_returns(history: History) -> Vector | None:
    """Each agent's last return in its own environment, ``[agents]``: its own policy's, or the one that all share."""
    last = last_of_agents(history, "agent_own_returns") or last_of_agents(history, "agent_returns")
    return None if last is None else np.array(last, np.float64)


class Parameters:
    """What each agent's environment was drawn to be, beside what it reached, the mean over the seeds of one draw."""

    def __init__(self, drawn: Sequence[Mapping[str, Any]], members: Sequence[tuple[Group, History]]) -> None:
        """Of these seeds, each with its group, whose agents' environments are the same ones."""
        self.drawn = {name: [float(agent[name]) for agent in drawn] for name in _differing(drawn)}
        self.seeds = sorted({history.seed for _, history in members})
        known: dict[str, list[Vector]] = {}
        for group, history in members:
            returns = own_returns(history)
            if returns is not None and len(returns) == len(drawn):
                known.setdefault(group.label, []).append(returns)
        self.returns: dict[str, Vector] = {label: np.mean(each, axis=0) for label, each in known.items()}
        self.agents = agent_names([group for group, _ in members], len(drawn))

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headings, and a line of each agent."""
        drawn = [alike(*column) for column in self.drawn.values()]
        returns = columns_alike([list(each) for each in self.returns.values()])
        lines = [list(line) for line in zip(self.agents, *drawn, *returns, strict=True)]
        return ["", *self.drawn, *(f"final return in its own environment: {label}" for label in self.returns)], lines

    def chart(self) -> Chart:
        """Final returns over each parameter."""
        values = {label: {**self.drawn, "return": list(each)} for label, each in self.returns.items()}
        x = {name: name for name in self.drawn}
        return points_chart(x, {"return": "final return in the agent's own environment"}, values, self.agents)

    @styled
    def figure(self, title: str = "") -> Figure:
        """The same over the first parameters, at most three."""
        names = list(self.drawn)[:3]
        figure = new_figure(max(5.4, 3.4 * len(names) + 0.4), 4.2, title)
        grid = figure.subplots(1, len(names), sharey=True, squeeze=False)
        for axes, name in zip(grid[0], names, strict=True):
            for place, (label, each) in enumerate(self.returns.items()):
                axes.plot(self.drawn[name], each, "o", color=colour(place), label=label, markersize=5)
            axes.set_xlabel(name)
        grid[0, 0].set_ylabel("final return in its own environment")
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=2)
        return figure


def parameters_of(groups: Sequence[Group]) -> list[Parameters]:
    """By draw of the agents' environments, in order of appearance; none where they do not differ."""
    members: dict[str, tuple[Draw, list[tuple[Group, History]]]] = {}
    for group in groups:
        for run, history in group.members:
            tasks = _tasks(run)
            # Which task an agent has is a number there, and a name beside the agent's here.
            left_out = {TASK} if tasks else set()
            drawn: Draw = [
                {name: value for name, value in one.items() if name not in left_out} for one in drawn_for(run, history)
            ]
            if drawn and _differing(drawn):
                members.setdefault(str((tasks, drawn)), (drawn, []))[1].append((group, history))
    found = [Parameters(drawn, those) for drawn, those in members.values()]
    return [each for each in found if each.returns]


def _differing(drawn: Sequence[Mapping[str, Any]]) -> list[str]:
    """The parameters that are numbers, of all agents, and not the same of all."""
    return [
        name
        for name in drawn[0]
        if all(isinstance(agent.get(name), (int, float)) for agent in drawn)
        and len({agent[name] for agent in drawn}) > 1
    ]


def last_of_agents(history: History, name: str) -> list[float] | None:
    """A column of a value for each agent, where all have one for the last time."""
    for row in reversed(history.rows):
        returns = row.get(name)
        if returns is not None and all(value is not None for value in returns):
            return list(returns)
    return None
