"""Parameters of host environments by name: the physics of those that Fedrax can vary, and noise in every one.

A table from environment id to parameters stands here, with nothing of Box2D: an environment's module is imported by
Gymnasium when it makes one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator

from fedrax.environments.constructor import Constructor, constructor_of, default_of, signature_of
from fedrax.environments.host_noise import Noise
from fedrax.environments.native import native_environments
from fedrax.environments.noise import NOISE, check_noise
from fedrax.errors import FedraxError, nearest

Parameters = Mapping[str, float]
"""A host environment's parameters by name."""


@dataclasses.dataclass(frozen=True)
class HostPhysics:
    """What can be varied in one host environment."""

    entry_point: str
    """``module:class`` of the environment, constructed from ``parameters``, ``render_mode`` and ``settings``."""
    defaults: Mapping[str, float]
    """Those of the registered environment."""
    check: Callable[[Parameters], None]
    """Raises :class:`FedraxError` for parameters that make no environment."""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    mixtures: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Parameters that are weights of the kinds of one thing, by what the thing is called."""


def host_defaults(
    id: str,
    names: Iterable[str] = (),
    kwargs: Mapping[str, Any] | None = None,
    keys: Sequence[str] = (),
) -> dict[str, float]:
    """Default parameters of the host environment ``id``: its physics, where that can be varied, and no noise.

    Args:
        id: the environment's id.
        names: of parameters that are given values, be it by a joint distribution; those that are neither physics nor
            noise are arguments of the constructor.
        kwargs: arguments that all copies are made with, which are the defaults of what they name.
        keys: what else the table may hold, for the error.

    Raises:
        FedraxError: a name that neither physics, nor noise, nor the constructor knows; or an argument without default.
    """
    kwargs = kwargs or {}
    physics = dict(host_physics[id].defaults) if id in host_physics else {}
    known = varied_constructor(id)
    own = sorted(set(names) - {*physics, *NOISE})
    strange = [name for name in own if name not in known.arguments and not known.any_name]
    if strange:
        native = "; environment.native=true has others" if id in native_environments else ""
        hint = nearest(strange[0], {*physics, *known.arguments, *keys}) if len(strange) == 1 else ""
        others = f", beside {', '.join(keys)}" if keys else ""
        raise FedraxError(
            f"environment.heterogeneity sets {', '.join(strange)}{hint}, and "
            f"environment {id!r}, stepped by Gymnasium, does not have that: its physical parameters are "
            f"{', '.join(physics) or 'none'}, its constructor's arguments {known.listed}, and noise is set by "
            f"{', '.join(NOISE)}{others}{native}"
        )
    physics |= {name: kwargs[name] for name in physics.keys() & kwargs.keys()}
    # EnvPool can vary arguments alone, so noise that nobody speaks of is not among the parameters then.
    noise = {} if own and not physics and not set(names) & NOISE.keys() else NOISE
    return {**physics, **noise, **{name: default_of(id, name, kwargs) for name in own}}


def varied_constructor(id: str) -> Constructor:
    """What ``id`` is made from where its parameters differ: that of its physics, where these can be varied."""
    if id not in host_physics:
        return constructor_of(id)
    known = host_physics[id]
    try:
        signature = signature_of(load_env_creator(known.entry_point))
    except (ImportError, gymnasium.error.Error):
        return Constructor({}, any_name=False)
    arguments = {**signature.arguments, **known.settings}
    return Constructor({name: value for name, value in arguments.items() if name != "parameters"}, signature.any_name)


def arguments_among(id: str, parameters: Parameters) -> dict[str, Any]:
    """Those parameters that are arguments of the constructor rather than physics or noise."""
    physics = host_physics[id].defaults if id in host_physics else {}
    return {name: value for name, value in parameters.items() if name not in physics and name not in NOISE}


def check_host_parameters(id: str, parameters: Parameters) -> None:
    """Refuses values that make no environment; ``parameters`` are all of :func:`host_defaults`.

    Raises:
        FedraxError: names the parameter, its value and what is allowed.
    """
    if id in host_physics:
        host_physics[id].check(parameters)
    check_noise(parameters)


def make_varied(
    id: str, parameters: Parameters, arguments: Mapping[str, Any] | None = None, **settings: Any
) -> gymnasium.Env:
    """One copy of the host environment ``id`` with parameters of its own, without their noise.

    Args:
        id: a key of :data:`host_physics`.
        parameters: all of :func:`host_defaults`.
        arguments: of the constructor; those that name physics are in ``parameters``.
        settings: Gymnasium's of ``make``.

    Raises:
        FedraxError: an argument that cannot be combined with physics of its own.
    """
    known = host_physics[id]
    physics = {name: float(parameters[name]) for name in known.defaults}
    rest = {name: value for name, value in (arguments or {}).items() if name not in physics}
    allowed = varied_constructor(id)
    strange = [name for name in rest if name not in allowed.arguments]
    if strange:
        raise FedraxError(
            f"environment.kwargs sets {', '.join(strange)}, which {id!r} does not take together with "
            f"environment.heterogeneity; beside its physical parameters, {', '.join(physics)}, it takes "
            f"{allowed.listed}"
        )
    kwargs = {**known.settings, **rest, "parameters": physics}
    spec = dataclasses.replace(gymnasium.spec(id), entry_point=known.entry_point, kwargs=kwargs)
    return gymnasium.make(spec, **settings)


def with_noise(environment: gymnasium.Env, parameters: Parameters) -> gymnasium.Env:
    """The environment with the noise that ``parameters`` ask for; itself where they ask for none.

    Raises:
        FedraxError: its observations or actions are not such that noise can be added.
    """
    noise = {name: float(parameters.get(name, 0.0)) for name in NOISE}
    return Noise(environment, **noise) if any(noise.values()) else environment


def not_allowed(parameters: Parameters, name: str, rule: str) -> FedraxError:
    """The error for a parameter whose value breaks ``rule``."""
    return FedraxError(f"environment.heterogeneity.{name} = {parameters[name]:g} is not allowed: {rule}")


def _check_lander(parameters: Parameters) -> None:
    """Gravity is Gymnasium's range; the side engines' place may be any."""
    if not -12 < parameters["gravity"] < 0:
        raise not_allowed(parameters, "gravity", "it must be above -12 and below 0")
    for name in ("main_engine_power", "side_engine_power", "wind_power", "turbulence_power"):
        if parameters[name] < 0:
            raise not_allowed(parameters, name, "it must be at least 0")


def _check_walker(parameters: Parameters) -> None:
    for name in _OBSTACLES:
        if parameters[name] < 0:
            raise not_allowed(parameters, name, "it is a weight and must be at least 0")
    for low, high in (f"{size}_low {size}_high".split() for size in ("stair_steps", "stump_size", "pit_gap")):
        for name in (low, high):
            if parameters[name] < 1 or parameters[name] != int(parameters[name]):
                raise not_allowed(parameters, name, "give a whole number, at least 1")
        if parameters[low] >= parameters[high]:
            raise not_allowed(parameters, high, f"it is exclusive and must be above {low} = {parameters[low]:g}")


_LANDER = "fedrax.environments.box2d_lunar:VariedLunarLander"
_LANDER_DEFAULTS = {
    "main_engine_power": 13.0,
    "side_engine_power": 0.6,
    "side_engine_height": 14.0,
    "side_engine_away": 12.0,
    "gravity": -10.0,
    # Both 0: no wind blows.
    "wind_power": 0.0,
    "turbulence_power": 0.0,
}
_WALKER = "fedrax.environments.box2d_walker:VariedBipedalWalker"
_SIZES = {
    "stair_steps_low": 3.0,
    "stair_steps_high": 5.0,
    "stump_size_low": 1.0,
    "stump_size_high": 3.0,
    "pit_gap_low": 3.0,
    "pit_gap_high": 5.0,
}

_OBSTACLES = ("stump", "stairs", "pit")


def _walker(weight: float) -> HostPhysics:
    """The walker with equal weights of all obstacles."""
    defaults = {**dict.fromkeys(_OBSTACLES, weight), **_SIZES}
    return HostPhysics(_WALKER, defaults, _check_walker, mixtures={"obstacles": _OBSTACLES})


host_physics: dict[str, HostPhysics] = {
    "LunarLander-v3": HostPhysics(_LANDER, _LANDER_DEFAULTS, _check_lander, {"continuous": False}),
    "LunarLanderContinuous-v3": HostPhysics(_LANDER, _LANDER_DEFAULTS, _check_lander, {"continuous": True}),
    # Without weights there are no obstacles, which is all that tells the two walkers apart.
    "BipedalWalker-v3": _walker(0.0),
    "BipedalWalkerHardcore-v3": _walker(1.0),
}
"""Host environments with physical parameters, by id."""
