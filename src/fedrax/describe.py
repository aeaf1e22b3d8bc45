"""What can be named in a configuration, in words: read off the same declarations that validate it."""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Iterable
from types import NoneType, UnionType
from typing import Any

import gymnasium
import jax

from fedrax.config import COMPONENT_KINDS, DEFAULT_KINDS, Config, presets, read_source, resolve
from fedrax.config_tables import Model
from fedrax.environments.base import Box, Dict, Discrete, Tokens
from fedrax.environments.constructor import REQUIRED, constructor_of
from fedrax.environments.distributions import TABLE, JointDistribution, joint_distributions
from fedrax.environments.goals import Goal
from fedrax.environments.native import native_environments
from fedrax.environments.noise import ACTION_NOISE, NOISE, OBSERVATION_NOISE
from fedrax.environments.registry import describe_environment
from fedrax.environments.robotics import FAMILIES, load_robotics
from fedrax.errors import unknown
from fedrax.loggers.base import DEFAULT, loggers
from fedrax.registry import Registry, options_of
from fedrax.report.experiments import FIGURES
from fedrax.runtime.distributed.allowed import check_distributed
from fedrax.runtime.initial import initial_files
from fedrax.runtime.make import make_runtime

KINDS: dict[str, Registry[Any]] = {**COMPONENT_KINDS, "logger": loggers}
"""What components a configuration names: one of each kind, and any number of loggers."""
TABLES = {"logger": "records.loggers.{name}"}
"""Where a configuration has the options of a component, where that is not the table of its kind."""
DEFAULTS = {**DEFAULT_KINDS, "logger": ", ".join(DEFAULT)}


def plain_tables() -> dict[str, type[Model]]:
    """The tables of a configuration that hold plain settings rather than a choice of component."""
    return {
        name: field.annotation
        for name, field in Config.model_fields.items()
        if inspect.isclass(field.annotation) and issubclass(field.annotation, Model)
    }


def overview(environments: Iterable[str] = ()) -> str:
    """Every preset, component, native environment and published figure, by kind; also ``environments`` of plugins."""
    sections = {
        "presets": presets(),
        **{_plural(component_kind): registry.names() for component_kind, registry in KINDS.items()},
        "native environments": native_environments.names(),
        "joint distributions of heterogeneity": joint_distributions.names(),
        "figures": sorted(FIGURES),
        **({"environments of plugins": sorted(environments)} if environments else {}),
    }
    lines = []
    for title, names in sections.items():
        lines += [title, *(f"  {name:32}{_first_line(title, name)}".rstrip() for name in names), ""]
    lines.append(
        "Any Gymnasium id with observations of a Box (or Dict of Boxes) and Discrete or Box actions is one too."
    )
    lines.append(
        "fedrax describe NAME explains a name; component kinds and tables: " + ", ".join([*KINDS, *plain_tables()])
    )
    return "\n".join(lines)


def describe(name: str) -> str:
    """Every option of what is called ``name`` (a component, a component kind, a table, a joint distribution): meaning,
    unit, allowed values, default. Of presets and files, see :func:`configuration`.

    For a native environment, its spaces, its physical parameters and their defaults; for another of Gymnasium's, its
    spaces and the arguments of its constructor.
    """
    found = [
        _component(
            f"{component_kind} {name}",
            TABLES.get(component_kind, component_kind).format(name=name),
            KINDS[component_kind][name],
        )
        for component_kind in KINDS
        if name in KINDS[component_kind]
    ]
    if name in KINDS:
        lines = [f"{kind:32}{_first_line(_plural(name), kind)}".rstrip() for kind in KINDS[name]]
        found.append("\n  ".join([f"{name}, default {DEFAULTS[name]}; one of", *lines]))
    if name in plain_tables():
        found.append(_plain_table(name))
    if name in native_environments:
        found.append(_environment(name))
    elif load_robotics(name) or FAMILIES.fullmatch(name):
        found.append(_host_environment(name))
    if name in joint_distributions:
        found.append(_joint_distribution(joint_distributions[name]))
    if name in FIGURES:
        figure = FIGURES[name]
        found.append(f"figure {name}: fedrax reproduce {name}\n{inspect.cleandoc(str(figure.title))}")
    if not found:
        known = [*presets(), *KINDS, *plain_tables(), *(n for r in KINDS.values() for n in r)]
        known += [*native_environments, *joint_distributions, *FIGURES]
        raise unknown("name", name, set(known))
    return "\n\n".join(found)


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
    return config.to_toml().rstrip()


