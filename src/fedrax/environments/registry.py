"""Which environments there are, and what one of them looks like, before anything is trained."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.util
import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import gymnasium

from fedrax.environments.base import Box, Dict, Discrete, Spaces
from fedrax.environments.constructor import cannot_make, check_kwargs, envpool_options, given
from fedrax.environments.goals import NoRule
from fedrax.environments.metaworld import TASKS, id_of, is_metaworld, load_metaworld, metaworld_missing
from fedrax.environments.minigrid import (
    is_minigrid,
    load_minigrid,
    minigrid_spaces,
    minigrid_time_limit,
    mission_of,
)
from fedrax.environments.native import native_environments
from fedrax.environments.robotics import FAMILIES, goal_of, load_robotics
from fedrax.errors import FedraxError, nearest
from fedrax.plugins import registering

Backend = Literal["auto", "envpool", "gymnasium"]

EXTRAS = {"gymnasium.envs.box2d": "box2d", "gymnasium.envs.mujoco": "mujoco"}
"""Extra of this package that installs what a family of Gymnasium's environments needs."""


@dataclasses.dataclass(frozen=True)
class Description:
    """What must be known of an environment to configure a run."""

    id: str
    spaces: Spaces
    time_limit: int | None
    """Steps after which the registered environment truncates; None where it has no limit."""
    native: bool
    """Whether it runs in JAX."""
    render_modes: tuple[str, ...] = ()
    """Of a host environment by Gymnasium."""

    def horizon(self, *wanted: int | None) -> int:
        """Steps after which an episode is cut: the first that is given of ``wanted``, but no more than the limit.

        Raises:
            FedraxError: none is given, and there is no limit.
        """
        asked = next((steps for steps in wanted if steps is not None), self.time_limit)
        if asked is None:
            raise FedraxError(
                f"environment {self.id!r} has no time limit: set environment.horizon, the steps after which an episode "
                "is cut, or register it with max_episode_steps"
            )
        return asked if self.time_limit is None else min(asked, self.time_limit)


def describe_environment(
    id: str,
    *,
    native: bool = True,
    backend: Backend = "auto",
    mission: bool = False,
    kwargs: Mapping[str, Any] | None = None,
) -> Description:
    """Spaces and time limit of the environment ``id``, native where ``native`` is set and it exists in JAX.

    A host environment is made once, in a fraction of a second, and freed. With ``mission``, MiniGrid's mission is part
    of the observation. ``kwargs`` are arguments of its constructor.

    Raises:
        FedraxError: an id nobody registered, spaces other than observations of Boxes with Discrete or Box actions,
            arguments that it does not take or lacks, a package that is not installed, or ``mission`` where there is
            none.
    """
    kwargs = kwargs or {}
    if native and id in native_environments:
        known = native_environments[id]
        if mission and mission_of(known.spaces.observation) is None:
            if not is_minigrid(id):
                raise _no_mission(id)
            raise FedraxError(
                f"environment {id!r} tells no mission in JAX; set environment.native=false, or no mission"
            )
        if kwargs:
            raise FedraxError(
                f"environment.kwargs sets {', '.join(kwargs)}, and environment {id!r} in JAX has no constructor "
                "arguments: set environment.native=false, or its parameters by environment.heterogeneity "
                f"({', '.join(known().physics()) or 'it has none'})"
            )
        return Description(id, known.spaces, known.time_limit, native=True)
    if is_metaworld(id):
        load_metaworld(id)
    if is_minigrid(id):
        load_minigrid(id)
    elif not load_robotics(id) and id in native_environments:
        raise FedraxError(f"environment {id!r} exists in JAX only; set environment.native=true")
    elif mission:
        raise _no_mission(id)
    # EnvPool has some of Gymnasium-Robotics' tasks on its own.
    alone = bool(FAMILIES.fullmatch(id)) and uses_envpool(id, backend, kwargs)
    if id not in gymnasium.registry and not alone:
        if FAMILIES.fullmatch(id) and importlib.util.find_spec("gymnasium_robotics") is None:
            raise _robotics_missing(id)
        known_ids = {*native_environments, *gymnasium.registry, *map(id_of, TASKS)}
        raise FedraxError(
            f"unknown environment {id!r}{nearest(id, known_ids)}: give the full id of an "
            "environment registered with Gymnasium; one of your own is registered by a file named in plugins"
        )
    check_kwargs(id, kwargs)
    if backend == "envpool":
        uses_envpool(id, backend, kwargs)
    return _host_description(id, backend, mission, _Hashable(repr(sorted(kwargs.items())), kwargs))


