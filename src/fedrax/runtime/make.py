"""From a configuration to a simulation that can run it."""

from __future__ import annotations

from fedrax.config import Config
from fedrax.environments.base import stack_physics
from fedrax.environments.heterogeneity import draw
from fedrax.environments.native import native_environments
from fedrax.environments.registry import describe_environment
from fedrax.errors import FedraxError
from fedrax.federation import build
from fedrax.runtime.base import Simulation


def make_simulation(config: Config) -> Simulation:
    """The simulation of a configuration: native where Fedrax has the environment in JAX, host otherwise.

    Raises:
        FedraxError: a configuration that cannot run, in one line.
    """
    settings = config.environment
    described = describe_environment(settings.id, native=settings.native, backend=settings.backend)
    federation = build(config, described.spaces)
    if described.native:
        from fedrax.runtime.native import NativeSimulation

        environment = native_environments[settings.id]()
        draws = physics_draws(config)
        return NativeSimulation(config, federation, environment, stack_physics(draws) if draws else None)
    if settings.heterogeneity:
        raise FedraxError(
            f"environment.heterogeneity needs a native environment ({', '.join(native_environments)}), "
            f"and {settings.id!r} is stepped by Gymnasium or EnvPool; remove it or change environment.id"
        )
    from fedrax.runtime.host import HostSimulation

    return HostSimulation(config, federation, described.time_limit)


def physics_draws(config: Config) -> list[dict[str, float]]:
    """Every agent's physical parameters, or the empty list when all agents share the defaults.

    They depend on the configuration's first seed alone: all seeds, and all methods compared, act in the same
    environments.
    """
    settings = config.environment
    if not settings.heterogeneity:
        return []
    defaults = native_environments[settings.id]().physics()
    return draw(settings.heterogeneity, defaults, config.federation.agents, config.seed)
