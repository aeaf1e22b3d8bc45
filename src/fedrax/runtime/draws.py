"""How the agents' environments of a run differ: draws from the configuration's heterogeneity table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from fedrax.config import Config
from fedrax.environments.heterogeneity import draw
from fedrax.environments.host_parameters import check_host_name, check_host_parameters, host_defaults
from fedrax.environments.native import native_environments
from fedrax.errors import FedraxError


def physics_draws(config: Config) -> list[dict[str, float]]:
    """Every agent's physical parameters, or the empty list when all agents share the defaults.

    They depend on the configuration's first seed alone: all seeds, and all methods compared, act in the same
    environments.

    Raises:
        FedraxError: parameters that the environment does not have, or that make no environment.
    """
    return _draws(config, config.federation.agents) if config.environment.heterogeneity else []


def unseen_draws(config: Config, count: int) -> list[dict[str, float]]:
    """Physical parameters of ``count`` environments that no agent has, from the same table.

    Raises:
        FedraxError: the table draws nothing.
    """
    settings = config.environment
    if not settings.heterogeneity:
        raise same_environments(config)
    for name, value in settings.heterogeneity.items():
        if not isinstance(value, Mapping):
            raise FedraxError(
                f"environment.heterogeneity.{name} = {value!r} gives every agent's value: unseen environments need "
                "distributions to draw from, for example {distribution = 'uniform', low = 0.5, high = 1.5}"
            )
    agents = config.federation.agents
    return _draws(config, agents + count)[agents:]


def _draws(config: Config, agents: int) -> list[dict[str, float]]:
    """The parameters of so many agents' environments, checked."""
    defaults, check = _parameters(config)
    draws = draw(config.environment.heterogeneity, defaults, agents, config.seed)
    for physics in draws:
        check(physics)
    return draws


def _parameters(config: Config) -> tuple[dict[str, float], Callable[[Mapping[str, float]], None]]:
    """The environment's parameters with their defaults, and what checks their values."""
    settings = config.environment
    if settings.native and settings.id in native_environments:
        environment = native_environments[settings.id]()
        return environment.physics(), environment.check
    for name in settings.heterogeneity:
        check_host_name(settings.id, name)
    return host_defaults(settings.id), partial(check_host_parameters, settings.id)


def same_environments(config: Config) -> FedraxError:
    """The error where a comparison of environments is asked for, and all are the same."""
    return FedraxError(
        f"all agents have the same {config.environment.id!r}: set environment.heterogeneity to compare environments"
    )
