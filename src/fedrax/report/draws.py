"""What the agents' environments of a seed were drawn to be, and where one seed had several draws."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedrax.report.runs import Group, History, Run, named_runs

Draw = list[Mapping[str, Any]]
"""Parameters by agent."""
DECIDING = ("id", "kwargs", "heterogeneity", "draws", "tasks", "goals", "held_out_goals")
"""Of the table environment: where runs differ in these, other environments are what was asked for."""
SEEDS, NAMES = 4, 3
"""Most clauses of the sentence, and most runs that are named on each side of one; of more, the first."""


def drawn_for(run: Run, history: History) -> Draw:
    """What the agents' environments of a seed were drawn to be: a run's seeds take its draws in turn."""
    draws = run.manifest.get("draws") or []
    if not isinstance(draws, list) or not draws:
        return []
    first = run.config.get("seed", 0)
    drawn = draws[(history.seed - first) % len(draws)] if isinstance(first, int) else None
    return drawn if isinstance(drawn, list) and all(isinstance(agent, Mapping) for agent in drawn) else []


def drawn_apart(groups: Sequence[Group]) -> str:
    """One sentence: which seed acted in different draws of one distribution in which runs; empty where none did."""
    seeds: dict[tuple[str, ...], list[int]] = {}
    for seed, parts in _parts(groups):
        seeds.setdefault(tuple(map(_few, parts)), []).append(seed)
    if not seeds:
        return ""
    clauses = [
        f"seed{'s' * (len(those) > 1)} {', '.join(map(str, those))} did not act in the same environments in {first} "
        f"as in {' or in '.join(others)}"
        for (first, *others), those in seeds.items()
    ]
    told = "; ".join(clauses[:SEEDS]) + ("; and so on" if len(clauses) > SEEDS else "")
    return (
        f"S{told[1:]}: what is drawn follows from a run's first seed, so train these runs with the same `seed`, or "
        "give the values as a list."
    )


def _parts(groups: Sequence[Group]) -> Iterator[tuple[int, list[list[str]]]]:
    """Seeds that runs with other first seeds had in other draws: the names of the runs, by draw."""
    acted: dict[tuple[int, str], list[tuple[Draw, Any, list[str]]]] = {}
    for name, run in named_runs(groups):
        settings = run.config.get("environment")
        table = settings if isinstance(settings, Mapping) else {}
        asked = json.dumps([table.get(key) for key in DECIDING], sort_keys=True, default=str)
        for history in run.histories:
            if not (drawn := drawn_for(run, history)):
                continue
            parts = acted.setdefault((history.seed, asked), [])
            for known, _, names in parts:
                # More agents change no other agent's draw.
                if all(one == other for one, other in zip(known, drawn, strict=False)):
                    names.append(name)
                    break
            else:
                parts.append((drawn, run.config.get("seed", 0), [name]))
    for (seed, _), parts in sorted(acted.items(), key=lambda item: item[0]):
        if len({first for _, first, _ in parts}) > 1:
            yield seed, [names for *_, names in parts]


def _few(names: Sequence[str]) -> str:
    # Names have commas themselves.
    return " and ".join(names[:NAMES]) + (" ..." if len(names) > NAMES else "")
