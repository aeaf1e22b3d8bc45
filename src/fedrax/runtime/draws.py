"""How the agents' environments of a run differ: draws from the configuration's heterogeneity table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial

import gymnasium

from fedrax.config import Config
from fedrax.environments.base import NativeEnvironment, Spaces
from fedrax.environments.distributions import joint_draws, joint_keys
from fedrax.environments.divergence import environment_divergence
from fedrax.environments.goal_sets import NO_GOALS, goals_of, held_out_of
from fedrax.environments.heterogeneity import draw, drawn_names
from fedrax.environments.host import stepped_by
from fedrax.environments.host_parameters import arguments_among, check_host_parameters, host_defaults, host_physics
from fedrax.environments.native import native_environments
from fedrax.environments.native_goals import GoalsOfOne
from fedrax.environments.native_noise import with_noise
from fedrax.environments.native_tasks import MixedTasks
from fedrax.environments.noise import NOISE
from fedrax.environments.registry import Description, describe_environment
from fedrax.environments.tasks import TASK, Mixture, mix, task_of
from fedrax.errors import FedraxError

ASSIGNED = {TASK, *NO_GOALS}
"""Parameters that number what an agent has, and are no quantities."""


def task_ids(config: Config) -> tuple[str, ...]:
    """The environments that agents have, in turn: one, unless ``environment.tasks`` names several."""
    return tuple(config.environment.tasks) or (config.environment.id,)


def describe_run(config: Config) -> tuple[Description, Mixture | None]:
    """What the agents' environments look like, made alike where agents have different tasks.

    Raises:
        FedraxError: as :func:`describe_environment`, or tasks that cannot be made alike.
    """
    settings, ids = config.environment, task_ids(config)
    if settings.id not in ids:
        raise FedraxError(
            f"environment.id = {settings.id!r} is none of environment.tasks = {list(ids)}: the server acts in it; set "
            "environment.id to one of them, or environment.tasks=[] for an environment that all agents have"
        )
    if len(ids) > config.federation.agents:
        raise FedraxError(
            f"environment.tasks names {len(ids)} environments for federation.agents = {config.federation.agents}, who "
            "have them in turn: raise the number of agents, or leave tasks out"
        )
    if settings.native and not runs_native(config):
        for id in ids:
            if id in native_environments and id not in gymnasium.registry and len(ids) > 1:
                others = [other for other in ids if other not in native_environments]
                for other in others:  # An id that nobody knows is said to be that.
                    describe_environment(
                        other, native=False, backend=settings.backend, mission=settings.mission, kwargs=settings.kwargs
                    )
                raise FedraxError(
                    f"environment.tasks = {list(ids)} is not allowed: {id!r} exists in JAX only, and "
                    f"{', '.join(map(repr, others))} not in JAX; give tasks of one kind"
                )
    each = [
        describe_environment(
            id,
            native=runs_native(config),
            backend=settings.backend,
            mission=settings.mission,
            kwargs=settings.kwargs,
        )
        for id in ids
    ]
    if not settings.tasks:
        if settings.task_identity:
            raise FedraxError("environment.task_identity needs environment.tasks, a list of environments")
        return _with_rule_of_all(config, each[0]), None
    mixture = mix(ids, [described.spaces for described in each], identity=settings.task_identity)
    limits = [described.time_limit for described in each if described.time_limit is not None]
    modes = [mode for mode in each[0].render_modes if all(mode in described.render_modes for described in each)]
    limit = min(limits) if len(limits) == len(each) else None
    known = Description(" and ".join(ids), mixture.spaces, limit, each[0].native, tuple(modes))
    return _with_rule_of_all(config, known), mixture


def _with_rule_of_all(config: Config, known: Description) -> Description:
    """With the rule of rewards that all agents' environments have; without where arguments give them different ones."""
    settings, rule = config.environment, known.spaces.goal
    asked = config.component("learner").needs_goal_rule
    if rule is None or not asked or not settings.heterogeneity or runs_native(config):
        return known
    ids, first = task_ids(config), None
    for number, parameters in enumerate(site for sites in all_draws(config) for site in sites):
        id = ids[task_of(parameters)] if settings.tasks else ids[0]
        own = arguments_among(id, {name: parameters[name] for name in own_parameters(config, id)})
        if not own:
            return known
        described = describe_environment(
            id, native=False, backend=settings.backend, mission=settings.mission, kwargs={**settings.kwargs, **own}
        )
        first = first or described.spaces
        if described.spaces.goal != first.goal:
            shown = ", ".join(f"{name} = {value!r}" for name, value in own.items())
            reason = f"agent {number % config.federation.agents}'s differs from agent 0's: it has {shown}"
            return dataclasses.replace(known, spaces=dataclasses.replace(known.spaces, goal=None, no_goal=reason))
    rule, why = (first.goal, first.no_goal) if first else (rule, "")
    return dataclasses.replace(known, spaces=dataclasses.replace(known.spaces, goal=rule, no_goal=why))


