"""What can be named in a configuration, in words: read off the same declarations that validate it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from typing import Any

import gymnasium
import jax

from fedrax import names
from fedrax.config import COMPONENT_KINDS, presets, resolve
from fedrax.describe_keys import all_keys, component_text, described_keys, plain_table, table_text
from fedrax.environments.base import Box, Dict, Discrete, Tokens
from fedrax.environments.constructor import REQUIRED, constructor_of
from fedrax.environments.distributions import TABLE, JointDistribution, joint_distributions
from fedrax.environments.goals import Goal
from fedrax.environments.native import native_environments
from fedrax.environments.noise import ACTION_NOISE, NOISE, OBSERVATION_NOISE
from fedrax.environments.registry import describe_environment
from fedrax.environments.robotics import FAMILIES, load_robotics
from fedrax.errors import SOME, FedraxError, near, shown, unknown
from fedrax.kinds import DEFAULT_KINDS
from fedrax.loggers.base import DEFAULT, loggers
from fedrax.other_names import component_called, keys_called, other_way, unknown_key
from fedrax.privacy.guarantee import guarantee
from fedrax.registry import Registry
from fedrax.report.experiments import FIGURES
from fedrax.runtime.distributed.allowed import check_distributed
from fedrax.runtime.initial import initial_files
from fedrax.runtime.make import make_runtime
from fedrax.wording import documentation

KINDS: dict[str, Registry[Any]] = {**COMPONENT_KINDS, "logger": loggers}
"""What components a configuration names: one of each kind, and any number of loggers."""
TABLES = {"logger": "records.loggers.{name}"}
"""Where a configuration has the options of a component, where that is not the table of its kind."""
DEFAULTS = {**DEFAULT_KINDS, "logger": ", ".join(DEFAULT)}


def registered() -> dict[str, dict[str, str]]:
    """What is registered by now, plugins' too, as :func:`fedrax.names.components` reads it from the source."""
    return {
        **{names.plural(component_kind): _summaries(registry) for component_kind, registry in KINDS.items()},
        names.ENVIRONMENTS: _summaries(native_environments),
        names.DISTRIBUTIONS: _summaries(joint_distributions),
    }


def describe(name: str) -> str:
    """Every option of what is called ``name`` (a component, a component kind, a table, a key, a joint distribution):
    meaning, unit, allowed values, default. Of presets and files, see :func:`configuration`.

    For a native environment, its spaces, its physical parameters and their defaults; for another of Gymnasium's, its
    spaces and the arguments of its constructor.
    """
    found = [_component_text(kind, name) for kind, registry in KINDS.items() if name in registry]
    if name in KINDS:
        lines = [f"{kind:32}{line}".rstrip() for kind, line in _summaries(KINDS[name]).items()]
        found.append("\n  ".join([f"{name}, default {DEFAULTS[name]}; one of", *lines]))
    component_kind, _, component = name.partition(".")
    if component_kind in KINDS and component in KINDS[component_kind]:
        found.append(_component_text(component_kind, component))
    if (table := plain_table(name)) is not None:
        found.append(table_text(name, table))
    if name in native_environments:
        found.append(_environment(name))
    elif load_robotics(name) or FAMILIES.fullmatch(name):
        found.append(_host_environment(name))
    if name in joint_distributions:
        found.append(_joint_distribution(joint_distributions[name]))
    if name in FIGURES:
        figure = FIGURES[name]
        found.append(f"figure {name}: fedrax reproduce {name}\n{inspect.cleandoc(str(figure.title))}")
    found = found or described_keys(name)
    if not found:
        within, _, last = name.rpartition(".")
        if way := other_way(name):
            raise FedraxError(f"unknown name {shown(name)}: {way}")
        components = [component for registry in KINDS.values() for component in registry]
        foreign = within in KINDS or not (within or near(name, components))
        if foreign and (said := component_called(last, KINDS)):
            raise FedraxError(f"unknown name {shown(name)}: {said}")
        allowed = [each.rpartition(".")[2] for each in all_keys() if within and each.rpartition(".")[0] == within]
        if allowed:
            raise unknown_key(name, allowed, f"fedrax describe {within}", known=all_keys())
        if meant := [] if within else keys_called(name, all_keys()):
            raise FedraxError(f"unknown name {shown(name)} (did you mean {' or '.join(meant[:SOME])}?)")
        known = [*presets(), *KINDS, *names.plain_tables(), *components]
        known += [*native_environments, *joint_distributions, *FIGURES]
        known += [part for key in all_keys() for part in (key, key.rpartition(".")[2])]
        if not (likely := _likely(name, known)):
            likely = _likely(name, [each for each in gymnasium.registry if "/" not in each])
        raise unknown("name", name, [*known, *likely], "fedrax list and fedrax describe TABLE")
    return "\n\n".join(found)


