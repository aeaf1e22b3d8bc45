"""Who took part in a federation's rounds, how long answers took, and which agents were averaged together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from fedrax.records.exchanges import EXCHANGES, parsed_exchanges
from fedrax.report.charts import lines_chart
from fedrax.report.runs import Group, Run, named_runs
from fedrax.report.style import MUTED, colour, new_figure, styled
from fedrax.report.tables import MISSING, alike, bytes_text, duration
from fedrax.report.templating import chart_html, figure_html, joined, part, table_html
from fedrax.strategies.base import strategies

OUTCOMES = {
    "answered": "#009e73",
    "late": "#e69f00",
    "absent": "#d55e00",
    "excluded": "#cc79a7",
    "dropped": "#8c6d46",
    "paused": "#9da5b3",
    "stale": "#56b4e9",
}
"""What becomes of a request, as ``exchanges.jsonl`` says it, and its colour."""
NOTE = (
    "Asked: requests of all rounds; a pause is none. Seconds run from the request to its answer; work is what the node "
    "says that it took. docs/federation.md says what late, absent, excluded, dropped, paused and stale are."
)
WORST = ("answered", "stale", "paused", "dropped", "excluded", "late", "absent")
"""Outcomes from the best to the worst."""
BINS = 120
"""Columns of the picture of who answered."""
SHOWN = 12
"""Most agents with a line each."""

Exchange = Mapping[str, Any]


def exchanges_of(run: Run) -> list[Exchange]:
    """The lines of a run's ``exchanges.jsonl`` that are whole; none where the run is no federation of processes."""
    path = run.path / EXCHANGES
    return list(parsed_exchanges(path.read_bytes())) if path.is_file() else []


def _by(key: str, entries: Iterable[Exchange]) -> dict[int, list[Exchange]]:
    """The exchanges of each agent, or of each round, in ascending order of these."""
    found: dict[int, list[Exchange]] = {}
    for entry in entries:
        found.setdefault(entry[key], []).append(entry)
    return dict(sorted(found.items()))


def attendance_html(groups: Sequence[Group]) -> Markup | None:
    """Tables and pictures of every run that has a log of exchanges, and absences in simulations; None without any."""
    parts = []
    for place, (name, run) in enumerate(named_runs(groups)):
        entries = exchanges_of(run)
        if entries:
            parts.append(part("headed", name, _exchanges(entries, f"exchanges-{place}")))
    absences = absence_table(groups)
    if absences is not None:
        parts.append(part("noted_table", *absences, "Mean over rounds and seeds; messages that reached the server."))
    return joined(parts) if parts else None


def _exchanges(entries: Sequence[Exchange], prefix: str) -> Markup:
    described = "What became of every agent's request, by round"
    parts = [
        part("noted_table", *exchange_table(entries), NOTE),
        figure_html(outcomes_figure(entries), prefix, described),
    ]
    lines = latencies(entries)
    if lines:
        chart = lines_chart("round", "seconds to an answer", lines)
        parts.append(chart_html(chart, latency_figure(lines), f"{prefix}-latency", "Seconds to an answer, by round"))
    return joined(parts)


def exchange_table(entries: Sequence[Exchange]) -> tuple[list[str], list[list[str]]]:
    """Headings and a line of each agent: how often it answered and how long that took, and what else became of it."""
    seen = [name for name in OUTCOMES if any(entry.get("outcome") == name for entry in entries)]
    other = [name for name in seen if name not in ("answered",)]
    lines = []
    for agent, own in _by("agent", entries).items():
        counts = Counter(entry.get("outcome") for entry in own)
        asked = len(own) - counts["paused"]
        answers = [entry for entry in own if entry.get("outcome") == "answered"]
        seconds, work = ([float(entry.get(key) or 0) for entry in answers] for key in ("seconds", "work_seconds"))
        lines.append(
            [
                f"agent {agent}",
                str(asked),
                f"{100 * counts['answered'] / asked:.3g} %" if asked else MISSING,
                duration(float(np.median(seconds))) if seconds else MISSING,
                duration(float(np.quantile(seconds, 0.95))) if seconds else MISSING,
                duration(float(np.median(work))) if work else MISSING,
                bytes_text(sum(entry.get("bytes_down") or 0 for entry in own)),
                bytes_text(sum(entry.get("bytes_up") or 0 for entry in own)),
                *(str(counts[name]) for name in other),
            ]
        )
    headings = ["", "asked", "answered", "median time", "95 % within", "median work", "bytes down", "bytes up", *other]
    return headings, lines