def spaces_of(config: Config) -> dict[str, Spaces]:
    """The spaces of each of the environments that agents have, by its id, before tasks are made alike."""
    described, mixture = describe_run(config)
    return (
        {config.environment.id: described.spaces}
        if mixture is None
        else dict(zip(mixture.ids, mixture.tasks, strict=True))
    )


def runs_native(config: Config) -> bool:
    """Whether the run's environment is one in JAX."""
    return config.environment.native and all(id in native_environments for id in task_ids(config))


def make_environment(config: Config) -> NativeEnvironment:
    """The native environment of a run, with goals and with noise where its configuration speaks of them.

    Raises:
        FedraxError: noise that the environment cannot have, or a joint distribution it does not have.
    """
    settings = config.environment
    made = tuple(native_environments[id]() for id in task_ids(config))
    _, mixture = describe_run(config)
    environment = made[0] if mixture is None else MixedTasks(made, mixture)
    if settings.goals is not None:
        environment = GoalsOfOne(environment)
    return with_noise(environment, drawn_names(settings.heterogeneity, settings.id))


def physics_draws(config: Config, position: int = 0) -> list[dict[str, float]]:
    """Every agent's physical parameters, or the empty list when all agents share the defaults.

    They depend on the configuration's first seed, and on which of ``environment.draws`` the run's seed at ``position``
    has: with one draw all seeds of a run, and always all methods compared under one first seed, act in the same
    environments.

    Raises:
        FedraxError: parameters that the environment does not have, or that make no environment.
    """
    settings = config.environment
    differ = settings.heterogeneity or settings.tasks or settings.goals is not None
    return _draws(config, config.federation.agents, position) if differ else []


def evaluation_draws(config: Config, position: int = 0) -> list[dict[str, float]]:
    """:func:`physics_draws` as evaluations have them: at the goals held out, where there are such."""
    return [held_out_of(each, config.environment.held_out_goals) for each in physics_draws(config, position)]


def all_draws(config: Config) -> list[list[dict[str, float]]]:
    """:func:`physics_draws` of each of ``environment.draws``, or the empty list when all agents share the defaults."""
    draws = [physics_draws(config, position) for position in range(config.environment.draws)]
    return draws if draws[0] else []


def engines(config: Config) -> dict[str, str]:
    """Who steps each of the environments that agents have, by its id: ``jax``, ``envpool`` or ``gymnasium``.

    Raises:
        FedraxError: as :func:`physics_draws`, or what is asked for by name cannot.
    """
    settings, ids = config.environment, task_ids(config)
    if runs_native(config):
        return dict.fromkeys(ids, "jax")
    sites = [site for draw in all_draws(config) for site in draw] if settings.heterogeneity else []
    own = {id: [{name: site[name] for name in own_parameters(config, id)} for site in sites] for id in ids}
    return {id: stepped_by(id, settings.backend, own[id], settings.kwargs) for id in ids}


def divergence(config: Config) -> dict[str, float]:
    """How much the agents' environments differ, by parameter, mean over draws; empty where they do not.

    Raises:
        FedraxError: as :func:`physics_draws`.
    """
    draws = all_draws(config)
    if not draws:
        return {}
    defaults, _ = default_parameters(config)
    known = None if runs_native(config) else host_physics.get(config.environment.id)
    draws = [[{name: x for name, x in site.items() if name not in ASSIGNED} for site in sites] for sites in draws]
    each = [environment_divergence(sites, defaults, known.mixtures if known else {}) for sites in draws]
    names = dict.fromkeys(name for one in each for name in one)
    return {name: sum(one.get(name, 0.0) for one in each) / len(each) for name in names}