def _likely(name: str, known: Iterable[str]) -> list[str]:
    """Those that the name may be a misspelling or a part of."""
    known = list(known)
    return [*near(name, known), *(each for each in known if name.lower() in each.lower())]


def configuration(source: str | None, overrides: Iterable[str] = (), *, plugins: Iterable[str] = ()) -> str:
    """What a preset, a TOML file or the defaults describe under ``key=value`` overrides, as TOML with every option.

    It is checked as far as it can be without training.

    Raises:
        FedraxError: a configuration that cannot run, in one line.
    """
    config = resolve(source, overrides, plugins=plugins)
    runtime = make_runtime(config)
    try:
        initial_files(config)
        jax.eval_shape(runtime.federation.init, jax.random.key(0))
        if config.runtime.kind == "flower":
            check_distributed(config, runtime.federation)
    finally:
        runtime.close()
    promised = guarantee(config.privacy, config.federation)
    rounds = 1 if config.privacy.unit == "trajectory" else config.budget.rounds
    lines = [config.to_toml().rstrip()]
    if promised is not None and rounds is not None:
        lines.append(f"# All of its rounds: {promised.text(rounds)}.")
    return "\n\n".join(lines)


def _component_text(component_kind: str, name: str) -> str:
    table = TABLES.get(component_kind, component_kind).format(name=name)
    return component_text(f"{component_kind} {name}", table, KINDS[component_kind][name])


def _summaries(registry: Registry[Any]) -> dict[str, str]:
    """The first line on each of a registry's classes."""
    return {name: documentation(registry[name]).split("\n")[0] for name in registry}


def _environment(name: str) -> str:
    kind = native_environments[name]
    noisy = OBSERVATION_NOISE * isinstance(kind.spaces.observation, Box) + ACTION_NOISE * isinstance(
        kind.spaces.action, Box
    )
    physics = {**kind().physics(), **{key: NOISE[key] for key in noisy}}
    return "\n".join(
        [
            f"native environment {name}",
            "",
            documentation(kind),
            "",
            f"  observations {space_text(kind.spaces.observation)}",
            f"  actions      {space_text(kind.spaces.action)}",
            *_goal(kind.spaces.goal),
            f"  time limit   {kind.time_limit} steps",
            "",
            documentation(kind.physics),
            "",
            *(f"  {TABLE}.{key} = {json.dumps(value)}" for key, value in physics.items()),
        ]
    )


def _host_environment(name: str) -> str:
    arguments = constructor_of(name).arguments
    lines = [f"environment {name}, stepped by Gymnasium", ""]
    if REQUIRED in arguments.values():
        limit = gymnasium.registry[name].max_episode_steps
    else:
        described = describe_environment(name)
        spaces, limit = described.spaces, described.time_limit
        lines += [f"  observations {space_text(spaces.observation)}", f"  actions      {space_text(spaces.action)}"]
        lines += _goal(spaces.goal)
    lines += [f"  time limit   {f'{limit} steps' if limit else 'none: set environment.horizon'}", ""]
    for key, value in arguments.items():
        lines.append(f"  environment.kwargs.{key}" + (", required" if value is REQUIRED else f" = {value!r}"))
    return "\n".join(lines).rstrip()


def _goal(goal: Goal | None) -> list[str]:
    """How a goal environment rewards, as a line; none for another."""
    if goal is None:
        return []
    if goal.shape != "sparse":
        return [
            "  reward       " + {"distance": "-d", "exponential": "exp(-d)"}[goal.shape] + ", d the goals' distance"
        ]
    return [f"  reward       {goal.reached:g} within {goal.threshold:g} of the desired goal, else {goal.missed:g}"]


def space_text(space: Box | Dict | Discrete | Tokens) -> str:
    """What is in a space, in a few words."""
    if isinstance(space, Discrete):
        return f"{space.start} to {space.start + space.n - 1}"
    if isinstance(space, Tokens):
        return f"{space.length} words of {space.vocabulary}"
    if isinstance(space, Dict):
        return "; ".join(f"{name}: {space_text(part)}" for name, part in space.parts)
    numbers = " x ".join(map(str, space.shape))
    low, high = (f"{bound[0]:g}" if len(set(bound)) == 1 else "" for bound in (space.low, space.high))
    return f"{numbers} number{'s' if numbers != '1' else ''}" + (f", {low} to {high}" if low and high else "")


def _joint_distribution(joint: type[JointDistribution]) -> str:
    return (
        component_text(f"joint distribution {joint.name}", TABLE, joint)
        + "\n\n  environments: "
        + ", ".join(sorted(joint.environments))
    )