@styled
def outcomes_figure(entries: Sequence[Exchange], title: str = "") -> Figure:
    """A row of each agent, a column of each round or of several: the worst that became of its requests."""
    agents = sorted({entry["agent"] for entry in entries})
    rounds = 1 + max(entry["round"] for entry in entries)
    width = -(-rounds // BINS)
    names = list(OUTCOMES)
    rank = {name: place for place, name in enumerate(WORST)}
    line = {agent: place for place, agent in enumerate(agents)}
    worst: dict[tuple[int, int], str] = {}
    for entry in entries:
        cell, name = (line[entry["agent"]], entry["round"] // width), entry.get("outcome")
        if name in rank and rank[name] >= rank.get(worst.get(cell, ""), -1):
            worst[cell] = name
    figure = new_figure(7.6, min(9.0, 1.5 + 0.3 * len(agents)), title)
    axes = figure.add_subplot()
    for (row, column), name in worst.items():
        axes.broken_barh([(column * width + 0.5, width)], (row - 0.42, 0.84), color=OUTCOMES[name], linewidth=0)
    axes.set_xlim(0.5, rounds + 0.5)
    step = -(-len(agents) // 25)
    axes.set_yticks(range(0, len(agents), step), [f"agent {agent}" for agent in agents[::step]])
    axes.set_ylim(len(agents) - 0.5, -0.5)
    axes.grid(False)
    axes.set_xlabel("round" if width == 1 else f"round ({width} in a column: the worst of them)")
    handles = [Patch(color=OUTCOMES[name], label=name) for name in names if name in worst.values()]
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), labelcolor=MUTED)
    return figure


def latencies(entries: Sequence[Exchange]) -> dict[str, dict[str, Any]]:
    """Seconds to an answer by round, of each agent; of many agents, the median, the fastest and the slowest."""
    known = [entry for entry in entries if entry.get("outcome") == "answered" and (entry.get("seconds") or 0) > 0]
    rounds, agents = _by("round", known), _by("agent", known)
    if len(rounds) < 2:
        return {}
    if len(agents) <= SHOWN:
        return {
            f"agent {agent}": {"x": [entry["round"] + 1 for entry in own], "y": [entry["seconds"] for entry in own]}
            for agent, own in agents.items()
        }
    each = [[entry["seconds"] for entry in own] for own in rounds.values()]
    levels = {"median": 0.5, "fastest": 0.0, "slowest": 1.0}
    x = [one + 1 for one in rounds]
    return {name: {"x": x, "y": [float(np.quantile(own, level)) for own in each]} for name, level in levels.items()}


@styled
def latency_figure(lines: Mapping[str, Mapping[str, Any]], title: str = "") -> Figure:
    """Seconds over rounds on a logarithmic axis."""
    figure = new_figure(7.6, 3.8, title)
    axes = figure.add_subplot()
    for place, (label, line) in enumerate(lines.items()):
        axes.plot(line["x"], line["y"], color=colour(place), label=label, marker="." if len(line["x"]) < 40 else None)
    axes.set_yscale("log")
    axes.set_xlabel("round")
    axes.set_ylabel("seconds to an answer")
    figure.legend(loc="outside lower left", ncols=4)
    return figure


def absence_table(groups: Sequence[Group]) -> tuple[list[str], list[list[str]]] | None:
    """Headings and lines: of groups in which agents were absent, how many of a round's messages came.

    What agents received is counted of all who took part, also of those whose message did not come.
    """
    labels, counts, shares, traffic = [], [], [], []
    for group in groups:
        rows = [row for history in group.histories for row in history.rows if row.get("present") is not None]
        agents = _learners(group.runs[0])
        share = float(group.runs[0].settings.get("federation.participation") or 1)
        if agents is None:
            continue
        usual = max(1, round(share * agents))
        # Under Poisson sampling a round may have nobody.
        asked = [float(usual if row.get("participants") is None else row["participants"]) for row in rows]
        present = [float(row["present"]) for row in rows]
        missing = sum(asked) - sum(present)
        if not asked or missing < 0.5:
            continue
        excluded = [len(row.get("excluded") or ()) for row in rows]
        dropped = [len(row.get("dropped") or ()) for row in rows]
        down = [seed.rows[-1].get("bytes_down") for seed in group.histories if seed.rows]
        whole = float(np.mean([each for each in down if each is not None] or [float("nan")])) * agents
        labels.append(group.label)
        counts.append([float(np.mean(each)) for each in (asked, present, excluded, dropped)])
        shares.append(f"{100 * missing / sum(asked):.3g} %")
        traffic.append(bytes_text(whole * missing / sum(asked)) if np.isfinite(whole) else MISSING)
    if not labels:
        return None
    called, came, out, lost = (alike(*column) for column in zip(*counts, strict=True))
    headings = ["", "asked a round", "messages a round", "absent", "excluded", "dropped", "bytes down to the absent"]
    return headings, [list(line) for line in zip(labels, called, came, shares, out, lost, traffic, strict=True)]


def _learners(run: Run) -> int | None:
    """Who can send a message: every agent, or the one learner that has all agents' environments (``central``)."""
    kind = run.kind("strategy")
    if kind is not None and kind in strategies and strategies[kind].needs.pooled:
        return 1
    agents: int | None = run.settings.get("federation.agents")
    return agents


def clusters_html(groups: Sequence[Group]) -> Markup | None:
    """Who was averaged with whom at the end, and how many clusters there were by round; None where none is recorded."""
    headings, lines = ["", "seed", "clusters", "agents together"], []
    counted: dict[str, dict[str, Any]] = {}
    for group in groups:
        for history in group.histories:
            rows = [row for row in history.rows if isinstance(row.get("cluster"), list)]
            if not rows:
                continue
            lines.append([group.label, str(history.seed), *_together(rows[-1]["cluster"])])
            counted[f"{group.label}, seed {history.seed}"] = {
                "x": [row["round"] + 1 for row in rows],
                "y": [len(set(row["cluster"])) for row in rows],
                "held": True,
            }
    if not lines:
        return None
    table = table_html(headings, lines, "told")
    if all(len(set(line["y"])) < 2 for line in counted.values()):
        return table
    shown = dict(list(counted.items())[:SHOWN])
    chart = {**lines_chart("rounds", "clusters", shown), "whole": True}
    return joined([table, chart_html(chart, _clusters_figure(shown), "clusters", "Number of clusters by round")])


def _together(cluster: Sequence[float]) -> tuple[str, str]:
    members: dict[float, list[str]] = {}
    for agent, name in enumerate(cluster):
        members.setdefault(name, []).append(str(agent))
    return str(len(members)), "; ".join(", ".join(those) for those in members.values())


@styled
def _clusters_figure(lines: Mapping[str, Mapping[str, Any]], title: str = "") -> Figure:
    figure = new_figure(7.6, 3.4, title)
    axes = figure.add_subplot()
    for place, (label, line) in enumerate(lines.items()):
        axes.plot(line["x"], line["y"], color=colour(place), label=label, drawstyle="steps-post")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("rounds")
    axes.set_ylabel("clusters")
    figure.legend(loc="outside lower left", ncols=2)
    return figure
