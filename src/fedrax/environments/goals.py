"""Goal environments: observations that hold what was achieved and what is desired, and a reward that follows from both.

The form is that of Gymnasium-Robotics (Plappert et al., 2018, "Multi-Goal Reinforcement Learning"): dictionaries of
``observation``, ``achieved_goal`` and ``desired_goal``. Hindsight experience replay asks for the reward of goals that
nobody desired, within a compiled program; so the reward is data here, found by asking the environment's own
``compute_reward`` at known distances.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

OBSERVATION, ACHIEVED, DESIRED = "observation", "achieved_goal", "desired_goal"

Shape = Literal["sparse", "distance", "exponential"]
FAR = 1e6
"""A distance at which no goal is reached."""
PROBES = 64
"""Pairs of goals on which a rule must agree with the environment's own."""
STEPS = 3
"""Steps whose rewards must follow from it."""


@dataclasses.dataclass(frozen=True)
class Goal:
    """The reward of a goal environment, by the Euclidean distance ``d`` of the achieved goal from the desired one.

    The achieved goal is that after the action.
    """

    shape: Shape
    """``sparse``: :attr:`reached` within the threshold, else :attr:`missed`; ``distance``: ``-d``; ``exponential``:
    ``exp(-d)``."""
    threshold: float
    """Distance within which the goal is reached; 0 where that is not known (a dense reward)."""
    inclusive: bool = False
    """Whether it is reached at the threshold itself."""
    reached: float = 0.0
    missed: float = -1.0
    ends: bool = False
    """Whether an episode ends where the goal is reached."""

    def reward(self, achieved: Float[Array, "*b g"], desired: Float[Array, "*b g"]) -> Float[Array, "*b"]:
        """The environment's reward of a step that achieved this."""
        distance = distances(achieved, desired)
        if self.shape == "sparse":
            return jnp.where(self._within(distance), self.reached, self.missed)
        return -distance if self.shape == "distance" else jnp.exp(-distance)

    def success(self, achieved: Float[Array, "*b g"], desired: Float[Array, "*b g"]) -> Bool[Array, "*b"]:
        """Whether the goal is reached."""
        return self._within(distances(achieved, desired))

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest reward."""
        if self.shape == "sparse":
            return min(self.reached, self.missed), max(self.reached, self.missed)
        return (-math.inf, 0.0) if self.shape == "distance" else (0.0, 1.0)

    def _within(self, distance: Array) -> Array:
        return distance <= self.threshold if self.inclusive else distance < self.threshold


def distances(achieved: Float[Array, "*b g"], desired: Float[Array, "*b g"]) -> Float[Array, "*b"]:
    """Euclidean."""
    difference = achieved - desired
    return jnp.sqrt((difference**2).sum(-1))


class NoRule(Exception):
    """Why the rewards of a goal environment are not known to follow a rule of ours."""


def found_goal(environment: Any, size: int) -> Goal:
    """The rule of a Gymnasium goal environment, ``size`` numbers to a goal.

    A sparse reward's threshold is found by bisection. Whatever is found must agree with the environment's own
    ``compute_reward`` on random goals near the threshold, one at a time, as not every environment takes many.

    Raises:
        NoRule: its reward is none of ours, or cannot be asked for.
    """
    own: Any = environment.unwrapped

    def asked(function: str, achieved: np.ndarray, desired: np.ndarray) -> float:
        try:
            value = getattr(own, function)(achieved, desired, {})
            array = np.asarray(value)
        # Whatever an environment's own code raises says that its goals are not of this form.
        except (Exception, SystemExit) as error:
            raise NoRule(f"its {function} raises {_in_words(error)}") from error
        if array.size != 1 or array.dtype.kind not in "biuf":
            raise NoRule(f"its {function} returns {' '.join(repr(value).split())}, which is not a number")
        # Gymnasium-Robotics rewards -0.0.
        return float(array.reshape(())) + 0.0

    def terminated(achieved: np.ndarray, desired: np.ndarray) -> bool:
        return hasattr(own, "compute_terminated") and bool(asked("compute_terminated", achieved, desired))

    def reward(achieved: np.ndarray, desired: np.ndarray) -> float:
        return asked("compute_reward", achieved, desired)

    if not hasattr(own, "compute_reward"):
        raise NoRule("it has no compute_reward, which says what other goals are worth")
    ends = terminated(np.zeros(size), np.zeros(size))
    try:
        candidates = _candidates(reward, own, size, ends)
    except NoRule:
        raise
    except (Exception, SystemExit) as error:
        raise NoRule(f"its distance_threshold is not a number: {_in_words(error)}") from error
    differences = []
    for goal in candidates:
        difference = _difference(goal, reward, terminated, size)
        if not difference:
            _check_steps(goal, environment)
            return goal
        differences.append(difference)
    # The reward is asked about first, so that who says where episodes end has the reward right.
    told = next((one for one in differences if one != OTHER), OTHER)
    if told == OTHER and ends and not any(goal.shape != "sparse" for goal in candidates):
        told += "; -d and exp(-d) need a distance_threshold, as its compute_terminated ends episodes at the goal"
    raise NoRule(told)


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


OTHER = "its compute_reward is neither one of two numbers, within a distance d and beyond, nor -d, nor exp(-d)"
"""Of rewards that follow another rule, or none."""


def _candidates(reward: Callable[[np.ndarray, np.ndarray], float], own: Any, size: int, ends: bool) -> list[Goal]:
    def at(distance: float) -> float:
        achieved = np.zeros(size)
        achieved[0] = distance
        return reward(achieved, np.zeros(size))

    reached, missed = at(0.0), at(FAR)
    threshold = float(getattr(own, "distance_threshold", 0.0))
    shapes: tuple[Shape, ...] = ("distance", "exponential")
    # Hindsight must know where episodes end.
    dense = [Goal(shape, threshold, ends=ends) for shape in shapes if threshold or not ends]
    if reached == missed:
        return dense
    low, high = 0.0, FAR
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if at(middle) == reached else (low, middle)
    rounded = round(high, 9)
    return [Goal("sparse", rounded, at(rounded) == reached, reached, missed, ends), *dense]


def _difference(
    goal: Goal,
    reward: Callable[[np.ndarray, np.ndarray], float],
    terminated: Callable[[np.ndarray, np.ndarray], bool],
    size: int,
) -> str:
    """In what the rule differs from the environment's own; empty where it does not."""
    generator = np.random.default_rng(0)
    scale = goal.threshold if goal.shape == "sparse" else 1.0
    if scale == 0:  # Reached at the goal alone, which no number of goals can confirm.
        return OTHER
    desired = generator.normal(size=(PROBES, size))
    away = generator.normal(size=(PROBES, size))
    # Not nearer to the threshold than float32 tells apart.
    apart = scale * np.concatenate([[0.999, 1.001], np.geomspace(0.01, 100, PROBES - 2)])
    away *= apart[:, None] / np.linalg.norm(away, axis=1, keepdims=True)
    pairs = list(zip(desired + away, desired, strict=True))
    with jax.ensure_compile_time_eval():
        ours = np.asarray(goal.reward(jnp.asarray(desired + away), jnp.asarray(desired)))
        over = np.asarray(goal.success(jnp.asarray(desired + away), jnp.asarray(desired))) & goal.ends
    if not np.allclose(ours, np.array([reward(*pair) for pair in pairs]), rtol=1e-4, atol=1e-5):
        return OTHER
    if (np.array([terminated(*pair) for pair in pairs]) != over).any():
        return "its compute_terminated ends episodes elsewhere than where the goal is reached"
    return ""


def _check_steps(goal: Goal, environment: Any) -> None:
    """Raises :class:`NoRule` where steps are rewarded otherwise: an environment may add to its ``compute_reward``."""
    try:
        environment.action_space.seed(0)
        environment.reset(seed=0)
        for _ in range(STEPS):
            seen, reward, terminated, truncated, _ = environment.step(environment.action_space.sample())
            with jax.ensure_compile_time_eval():
                ours = float(goal.reward(jnp.asarray(seen[ACHIEVED]), jnp.asarray(seen[DESIRED])))
            if not np.allclose(ours, float(reward), rtol=1e-4, atol=1e-5):
                raise NoRule(f"a step is rewarded with {float(reward):g} where its compute_reward says {ours:g}")
            if terminated or truncated:
                break
    except NoRule:
        raise
    except (Exception, SystemExit) as error:
        raise NoRule(f"its reset or step raises {_in_words(error)}") from error
