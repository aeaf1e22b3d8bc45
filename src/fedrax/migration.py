"""Names that earlier versions recorded in run directories, and the present ones.

Runs of earlier versions can be loaded, resumed, evaluated and reported. Whoever writes a former name today, on the
command line or in a file of their own, is told the present one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedrax.errors import FedraxError

if TYPE_CHECKING:
    import numpy as np

FLOWER = ("quorum", "deadline", "gather", "max_norm", "save_every", "staleness", "fast")
KEYS = {
    "environment.copies": "num_envs",
    "environment.heterogeneity.law": "distribution",
    **{f"runtime.{name}": f"flower.{name}" for name in FLOWER},
}
"""Former keys of a configuration, and what each is called now in the same table, or in a table of it."""


def present_keys(tables: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded configuration's tables under present keys, in their order, with options that were not yet there.

    PPO's critic once always shared the actor's torso.
    """
    present = _renamed(tables)
    learner = present.get("learner")
    if isinstance(learner, dict) and learner.get("kind") == "ppo":
        learner.setdefault("critic_torso", "shared")
    return present


def _renamed(tables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    renamed: dict[str, Any] = {}
    for key, value in tables.items():
        below = _renamed(value, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        former = KEYS.get(f"{prefix}{key}")
        *within, name = [key] if former is None else former.split(".")
        table = renamed
        for each in within:
            table = table.setdefault(each, {})
        table[name] = below
    return renamed


def refuse_former_keys(tables: Mapping[str, Any], prefix: str = "") -> None:
    """Raises :class:`FedraxError`, which says the present key, where a configuration has a former one."""
    for key, value in tables.items():
        name = f"{prefix}{key}"
        if name in KEYS:
            present = f"{prefix}{KEYS[name]}"
            raise FedraxError(f"{name} is not allowed: it is now {present}; set {present} = {value!r} instead")
        if isinstance(value, Mapping):
            refuse_former_keys(value, f"{name}.")


def is_recorded(path: Path) -> bool:
    """Whether a TOML file is a run's own ``config.toml``: a run directory has a manifest beside it."""
    return path.name == "config.toml" and (path.parent / "manifest.json").is_file()


LEAVES = {
    r"^\['standing'\]\.front": "['snapshot'].collector_state",
    r"^\['standing'\]": "['snapshot']",
    r"^(\.agents|\['snapshot'\]\.agent)\.private\.params": r"\1.private.received",
    r"^(\.agents|\['snapshot'\]\.agent)\.private\.return_sum$": r"\1.private.returns.total",
    r"^(\.agents|\['snapshot'\]\.agent)\.private\.episodes$": r"\1.private.returns.count",
}
"""Former paths of a checkpoint's leaves, and what each is now; applied in this order."""


COLLECTOR_STATES = (".environments", "['snapshot'].collector_state")
"""Where native environments stand between collections of steps, in a run's checkpoint and in a node's."""

NO_LONGER_STORED = re.compile(r"(\.agents|\['snapshot'\]\.agent)\.private\.((peers|server|teacher)\b.*|weights)")
"""Paths of leaves that earlier versions stored and this one has anew in every round, as the strategy's context:
neighbours' networks and their weights, the server's control variate, the distilled heads."""


def is_no_longer_stored(name: str) -> bool:
    """Whether a checkpoint's leaf, by its present path, may be left out where a state has no place for it."""
    return NO_LONGER_STORED.fullmatch(name) is not None


def present_leaf(name: str) -> str:
    """A checkpoint's leaf under its present path."""
    for former, present in LEAVES.items():
        name = re.sub(former, present, name)
    return name


def present_arrays(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A checkpoint's arrays under present paths, with those that earlier versions did not store.

    Neighbours once counted episodes as real numbers, all agents' trajectories, ``int32[seeds]``, were in the totals of
    ``meta`` alone, and whether a running episode had reached its goal was not known.
    """
    import numpy as np  # Here, so that reading a configuration does not wait for it.

    present = {present_leaf(name): array for name, array in arrays.items()}
    for collector_state in COLLECTOR_STATES:
        over = f"{collector_state}.over"
        if over in present:
            present.setdefault(f"{collector_state}.reached", np.zeros_like(present[over]))
    for name, array in present.items():
        if name.endswith(".private.returns.count"):
            present[name] = array.astype(np.int32)
    total = ".tally.agent_trajectories"
    if ".tally.rounds" in present and total not in present:
        each = [counters["agent_trajectories"] for counters in meta["counters"]]
        present[total] = np.array(each, present[".tally.rounds"].dtype)
    return present