def code_of(id: str, plugins: Iterable[str], *, native: bool = True) -> str | None:
    """The digest of the plugins that an environment is of; None where it is of none of them.

    Args:
        id: of an environment that was made in this process.
        plugins: those of the run, which are loaded.
        native: whether the one in JAX is meant, where there is one.
    """
    if native and id in native_environments:
        maker: Any = native_environments[id]
    else:
        maker = gymnasium.registry[id].entry_point if id in gymnasium.registry else None
    module = maker.partition(":")[0] if isinstance(maker, str) else getattr(maker, "__module__", "")
    of = registering(id, plugins, getattr(sys.modules.get(module), "__file__", None))
    return hashlib.sha256("".join(sorted(of.values())).encode()).hexdigest() if of else None


def uses_envpool(id: str, backend: Backend, arguments: Mapping[str, Any] | None = None) -> bool:
    """Whether EnvPool steps ``id``; under ``auto`` it does so where it is installed and has the id, and its options.

    Args:
        arguments: of the constructor, which all must be EnvPool's options too. MiniGrid's never are: EnvPool lists the
            options of all its mazes for each.

    Raises:
        FedraxError: it is asked for by name and cannot.
    """
    if backend == "gymnasium":
        return False
    if importlib.util.find_spec("envpool") is None:
        if backend == "envpool":
            raise FedraxError(
                'EnvPool is not installed: pip install "fedrax[envpool]", or set environment.backend=auto'
            )
        return False
    import envpool

    if id in envpool.list_all_envs():
        options = envpool_options(id) if arguments and not is_minigrid(id) else {}
        strange = [name for name, value in (arguments or {}).items() if not _is_option(value, options.get(name))]
        if strange and backend == "envpool":
            raise FedraxError(
                f"EnvPool cannot make {id!r} with {', '.join(strange)}: its options are "
                f"{', '.join(options) or 'none'}; set environment.backend=gymnasium"
            )
        return not strange
    if backend == "envpool":
        raise FedraxError(f"EnvPool has no environment {id!r}; set environment.backend=auto")
    return False


def _is_option(value: Any, default: bool | int | float | None) -> bool:
    """Whether EnvPool takes the value for an option with this default; None, there is no such option."""
    if default is None or not isinstance(value, (bool, int, float)):
        return False
    return isinstance(default, bool) == isinstance(value, bool) and (
        isinstance(default, float) or float(value).is_integer()
    )


@dataclasses.dataclass(frozen=True)
class _Hashable:
    """Arguments as a key of a cache."""

    text: str
    arguments: Mapping[str, Any] = dataclasses.field(compare=False)


@functools.cache
def _host_description(id: str, backend: Backend, mission: bool, given_arguments: _Hashable) -> Description:
    """Gymnasium's spaces and time limit, or EnvPool's where Gymnasium lacks a package that EnvPool does without.

    Gymnasium's come first because EnvPool reports false observation bounds for some ids (LunarLander).
    """
    kwargs = given_arguments.arguments
    limit = gymnasium.registry[id].max_episode_steps if id in gymnasium.registry else None
    try:
        environment = gymnasium.make(id, disable_env_checker=True, **given(kwargs))
    except Exception as error:
        # Gymnasium-Robotics fails in many ways under versions of MuJoCo that it does not know.
        lacking = isinstance(error, (gymnasium.error.Error, ImportError)) or FAMILIES.fullmatch(id)
        if not lacking or not uses_envpool(id, backend, kwargs):
            if is_metaworld(id) and isinstance(error, gymnasium.error.DependencyNotInstalled):
                if kwargs and uses_envpool(id, backend):
                    shown = ", ".join(f"{name} = {value!r}" for name, value in kwargs.items())
                    raise FedraxError(
                        f"environment.kwargs of {id!r}: EnvPool cannot have {shown}; partially_observable is true or "
                        "false, and other arguments need fedrax[metaworld] and environment.backend=gymnasium"
                    ) from None
                raise metaworld_missing(id) from None
            raise _cannot_make(id, kwargs, error) from error
        import envpool

        spec = envpool.make_spec(id, **kwargs)
        spaces = spec.gymnasium_observation_space, spec.gymnasium_action_space
        limit = limit or spec.config.max_episode_steps
        return _description(id, spaces, limit, mission)
    with contextlib.closing(environment):
        spaces = _declared(id, environment)
        if limit is None and is_minigrid(id):
            limit = minigrid_time_limit(environment)
        return _description(id, spaces, limit, mission, environment)


