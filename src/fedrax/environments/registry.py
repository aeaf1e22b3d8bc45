"""Which environments there are, and what one of them looks like, before anything is trained."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import math
from typing import Literal

import gymnasium

from fedrax.environments.base import Box, Discrete, Spaces
from fedrax.environments.minigrid import is_minigrid, load_minigrid, minigrid_spaces, minigrid_time_limit
from fedrax.environments.native import native_environments
from fedrax.errors import FedraxError, nearest

Backend = Literal["auto", "envpool", "gymnasium"]

EXTRAS = {"gymnasium.envs.box2d": "box2d", "gymnasium.envs.mujoco": "mujoco"}
"""Extra of this package that installs what a family of Gymnasium's environments needs."""


@dataclasses.dataclass(frozen=True)
class Description:
    """What must be known of an environment to configure a run."""

    spaces: Spaces
    time_limit: int
    """Steps after which the registered environment truncates."""
    native: bool
    """Whether it runs in JAX."""


def describe_environment(
    id: str, *, native: bool = True, backend: Backend = "auto", mission: bool = False
) -> Description:
    """Spaces and time limit of the environment ``id``, native where ``native`` is set and it exists in JAX.

    A host environment is made once, in a fraction of a second, and freed. With ``mission``, the tokens of MiniGrid's
    mission follow its image in the observation.

    Raises:
        FedraxError: an id nobody registered, spaces other than Box observations with Discrete or Box actions,
            no time limit, a package that is not installed, or ``mission`` where there is none.
    """
    if native and id in native_environments:
        known = native_environments[id]
        if mission and not known.spaces.mission:
            if not is_minigrid(id):
                raise _no_mission(id)
            raise FedraxError(
                f"environment {id!r} tells no mission in JAX; set environment.native=false, or no mission"
            )
        return Description(known.spaces, known.time_limit, native=True)
    if is_minigrid(id):
        load_minigrid(id)
    elif id not in gymnasium.registry and id in native_environments:
        raise FedraxError(f"environment {id!r} exists in JAX only; set environment.native=true")
    elif mission:
        raise _no_mission(id)
    if id not in gymnasium.registry:
        known_ids = {*native_environments, *gymnasium.registry}
        raise FedraxError(
            f"unknown environment {id!r}{nearest(id, known_ids)}: give the full id of an "
            "environment registered with Gymnasium; one of your own is registered by a file named in plugins"
        )
    if backend == "envpool":
        uses_envpool(id, backend)
    spaces, limit = _host_spaces(id, backend, mission)
    if limit is None:
        raise FedraxError(f"environment {id!r} has no time limit; register it with max_episode_steps")
    return Description(spaces, limit, native=False)


def uses_envpool(id: str, backend: Backend) -> bool:
    """Whether EnvPool steps ``id``; under ``auto`` it does so where it is installed and has the id.

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
        return True
    if backend == "envpool":
        raise FedraxError(f"EnvPool has no environment {id!r}; set environment.backend=auto")
    return False


@functools.cache
def _host_spaces(id: str, backend: Backend, mission: bool) -> tuple[Spaces, int | None]:
    """Gymnasium's spaces and time limit, or EnvPool's where Gymnasium lacks a package that EnvPool does without.

    Gymnasium's come first because EnvPool reports false observation bounds for some ids (LunarLander).
    """
    limit = gymnasium.registry[id].max_episode_steps
    try:
        environment = gymnasium.make(id, disable_env_checker=True)
    except (gymnasium.error.Error, ImportError) as error:
        if not uses_envpool(id, backend):
            raise _cannot_make(id, error) from None
        import envpool

        spec = envpool.make_spec(id)
        spaces = spec.gymnasium_observation_space, spec.gymnasium_action_space
        limit = limit or spec.config.max_episode_steps
    else:
        with contextlib.closing(environment):
            spaces = environment.observation_space, environment.action_space
            if limit is None and is_minigrid(id):
                limit = minigrid_time_limit(environment)
    if is_minigrid(id):
        return minigrid_spaces(id, *spaces, mission=mission), limit
    return _spaces(id, *spaces), limit


def _no_mission(id: str) -> FedraxError:
    return FedraxError(f"environment {id!r} has no mission; only those of MiniGrid and BabyAI do")


def _cannot_make(id: str, error: Exception) -> FedraxError:
    """The error for an environment that Gymnasium knows and cannot make."""
    missing = isinstance(error, (gymnasium.error.DependencyNotInstalled, ModuleNotFoundError))
    module = str(gymnasium.registry[id].entry_point)
    extra = next((extra for prefix, extra in EXTRAS.items() if module.startswith(prefix)), None)
    if missing and extra is not None:
        return FedraxError(f'environment {id!r} needs a package that is not installed: pip install "fedrax[{extra}]"')
    return FedraxError(f"environment {id!r} cannot be made: {' '.join(str(error).split())}")


def _spaces(id: str, observation: object, action: object) -> Spaces:
    """Gymnasium's spaces as ours."""
    if not isinstance(observation, gymnasium.spaces.Box):
        raise FedraxError(f"environment {id!r} has observations {observation}; only Box observations are supported")
    if isinstance(action, gymnasium.spaces.Discrete):
        return Spaces(_box(observation), Discrete(int(action.n)))
    if isinstance(action, gymnasium.spaces.Box):
        return Spaces(_box(observation), _box(action))
    raise FedraxError(f"environment {id!r} has actions {action}; only Discrete and Box actions are supported")


def _box(box: gymnasium.spaces.Box) -> Box:
    # Gymnasium keeps a missing bound of whole numbers as their type's own.
    low, high = (tuple(bound.ravel().tolist()) for bound in (box.low, box.high))
    low = tuple(bound if known else -math.inf for bound, known in zip(low, box.bounded_below.flat, strict=True))
    high = tuple(bound if known else math.inf for bound, known in zip(high, box.bounded_above.flat, strict=True))
    return Box(box.shape, low, high, box.dtype.name)
