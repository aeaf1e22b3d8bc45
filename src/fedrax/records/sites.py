"""Which site is which agent of a federation, in a name that people know: its key's, or where it has none its node's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedrax.errors import FedraxError
from fedrax.records.files import read_json

MEMBERS = "members.json"
"""The nodes that have joined, by agent."""
KEYS = "keys.json"
"""The names of the registered keys, by digest."""
SHOWN = 8
"""Characters shown of a name that a node gave itself, which is a long random one."""


def key_names(folder: Path) -> dict[str, str]:
    """The names of the keys that were registered for the run in ``folder``, by digest; none where there is no list."""
    return {digest: str(name) for digest, name in _table(folder / KEYS).items()}


def site_names(folder: Path) -> dict[int, str]:
    """By agent, the name of the key of its node, or the beginning of the node's own; of those that ever joined."""
    keys, names = key_names(folder), {}
    for agent, place in _table(folder / MEMBERS).items():
        if isinstance(place, dict) and agent.isdecimal():
            names[int(agent)] = keys.get(str(place.get("key")), str(place.get("node", ""))[:SHOWN])
    return names


def _table(path: Path) -> dict[str, Any]:
    """A file that others check: where it is damaged, nobody has a name."""
    try:
        return read_json(path, "list") if path.exists() else {}
    except FedraxError:
        return {}
