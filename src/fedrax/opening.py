"""What a command is about to do, in one line, said before JAX is imported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedrax.parsing import parsed_toml, text_of
from fedrax.sources import DEFAULT_KINDS, in_tables, parse_override, presets, read_source

AGENTS, ENVIRONMENT = 10, "CartPole-v1"
"""What :mod:`fedrax.config_tables` has where a source says nothing."""
BUDGET = {
    "rounds": "rounds",
    "trajectories": "trajectories per agent",
    "steps": "environment steps",
    "steps_per_agent": "environment steps per agent",
}


def opening(
    source: str | Path | Mapping[str, Any] | None, overrides: Iterable[str] = (), *, seeds: int | None = None
) -> str:
    """``fedpg-br/cartpole: strategy fedpg-br, learner policy-gradient, CartPole-v1, 10 agents, ...``.

    Read off a source and ``key=value`` as they are: nothing is checked but that they can be read. What a plugin's
    strategy implies of the learner, it does not know.

    Raises:
        FedraxError: there is no such preset or file, or it is not TOML; or an override is no ``key=value``.
    """
    base = read_source(source) if isinstance(source, (str, Path)) else source or {}
    layers = [in_tables(base), *map(parse_override, overrides)]
    attack = _kind(layers, "attack")
    attackers = _last([layer["attack"] for layer in layers if isinstance(layer.get("attack"), dict)], attack, "agents")
    attackers = _last(layers, "attack", "agents") if attackers is None else attackers
    environment = _last(layers, "environment", "id") or _last(layers, "environment", "task") or ENVIRONMENT
    agents = _last(layers, "federation", "agents") or AGENTS
    parts = [
        f"strategy {_kind(layers, 'strategy')}",
        f"learner {_kind(layers, 'learner')}",
        str(environment),
        "1 agent" if agents == 1 else f"{agents} agents",
    ]
    if attack != "none":
        parts.append(f"attack {attack} by {attackers or 0} of them")
    limits = {name: _last(layers, "budget", name) for name in BUDGET}
    budget = [f"{_grouped(limit)} {BUDGET[name]}" for name, limit in limits.items() if limit not in (None, "none")]
    parts += [" or ".join(budget)] if budget else []
    together = seeds if seeds is not None else next((layer["seeds"] for layer in layers[::-1] if "seeds" in layer), 1)
    parts += [f"{together} seeds"] if together != 1 else []
    name = str(source) if isinstance(source, (str, Path)) else ""
    return f"{name}: {', '.join(parts)}" if name else ", ".join(parts)


def sweep_opening(file: Path) -> str:
    """``robust.toml: 4 setups of fedpg-br/cartpole, 10 seeds each``; only the name where the file cannot be read so."""
    try:
        table = parsed_toml(text_of(file))
        setups, seeds = len(table["setups"]), table.get("seeds", 1)
        seeds = len(seeds) if isinstance(seeds, list) else int(seeds)
    except (OSError, ValueError, LookupError, TypeError, OverflowError):
        return f"{file}: reading the setups"
    preset = f" of {table['preset']}" if table.get("preset") in presets() else ""
    grid = ", times a grid" if "grid" in table else ""
    return f"{file}: {_counted(setups, 'setup')}{preset}{grid}, {_counted(seeds, 'seed')} each"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _kind(layers: list[dict[str, Any]], component_kind: str) -> str:
    return str(_last(layers, component_kind, "kind") or DEFAULT_KINDS[component_kind])


def _last(layers: list[dict[str, Any]], table: str, key: str) -> Any:
    """What the last layer that says something says of a key; None where none does."""
    for layer in reversed(layers):
        found = layer.get(table)
        if isinstance(found, Mapping) and key in found:
            return found[key]
    return None


def _grouped(number: Any) -> str:
    return f"{number:,}" if isinstance(number, int) else str(number)
