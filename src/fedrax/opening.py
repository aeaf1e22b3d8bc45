"""What a command is about to do: a line said before JAX is imported, and what a checked configuration trains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedrax.errors import FedraxError, one_line, shown
from fedrax.kinds import DEFAULT_KINDS
from fedrax.parsing import parsed_toml, text_of
from fedrax.sources import as_setting, parse_override, presets, read_source
from fedrax.wording import counted

if TYPE_CHECKING:
    from fedrax.config import Config

BUDGET = {
    "rounds": "rounds",
    "trajectories": "trajectories per agent",
    "steps": "environment steps",
    "steps_per_agent": "environment steps per agent",
}
FEW = 3
"""Names that are listed whole."""
OPTIONAL = ("aggregator", "preaggregator", "attack", "compression", "privacy")
"""Of a :func:`setup`, what is told by name in a line: a value alone would not say what it is of."""


def opening(source: str | Path | Mapping[str, Any] | None, overrides: Iterable[str] = ()) -> str:
    """``fedpg-br/cartpole: checking the configuration ...``.

    Raises:
        FedraxError: there is no such preset or file, or it is not TOML; or an override is no ``key=value``.
    """
    overrides = list(overrides)
    _check_words(source, overrides)
    for text in overrides:
        parse_override(text)
    if not isinstance(source, (str, Path)):
        return "checking the configuration ..."
    read_source(source)
    return f"{one_line(str(source))}: checking the configuration ..."


def _check_words(source: object, overrides: list[str]) -> None:
    """Raises an error for names in place of a preset and of settings, ``ppo CartPole-v1``: all are told at once."""
    words = [text for text in overrides if "=" not in text]
    if not words or not isinstance(source, str) or source in presets() or Path(source).is_file():
        return
    meant = [as_setting(word) for word in (source, *words)]
    if all(meant):
        raise FedraxError(
            f"no preset and no file is called {shown(source)}, and {', '.join(map(shown, words))} "
            f"{'is' if len(words) == 1 else 'are'} not of the form key=value; give settings: {' '.join(meant)}"
        )


def setup_line(config: Config) -> str:
    """``strategy fedpg-br, learner policy-gradient, CartPole-v1, 10 agents, ...``: what is trained, in one line."""
    named = ("strategy", "learner", *OPTIONAL)
    return ", ".join(f"{name} {text}" if name in named else text for name, text in setup(config))


def setup(config: Config) -> Iterator[tuple[str, str]]:
    """What is trained, by name: what every run has, and whatever else is set."""
    yield "strategy", config.strategy["kind"]
    yield "learner", config.learner["kind"]
    yield "environment", _some(config.environment.tasks or [config.environment.id])
    yield "agents", _agents(config)
    for name in ("aggregator", "preaggregator"):
        table = getattr(config, name)
        if table["kind"] != DEFAULT_KINDS[name]:
            yield name, table["kind"]
    if config.attack["kind"] != "none":
        yield "attack", f"{config.attack['kind']} by {config.attack['agents']} of the agents"
    if config.compression["kind"] != "none":
        share = f" (share {config.compression['share']:g})" if "share" in config.compression else ""
        yield "compression", f"{config.compression['kind']}{share}"
    if privacy := ", ".join(_privacy(config)):
        yield "privacy", privacy
    if config.environment.heterogeneity:
        joint = config.environment.heterogeneity.get("distribution")
        differ = f"drawn from {joint}" if joint else f"differ in {_some(list(config.environment.heterogeneity))}"
        yield "heterogeneity", f"environments {differ}"
    if config.environment.goals is not None:
        yield "goals", f"{counted(config.environment.goals, 'goal')} of each agent"
    if config.runtime.kind != "simulation":
        yield "runtime", "each agent a node of a Flower federation"
    limits = {name: getattr(config.budget, name) for name in BUDGET}
    yield "budget", " or ".join(f"{limit:,} {BUDGET[name]}" for name, limit in limits.items() if limit is not None)
    last = config.seed + config.seeds - 1
    yield "seeds", f"seed {last}" if config.seeds == 1 else f"seeds {config.seed} to {last}"


def _agents(config: Config) -> str:
    federation = config.federation
    parts = [counted(federation.agents, "agent")]
    if federation.participation < 1 and federation.sampling == "poisson":
        parts.append(f"each in a round with chance {federation.participation:g}")
    elif federation.participation < 1:
        parts.append(f"{max(1, round(federation.participation * federation.agents))} of them in a round")
    if federation.dropout:
        parts.append(f"who fail to answer with chance {federation.dropout:g}")
    return ", ".join(parts)


def _privacy(config: Config) -> Iterator[str]:
    settings = config.privacy
    if settings.unit is not None:
        cost = f"epsilon {settings.epsilon:g} " if settings.epsilon is not None else ""
        yield f"{cost}per {settings.unit} ({settings.model})"
    if settings.clip is not None:
        yield f"clip {settings.clip:g}"
    if settings.noise:
        yield f"noise {settings.noise:.3g}"
    if settings.secure_sum:
        yield "secure sum"


def _some(names: list[str]) -> str:
    """``a, b and c``; of many, how many others there are."""
    shown = names if len(names) <= FEW else [*names[: FEW - 1], f"{len(names) - FEW + 1} others"]
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))


def sweep_opening(file: Path) -> str:
    """``robust.toml: 4 setups of fedpg-br/cartpole, 10 seeds each``; only the name where the file is no such one."""
    name = one_line(str(file))
    try:
        table = parsed_toml(text_of(file))
        grid = bool(table.get("grid"))
        setups, seeds = len(table.get("setups", {}) if grid else table["setups"]), table.get("seeds", 1)
        seeds = len(seeds) if isinstance(seeds, list) else int(seeds)
    except (OSError, ValueError, LookupError, TypeError, OverflowError):
        return f"{name}: reading the setups"
    if seeds < 1 or not (setups or grid):
        return f"{name}: reading the setups"
    preset = f" of {table['preset']}" if table.get("preset") in presets() else ""
    what = f"{counted(setups, 'setup')}{preset}{', times a grid' if grid else ''}" if setups else f"a grid{preset}"
    return f"{name}: {what}, {counted(seeds, 'seed')} each"
