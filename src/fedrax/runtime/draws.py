"""How the agents' environments of a run differ: draws from the configuration's heterogeneity table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from fedrax.config import Config
from fedrax.environments.base import NativeEnvironment
from fedrax.environments.distributions import joint_draws, joint_keys
from fedrax.environments.divergence import environment_divergence
from fedrax.environments.heterogeneity import draw, drawn_names
from fedrax.environments.host_parameters import check_host_parameters, host_defaults, host_physics
from fedrax.environments.native import native_environments
from fedrax.environments.native_noise import with_noise
from fedrax.environments.noise import NOISE
from fedrax.errors import FedraxError


def runs_native(config: Config) -> bool:
    """Whether the run's environment is one in JAX."""
    return config.environment.native and config.environment.id in native_environments


def make_environment(config: Config) -> NativeEnvironment:
    """The native environment of a run, noisy where its heterogeneity table speaks of noise.

    Raises:
        FedraxError: noise that the environment cannot have, or a joint distribution it does not have.
    """
    settings = config.environment
    return with_noise(native_environments[settings.id](), drawn_names(settings.heterogeneity, settings.id))


def physics_draws(config: Config, position: int = 0) -> list[dict[str, float]]:
    """Every agent's physical parameters, or the empty list when all agents share the defaults.

    They depend on the configuration's first seed, and on which of ``environment.draws`` the run's seed at ``position``
    has: with one draw all seeds, and always all methods compared, act in the same environments.

    Raises:
        FedraxError: parameters that the environment does not have, or that make no environment.
    """
    return _draws(config, config.federation.agents, position) if config.environment.heterogeneity else []


def all_draws(config: Config) -> list[list[dict[str, float]]]:
    """:func:`physics_draws` of each of ``environment.draws``, or the empty list when all agents share the defaults."""
    draws = [physics_draws(config, position) for position in range(config.environment.draws)]
    return draws if draws[0] else []


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
    # Noise may be named for every environment, but a native one whose table does not name it has no such parameter.
    draws = draw(settings.heterogeneity, {**own, **NOISE}, agents, config.seed, settings.id, number)
    draws = [{name: values[name] for name in own} for values in draws]
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
    settings = config.environment
    table = settings.heterogeneity
    names, keys = drawn_names(table, settings.id), joint_keys(table, settings.id)
    defaults = host_defaults(settings.id, names, settings.kwargs, keys)
    return defaults, partial(check_host_parameters, settings.id)


def same_environments(config: Config) -> FedraxError:
    """The error where a comparison of environments is asked for, and all are the same."""
    return FedraxError(
        f"all agents have the same {config.environment.id!r}: set environment.heterogeneity to compare environments"
    )
