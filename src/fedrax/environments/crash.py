"""An environment that raises: one line that says where, with the traceback kept for a file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np

from fedrax.environments.success import SUCCESS, is_true, told
from fedrax.errors import FedraxError

LONGEST_SAID = 400
"""Characters shown of what an environment raised; the traceback has them all."""


class EnvironmentCrash(FedraxError):
    """An exception of a host environment in ``reset`` or ``step``; what it raised is the ``__cause__``."""

    def __init__(self, id: str, verb: str, error: Exception | SystemExit, copy: int | None = None) -> None:
        """Args:
        id: the environment's.
        verb: ``reset`` or ``step``.
        error: what it raised.
        copy: which of the copies that are stepped together; None where that is not known.
        """
        self.id, self.verb, self.error, self.copy = id, verb, error, copy
        self.source: object = None
        """The environments that the copy is one of."""
        self.place = ""
        """Where in the run, as far as is known."""

    def __str__(self) -> str:
        said = " ".join(str(self.error).split())
        said = said if len(said) <= LONGEST_SAID else f"{said[:LONGEST_SAID]} ..."
        raised = f"{type(self.error).__name__}: {said}" if said else type(self.error).__name__
        place = self.place or ("" if self.copy is None else f"copy {self.copy}")
        return f"environment {self.id!r} crashed in {self.verb}{f' ({place})' if place else ''}: {raised}"

    def of(self, owner: str, num_envs: int | None = None) -> str:
        """A place: whose copy it is, of that owner's ``num_envs``."""
        if self.copy is None:
            return owner
        return f"{owner}, copy {self.copy if num_envs is None else self.copy % num_envs}"


@contextlib.contextmanager
def crashes(id: str, verb: str, source: object) -> Iterator[None]:
    """Whatever is raised within is the environment's crash; ``source`` are the environments that were stepped."""
    try:
        yield
    except EnvironmentCrash as crash:
        crash.source = source
        raise
    except Exception as error:
        unnamed = EnvironmentCrash(id, verb, error)
        unnamed.source = source
        raise unnamed from error


@contextlib.contextmanager
def crash_of(source: object) -> Iterator[None]:
    """A crash within is one of ``source``, whatever stands between it and the environments that were stepped."""
    try:
        yield
    except EnvironmentCrash as crash:
        crash.source = source
        raise


@contextlib.contextmanager
def crash_among(source: object, places: np.ndarray) -> Iterator[None]:
    """As :func:`crash_of`, of environments whose copies are those at these places of ``source``."""
    with crash_of(source):
        try:
            yield
        except EnvironmentCrash as crash:
            crash.copy = None if crash.copy is None else int(places[crash.copy])
            raise


@contextlib.contextmanager
def placed(name: Callable[[EnvironmentCrash], str]) -> Iterator[None]:
    """Has a crash say where in the run it was, unless it does already."""
    try:
        yield
    except EnvironmentCrash as crash:
        crash.place = crash.place or name(crash)
        raise


class CrashReporting(gymnasium.Wrapper):
    """A copy of a Gymnasium environment whose exceptions say which environment and copy they are of.

    What it returns in another shape or type than it declares is such an exception too: it would otherwise surface where
    nothing is known of copies, be broadcast, or count as true. Of its infos only success is kept: nobody reads the
    others, and Gymnasium cannot stack arrays that change their shape.
    """

    def __init__(
        self, environment: gymnasium.Env, id: str, copy: int | None = None, *, reward_is_success: bool = False
    ) -> None:
        super().__init__(environment)
        self._id, self._copy, self._by_reward = id, copy, reward_is_success

    def reset(self, **settings: Any) -> tuple[Any, dict[str, Any]]:
        """The environment's."""
        try:
            observation, _ = self.env.reset(**settings)
            self._check_observation(observation)
            return observation, {}
        except (Exception, SystemExit) as error:
            raise EnvironmentCrash(self._id, "reset", error, self._copy) from error

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """The environment's."""
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
            self._check_observation(observation)
            number = _number(reward)
            terminated, truncated = _truth("terminated", terminated), _truth("truncated", truncated)
            success = terminated and number > 0 if self._by_reward else is_true(told(info))
            return observation, number, terminated, truncated, {} if success is None else {SUCCESS: success}
        except (Exception, SystemExit) as error:
            raise EnvironmentCrash(self._id, "step", error, self._copy) from error

    def _check_observation(self, observation: Any) -> None:
        declared = self.observation_space
        if isinstance(declared, gymnasium.spaces.Dict):
            if not isinstance(observation, dict) or observation.keys() != declared.spaces.keys():
                said = sorted(observation) if isinstance(observation, dict) else type(observation).__name__
                raise ValueError(
                    f"it returned an observation of {said}, and its observation space has {list(declared)}"
                )
            pairs = [(f" {name!r}", observation[name], part) for name, part in declared.spaces.items()]
        else:
            pairs = [("", observation, declared)]
        for name, value, space in pairs:
            array = np.asarray(value)
            if array.shape != space.shape:
                raise ValueError(
                    f"it returned an observation{name} of shape {array.shape}, and its observation space has "
                    f"{space.shape}"
                )
            # What Gymnasium can put into an array of the space.
            if space.dtype is not None and not np.can_cast(array.dtype, space.dtype, "same_kind"):
                raise ValueError(
                    f"it returned an observation{name} of type {array.dtype}, which its observation space, of "
                    f"{space.dtype}, cannot hold"
                )


def _number(reward: Any) -> float:
    """A reward as a number, also where it is an array of one."""
    if isinstance(reward, (int, float, np.floating)):
        return float(reward)
    values = np.asarray(reward)
    if values.size != 1 or values.dtype.kind not in "biuf":
        raise ValueError(f"it returned the reward {reward!r}, which is not a number")
    return float(values.reshape(()))


def _truth(name: str, value: Any) -> bool:
    """A truth, also where it is an array of one, or 0 or 1."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf" or array.reshape(()) not in (0, 1):
        raise ValueError(f"it returned {name} = {value!r}, which is neither true nor false")
    return bool(array.reshape(()))