def _description(
    id: str, spaces: tuple[Any, Any], limit: int | None, mission: bool, environment: gymnasium.Env | None = None
) -> Description:
    """What Gymnasium's spaces and, where it was made, the environment itself say."""
    known = minigrid_spaces(id, *spaces, mission=mission) if is_minigrid(id) else _spaces(id, *spaces)
    try:
        known = dataclasses.replace(known, goal=goal_of(id, known, environment))
    except NoRule as reason:
        known = dataclasses.replace(known, no_goal=str(reason))
    modes = () if environment is None else tuple(environment.metadata.get("render_modes") or ())
    return Description(id, known, limit, native=False, render_modes=modes)


def _declared(id: str, environment: gymnasium.Env) -> tuple[object, object]:
    try:
        return environment.observation_space, environment.action_space
    except AttributeError as error:
        raise FedraxError(f"environment {id!r} declares no spaces: {error}; set them in its constructor") from None


def _robotics_missing(id: str) -> FedraxError:
    return FedraxError(f'environment {id!r} needs a package that is not installed: pip install "fedrax[robotics]"')


def _no_mission(id: str) -> FedraxError:
    return FedraxError(f"environment {id!r} has no mission; only those of MiniGrid and BabyAI do")


def _cannot_make(id: str, kwargs: Mapping[str, Any], error: Exception) -> FedraxError:
    """The error for an environment that Gymnasium knows and cannot make."""
    missing = isinstance(error, (gymnasium.error.DependencyNotInstalled, ModuleNotFoundError))
    module = str(gymnasium.registry[id].entry_point)
    extra = next((extra for prefix, extra in EXTRAS.items() if module.startswith(prefix)), None)
    if missing and extra is not None:
        return FedraxError(f'environment {id!r} needs a package that is not installed: pip install "fedrax[{extra}]"')
    return cannot_make(id, kwargs, error)


def _spaces(id: str, observation: object, action: object) -> Spaces:
    """Gymnasium's spaces as ours."""
    parts = observation.spaces if isinstance(observation, gymnasium.spaces.Dict) else {"": observation}
    boxes = {name: _box(part) for name, part in parts.items() if isinstance(part, gymnasium.spaces.Box)}
    if not parts or len(boxes) < len(parts):
        raise FedraxError(
            f"environment {id!r} has observations {observation}; only a Box or a Dict of Boxes is supported: "
            "gymnasium.wrappers.FlattenObservation makes a Box of many others"
        )
    for what, space in (*(("observations", part) for part in parts.values()), ("actions", action)):
        if isinstance(space, gymnasium.spaces.Box) and 0 in space.shape:
            raise FedraxError(f"environment {id!r} has {what} {space}, without a number; give it at least one")
    seen = Dict.of(boxes) if isinstance(observation, gymnasium.spaces.Dict) else boxes[""]
    if isinstance(action, gymnasium.spaces.Discrete):
        return Spaces(seen, Discrete(int(action.n), int(action.start)))
    if isinstance(action, gymnasium.spaces.Box):
        return Spaces(seen, _box(action))
    raise FedraxError(f"environment {id!r} has actions {action}; only Discrete and Box actions are supported")


def _box(box: gymnasium.spaces.Box) -> Box:
    # Gymnasium keeps a missing bound of whole numbers as their type's own.
    low, high = (tuple(bound.ravel().tolist()) for bound in (box.low, box.high))
    low = tuple(bound if known else -math.inf for bound, known in zip(low, box.bounded_below.flat, strict=True))
    high = tuple(bound if known else math.inf for bound, known in zip(high, box.bounded_above.flat, strict=True))
    return Box(box.shape, low, high, box.dtype.name)