def _component(title: str, table: str, component: type) -> str:
    lines = [title, "", inspect.cleandoc(component.__doc__ or ""), ""]
    for key, (field, declared, annotation) in options_of(component).items():
        limits = [
            f"{sign} {bound:g}"
            for sign, bound in ((">=", declared.minimum), ("<=", declared.maximum))
            if bound is not None
        ]
        lines += _option(f"{table}.{key}", declared.meaning, annotation, field.default, limits, declared.unit)
    return "\n".join(lines).rstrip()


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
            inspect.cleandoc(kind.__doc__ or ""),
            "",
            f"  observations {_space(kind.spaces.observation)}",
            f"  actions      {_space(kind.spaces.action)}",
            *_goal(kind.spaces.goal),
            f"  time limit   {kind.time_limit} steps",
            "",
            inspect.cleandoc(kind.physics.__doc__ or ""),
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
        lines += [f"  observations {_space(spaces.observation)}", f"  actions      {_space(spaces.action)}"]
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


def _space(space: Box | Dict | Discrete | Tokens) -> str:
    if isinstance(space, Discrete):
        return f"0 to {space.n - 1}"
    if isinstance(space, Tokens):
        return f"{space.length} words of {space.vocabulary}"
    if isinstance(space, Dict):
        return "; ".join(f"{name}: {_space(part)}" for name, part in space.parts)
    numbers = " x ".join(map(str, space.shape))
    low, high = (f"{bound[0]:g}" if len(set(bound)) == 1 else "" for bound in (space.low, space.high))
    return f"{numbers} number{'s' if numbers != '1' else ''}" + (f", {low} to {high}" if low and high else "")


def _joint_distribution(joint: type[JointDistribution]) -> str:
    return (
        _component(f"joint distribution {joint.name}", TABLE, joint)
        + "\n\n  environments: "
        + ", ".join(sorted(joint.environments))
    )


def _plain_table(name: str) -> str:
    model = plain_tables()[name]
    return "\n".join([name, "", inspect.cleandoc(model.__doc__ or ""), "", *_settings(name, model)]).rstrip()


def _settings(name: str, model: type[Model]) -> list[str]:
    """A table's options, those of tables in it too."""
    lines = []
    for key, field in model.model_fields.items():
        if inspect.isclass(field.annotation) and issubclass(field.annotation, Model):
            lines += _settings(f"{name}.{key}", field.annotation)
            continue
        default = field.get_default(call_default_factory=True)
        limits = [
            f"{sign} {getattr(bound, attribute):g}"
            for bound in field.metadata
            for attribute, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
            if hasattr(bound, attribute)
        ]
        lines += _option(f"{name}.{key}", field.description or "", field.annotation, default, limits)
    return lines


def _option(
    key: str,
    meaning: str,
    annotation: Any,
    default: Any,
    limits: list[str],
    unit: str = "",
) -> list[str]:
    kind = ", ".join([_type_name(annotation), *limits])
    shown = "none" if default is None else json.dumps(default)
    return [f"  {key} = {shown}   [{kind}{', ' + unit if unit else ''}]", f"      {meaning}"]


def _type_name(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " | ".join(map(str, arguments))
    if origin in (typing.Union, UnionType):
        return " | ".join("none" if part is NoneType else _type_name(part) for part in arguments)
    if origin is tuple:
        return f"list of {_type_name(arguments[0])}"
    names = {int: "integer", float: "number", bool: "true | false", str: "text", NoneType: "none"}
    return names.get(annotation, "table")


def _first_line(title: str, name: str) -> str:
    for component_kind, registry in KINDS.items():
        if title == _plural(component_kind):
            return inspect.cleandoc(registry[name].__doc__ or "").split("\n")[0]
    if title == "native environments":
        return inspect.cleandoc(native_environments[name].__doc__ or "").split("\n")[0]
    if title == "joint distributions of heterogeneity":
        return inspect.cleandoc(joint_distributions[name].__doc__ or "").split("\n")[0]
    if title == "presets":
        return str(read_source(name).get("name", ""))
    if title == "figures":
        return str(FIGURES[name].title)
    return ""


def _plural(component_kind: str) -> str:
    return component_kind[:-1] + "ies" if component_kind.endswith("y") else component_kind + "s"
