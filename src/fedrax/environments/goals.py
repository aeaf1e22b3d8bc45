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


def found_goal(environment: Any, size: int) -> Goal | None:
    """The rule of a Gymnasium goal environment, ``size`` numbers to a goal; None where its reward is none of ours.

    A sparse reward's threshold is found by bisection. Whatever is found must agree with the environment's own
    ``compute_reward`` on random goals near the threshold, one at a time, as not every environment takes many.
    """
    own: Any = environment.unwrapped

    def terminated(achieved: np.ndarray, desired: np.ndarray) -> bool:
        return hasattr(own, "compute_terminated") and bool(own.compute_terminated(achieved, desired, {}))

    def reward(achieved: np.ndarray, desired: np.ndarray) -> float:
        # Gymnasium-Robotics rewards -0.0.
        return float(np.asarray(own.compute_reward(achieved, desired, {}))) + 0.0

    try:
        ends = terminated(np.zeros(size), np.zeros(size))
        candidates = _candidates(reward, own, size, ends)
        found = next((goal for goal in candidates if _agrees(goal, reward, terminated, size)), None)
        return found if found is not None and _holds(found, environment) else None
    # Whatever an environment's own code raises says that its goals are not of this form.
    except (Exception, SystemExit):
        return None


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


def _agrees(
    goal: Goal,
    reward: Callable[[np.ndarray, np.ndarray], float],
    terminated: Callable[[np.ndarray, np.ndarray], bool],
    size: int,
) -> bool:
    generator = np.random.default_rng(0)
    scale = goal.threshold if goal.shape == "sparse" else 1.0
    if scale == 0:  # Reached at the goal alone, which no number of goals can confirm.
        return False
    desired = generator.normal(size=(PROBES, size))
    away = generator.normal(size=(PROBES, size))
    # Not nearer to the threshold than float32 tells apart.
    apart = scale * np.concatenate([[0.999, 1.001], np.geomspace(0.01, 100, PROBES - 2)])
    away *= apart[:, None] / np.linalg.norm(away, axis=1, keepdims=True)
    pairs = list(zip(desired + away, desired, strict=True))
    with jax.ensure_compile_time_eval():
        ours = np.asarray(goal.reward(jnp.asarray(desired + away), jnp.asarray(desired)))
        over = np.asarray(goal.success(jnp.asarray(desired + away), jnp.asarray(desired))) & goal.ends
    wanted, ended = np.array([reward(*pair) for pair in pairs]), np.array([terminated(*pair) for pair in pairs])
    return bool(np.allclose(ours, wanted, rtol=1e-4, atol=1e-5) and (ended == over).all())


def _holds(goal: Goal, environment: Any) -> bool:
    """Whether steps are rewarded by the rule: an environment may add to what its ``compute_reward`` says."""
    environment.action_space.seed(0)
    environment.reset(seed=0)
    for _ in range(STEPS):
        seen, reward, terminated, truncated, _ = environment.step(environment.action_space.sample())
        with jax.ensure_compile_time_eval():
            ours = goal.reward(jnp.asarray(seen[ACHIEVED]), jnp.asarray(seen[DESIRED]))
        if not np.allclose(float(ours), float(reward), rtol=1e-4, atol=1e-5):
            return False
        if terminated or truncated:
            break
    return True
