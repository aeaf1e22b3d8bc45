"""What a command is about to do, in one line, said before JAX is imported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedrax.parsing import parsed_toml, text_of
from fedrax.sources import DEFAULT_KINDS, in_tables, merge, parse_override, presets, read_source

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
    changes = [parse_override(text) for text in overrides]
    # As fedrax.config.resolve does: short forms of environments within each, options of components within two layers.
    environment = _environment([in_tables(base), *changes])
    layers = [in_tables(base), merge(changes)]
    attack = _kind(layers, "attack")
    attackers = _attackers(layers, attack)
    agents = _last(layers, "federation", "agents") or AGENTS
    parts = [
        f"strategy {_kind(layers, 'strategy')}",
        f"learner {_kind(layers, 'learner')}",
        environment,
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


def _environment(layers: list[dict[str, Any]]) -> str:
    """What the last layer calls it that names one: by its id, or by a task of Meta-World's."""
    for layer in reversed(layers):
        table = layer.get("environment")
        said = [table[key] for key in ("id", "task") if key in table] if isinstance(table, Mapping) else []
        if said:
            return str(said[0])
    return ENVIRONMENT


def _attackers(layers: list[dict[str, Any]], attack: str) -> Any:
    """How many, by ``attack.agents`` or within the attack's own table, whichever comes last; None: nobody says."""
    found = None
    for layer in layers:
        table = layer.get("attack")
        for key, value in table.items() if isinstance(table, Mapping) else ():
            if key == "agents":
                found = value
            elif key == attack and isinstance(value, Mapping):
                found = value.get("agents", found)
    return found


def _last(layers: list[dict[str, Any]], table: str, key: str) -> Any:
    """What the last layer that says something says of a key; None where none does."""
    for layer in reversed(layers):
        found = layer.get(table)
        if isinstance(found, Mapping) and key in found:
            return found[key]
    return None


def _grouped(number: Any) -> str:
    return f"{number:,}" if isinstance(number, int) else str(number)