def unseen_draws(config: Config, count: int, position: int = 0) -> list[dict[str, float]]:
    """Physical parameters of ``count`` environments that no agent has, from the same table.

    They are those of the agents that would come next. A number holds for them as for the agents.

    Raises:
        FedraxError: the table draws nothing, or lists the agents' values.
    """
    settings = config.environment
    if not settings.heterogeneity and settings.goals is not None:
        agents = config.federation.agents
        return _draws(config, agents + count, position)[agents:]
    if not settings.heterogeneity and settings.tasks:
        raise FedraxError(
            "environment.tasks names all tasks, so no environment is unseen: set environment.heterogeneity to draw some"
        )
    if not settings.heterogeneity:
        raise same_environments(config)
    _, parameters = joint_draws(settings.heterogeneity, settings.id, 0)
    drawn = "distribution" in settings.heterogeneity or any(isinstance(value, Mapping) for value in parameters.values())
    for name, value in parameters.items():
        if isinstance(value, (list, tuple)) or not drawn:
            raise FedraxError(
                f"environment.heterogeneity.{name} = {value!r} gives every agent's value: unseen environments need "
                "distributions to draw from, for example {distribution = 'uniform', low = 0.5, high = 1.5}"
            )
    agents = config.federation.agents
    return _draws(config, agents + count, position)[agents:]


def _draws(config: Config, agents: int, position: int) -> list[dict[str, float]]:
    """The parameters of so many agents' environments, checked."""
    settings = config.environment
    number = position % settings.draws
    own, check = default_parameters(config)
    given = drawn_names(settings.heterogeneity, settings.id)
    if settings.tasks and TASK in given:
        raise FedraxError(
            f"environment.heterogeneity.{TASK} is not allowed with environment.tasks, which the agents take in turn: "
            "list the tasks in the order of the agents"
        )
    if settings.goals is not None and (named := sorted(given & NO_GOALS.keys())):
        raise FedraxError(
            f"environment.heterogeneity.{named[0]} is not allowed: environment.goals draws the goals of every agent"
        )
    # Noise may be named for every environment, but a native one whose table does not name it has no such parameter.
    draws = draw(settings.heterogeneity, {**own, **NOISE}, agents, config.seed, settings.id, number)
    draws = [{name: values[name] for name in own} for values in draws]
    if settings.tasks:
        each = [own_parameters(config, id) for id in settings.tasks]
        for agent, parameters in enumerate(draws):
            task = agent % len(each)
            # What nobody sets is as in the agent's own task, whatever it is in others.
            parameters |= {name: x for name, x in each[task].items() if name not in given} | {TASK: task}
    if settings.goals is not None:
        for agent, parameters in enumerate(draws):
            parameters |= goals_of(
                agent, goals=settings.goals, held_out=settings.held_out_goals, seed=config.seed, number=number
            )
    for parameters in draws:
        check(parameters)
    return draws


def default_parameters(config: Config) -> tuple[dict[str, float], Callable[[Mapping[str, float]], None]]:
    """The parameters of the run's environments with their defaults, and what refuses values that make none.

    Raises:
        FedraxError: the table names what the environment does not have.
    """
    if runs_native(config):
        environment = make_environment(config)
        return environment.physics(), environment.check
    ids = task_ids(config)
    if not config.environment.tasks:
        return own_parameters(config, ids[0]), partial(check_host_parameters, ids[0])
    together: dict[str, float] = {}
    for id in reversed(ids):
        together |= own_parameters(config, id)

    def check(parameters: Mapping[str, float]) -> None:
        id = ids[task_of(parameters)]
        check_host_parameters(id, {name: parameters[name] for name in own_parameters(config, id)})

    return together | {TASK: 0}, check


def own_parameters(config: Config, id: str) -> dict[str, float]:
    """The parameters of one of the run's environments, with their defaults.

    Raises:
        FedraxError: as :func:`default_parameters`.
    """
    settings = config.environment
    if runs_native(config):
        return native_environments[id]().physics()
    table = settings.heterogeneity
    names, keys = drawn_names(table, settings.id), joint_keys(table, settings.id)
    return host_defaults(id, names, settings.kwargs, keys)


def same_environments(config: Config) -> FedraxError:
    """The error where a comparison of environments is asked for, and all are the same."""
    return FedraxError(
        f"all agents have the same {config.environment.id!r}: set environment.heterogeneity to compare environments"
    )
