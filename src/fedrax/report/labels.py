"""What groups of runs and runs are called: so that none is mistaken for another, and each name is there once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LONGEST = 80
"""Characters of a label made of settings; where they need more, the folder names the group."""
TELLING = (
    "strategy.kind",
    "environment.id",
    "attack.kind",
    "aggregator.kind",
    "learner.kind",
    "federation.agents",
)
"""What tells experiments apart at a glance."""
BARE = ("strategy.kind", "environment.id", "attack.kind", "learner.kind")
"""Names that need no key in a label."""
CLEAR = ("learner", "federation")
"""Tables whose keys of several words (``learning_rate``) say by themselves what they are."""
ALWAYS = ("compression", "privacy", "attack", "preaggregator", "federation", "runtime")
"""Tables that no other setting changes: where they differ, somebody chose so, and a label says it."""

Settings = Mapping[str, Any]
"""``section.key -> value``."""


def labels_of(settings: Sequence[Settings], setups: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """A label of each group, no two of them equal.

    Args:
        settings: of each group.
        setups: their names where they are of a sweep, else empty.
        folders: one of each group's runs.

    Returns:
        The setups' names where all are of a sweep; else the settings in which the groups differ, or the strategy, the
        environment and the number of agents of a single one.
    """
    if all(setups):
        return _unique(_told_apart(setups, settings), folders)
    keys = telling_keys(settings)
    names = [setup or folder.name for setup, folder in zip(setups, folders, strict=True)]
    labels = [_label(each, keys) if keys else _overview(each) for each in settings]
    short = [label if 0 < len(label) <= LONGEST else name for label, name in zip(labels, names, strict=True)]
    return _unique(short, folders)


def run_labels(runs: Sequence[tuple[str, str, Sequence[int], Path]]) -> list[str]:
    """A name of each run, no two of them equal: its group's, with its seeds in a sweep, and its folder elsewhere.

    Args:
        runs: of each its group's label, its setup's name or none, its seeds, and its folder.
    """
    if len(runs) == 1:
        return [folder.name for *_, folder in runs]
    names = []
    for label, setup, seeds, folder in runs:
        if setup:
            names.append(f"{label}, {_said_seeds(seeds)}")
        else:
            names.append(label if folder.name in label else f"{label} ({folder.name})")
    return _unique(names, [folder for *_, folder in runs])


def _said_seeds(seeds: Sequence[int]) -> str:
    if len(seeds) < 2:
        return f"seed {seeds[0]}" if seeds else "no seed"
    whole = list(range(seeds[0], seeds[-1] + 1)) == list(seeds)
    return f"seeds {seeds[0]} to {seeds[-1]}" if whole else f"seeds {', '.join(map(str, seeds))}"


def _told_apart(setups: Sequence[str], settings: Sequence[Settings]) -> list[str]:
    """The setups' names, with what differs behind those that several have: runs of one before and after a change."""
    labels = list(setups)
    for name, count in Counter(setups).items():
        places = [place for place, setup in enumerate(setups) if setup == name]
        keys = telling_keys([settings[place] for place in places]) if count > 1 else []
        for place in places if keys else ():
            said = _label(settings[place], keys)
            labels[place] = f"{name} ({said})" if 0 < len(said) <= LONGEST else name
    return labels


def telling_keys(settings: Sequence[Settings]) -> list[str]:
    """Few settings that tell the configurations apart, those in :data:`TELLING` and :data:`ALWAYS` first.

    A component brings its own options along, so that many settings differ where one says it all: a key is
    taken only if it separates configurations that the keys before it do not, or is the first that differs in one of
    the tables of :data:`ALWAYS`.
    """
    keys: list[str] = []
    apart, chosen = 1, tuple(f"{table}." for table in ALWAYS)
    all_keys = dict.fromkeys(key for setting in settings for key in setting)
    known = dict.fromkeys([*TELLING, *(key for key in all_keys if key.startswith(chosen)), *all_keys])
    for key in known:
        now = len({tuple(str(setting.get(taken)) for taken in (*keys, key)) for setting in settings})
        if now > apart:
            keys.append(key)
            apart = now
    for table in chosen:
        own = [key for key in known if key.startswith(table)]
        differing = [key for key in own if len({str(each[key]) for each in settings if key in each}) > 1]
        if differing and not set(differing) & set(keys):
            keys.append(differing[0])
    return keys


def _label(settings: Settings, keys: Sequence[str]) -> str:
    lasts = Counter(key.rpartition(".")[2] for key in settings)
    said = []
    for key in keys:
        if key not in settings:
            continue  # An option of another component than this one's.
        value, (table, _, last) = settings[key], key.rpartition(".")
        clear = key == "federation.agents" or (table in CLEAR and "_" in last and lasts[last] == 1)
        if key in BARE:
            said.append(f"no {table}" if value == "none" else str(value))
        elif last in ("kind", "id"):
            said.append(f"{table}={value}")
        else:
            said.append(f"{last if clear else key}={value}")
    return ", ".join(said)


def _overview(settings: Settings) -> str:
    agents = settings.get("federation.agents")
    environment = settings.get("environment.kind", settings.get("environment.id"))
    environment = ", ".join(settings.get("environment.tasks") or ()) or environment
    parts = [settings.get("strategy.kind"), environment, f"{agents} agents" if agents else None]
    return ", ".join(str(part) for part in parts if part)


def _unique(names: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """The names, those that several have with what differs in their folders behind them, or else a number.

    Tables, charts and colours are found by these names: of two equal ones, one would be lost.
    """
    labels = list(names)
    for name, count in Counter(names).items():
        if count > 1:
            places = [place for place, each in enumerate(names) if each == name]
            for place, own in zip(places, _differing([folders[place] for place in places]), strict=True):
                labels[place] = f"{name} ({own})" if own else name
    found: list[str] = []
    for label in labels:
        number, numbered = 1, label
        while numbered in found or (number > 1 and numbered in labels):
            number += 1
            numbered = f"{label} ({number})"
        found.append(numbered)
    return found


def _differing(folders: Sequence[Path]) -> list[str]:
    """Of each folder the parts between those with which all begin and those with which all end."""
    parts = [list(folder.resolve().parts) for folder in folders]
    for end in (0, -1):
        while all(parts) and len({each[end] for each in parts}) == 1:
            for each in parts:
                del each[end]
    return ["/".join(each) for each in parts]
