"""Point robots on a table, goal environments in JAX: fast stand-ins for Fetch's reach, push and slide.

They exist here alone, so that hindsight and federations of several tasks can be tested in seconds and run with
thousands of agents. A robot, a point in the plane, moves as far as its action says; goals and rewards are as in Fetch
(Plappert et al., 2018): 0 within the threshold of the goal, else -1, for 50 steps, and no episode ends at the goal. The
tasks called dense are rewarded by the negative distance from the goal instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from fedrax.environments.base import Box, Dict, NativeEnvironment, Observation, Physics, Spaces, Transition
from fedrax.environments.drawing import draw_point
from fedrax.environments.goals import ACHIEVED, DESIRED, OBSERVATION, Goal
from fedrax.environments.native import native_environments
from fedrax.errors import FedraxError

LIMIT = 1.0
"""The table reaches so far from its middle, in both directions."""
SPARSE, DENSE = Goal("sparse", 0.05), Goal("distance", 0.05)
APART = 0.2
"""The robot's distance from the puck at first, at least."""


class PointState(NamedTuple):
    """Where the robot, the puck and the goal are, ``[2]`` each, and how far the puck slides in a step."""

    robot: Float[Array, " 2"]
    puck: Float[Array, " 2"]
    """The robot's own place where the task has no puck."""
    slide: Float[Array, " 2"]
    goal: Float[Array, " 2"]


def spaces_of(size: int, goal: Goal = SPARSE) -> Spaces:
    """With so many numbers beside the goals, and this reward."""

    def box(count: int) -> Box:
        return Box((count,), (-2 * LIMIT,) * count, (2 * LIMIT,) * count)

    seen = Dict.of({OBSERVATION: box(size), ACHIEVED: box(2), DESIRED: box(2)})
    return Spaces(seen, Box((2,), (-1.0,) * 2, (1.0,) * 2), goal)


class PointTask(NativeEnvironment):
    """What the tasks share."""

    time_limit: ClassVar[int] = 50
    frames_per_second: ClassVar[int] = 25
    puck: ClassVar[bool] = True
    """Whether the goal is the puck's, not the robot's."""
    slides: ClassVar[bool] = False
    """Whether the puck goes on moving when the robot has left it."""
    edge: ClassVar[float] = LIMIT
    """The robot's limit to the right."""
    goals: ClassVar[tuple[tuple[float, float], tuple[float, float]]] = ((-0.8, -0.8), (0.8, 0.8))
    """Corners of the rectangle that goals are drawn from."""
    pucks: ClassVar[tuple[tuple[float, float], tuple[float, float]]] = ((-0.5, -0.5), (0.5, 0.5))

    def physics(self) -> dict[str, float]:
        """How far an action of 1 moves the robot (``gain``), what is added to its every step (``drift_x``,
        ``drift_y``), the puck's ``radius``, and the share of its speed that a sliding puck loses in a step
        (``friction``)."""
        return {"gain": 0.1, "drift_x": 0.0, "drift_y": 0.0, "radius": 0.1, "friction": 0.2}

    def check(self, physics: Mapping[str, float]) -> None:
        """Raises :class:`FedraxError` for a robot that does not move, or a puck without size or friction."""
        super().check(physics)
        bounds = {"gain": (0, LIMIT), "radius": (0, APART), "friction": (0, 1)}
        for name, (low, high) in bounds.items():
            if not low < physics[name] <= high:
                raise FedraxError(
                    f"environment.heterogeneity.{name} = {physics[name]:g} is not allowed: it must be above {low:g} "
                    f"and at most {high:g}"
                )

    def draw(self, state: PointState, physics: Mapping[str, float]) -> np.ndarray:
        """The table from above."""
        radius = float(physics["radius"]) if self.puck else 0.0
        robot, puck, goal = (np.asarray(place) for place in (state.robot, state.puck, state.goal))
        return draw_point(robot, puck, goal, radius, LIMIT)

    def reset(self, key: PRNGKeyArray, physics: Physics) -> tuple[PointState, Observation]:
        """A goal, a puck and the robot, each uniform; the robot not on the puck."""
        goal_key, puck_key, angle_key, distance_key = jax.random.split(key, 4)
        low, high = jnp.asarray(self.goals)
        goal = jax.random.uniform(goal_key, (2,), minval=low, maxval=high)
        low, high = jnp.asarray(self.pucks)
        puck = jax.random.uniform(puck_key, (2,), minval=low, maxval=high)
        angle = jax.random.uniform(angle_key, minval=-jnp.pi, maxval=jnp.pi)
        distance = jax.random.uniform(distance_key, minval=APART, maxval=2 * APART)
        robot = self._on_table(puck + distance * jnp.stack([jnp.cos(angle), jnp.sin(angle)]))
        state = PointState(robot, puck if self.puck else robot, jnp.zeros(2), goal)
        return state, self._observe(state)

    def step(self, state: PointState, action: Float[Array, " 2"], key: PRNGKeyArray, physics: Physics) -> Transition:
        """Moves the robot, and the puck out of its way, in the direction from one to the other."""
        drift = jnp.stack([jnp.asarray(physics["drift_x"]), jnp.asarray(physics["drift_y"])])
        robot = self._on_table(state.robot + physics["gain"] * jnp.clip(action, -1.0, 1.0) + drift)
        if not self.puck:
            after = PointState(robot, robot, state.slide, state.goal)
        else:
            free = jnp.clip(state.puck + state.slide, -LIMIT, LIMIT)
            away = free - robot
            distance = jnp.sqrt((away**2).sum() + 1e-12)
            touched = distance < physics["radius"]
            puck = jnp.where(touched, robot + away / distance * physics["radius"], free)
            puck = jnp.clip(puck, -LIMIT, LIMIT)
            moved = jnp.where(touched, puck - state.puck, state.slide)
            slide = (1.0 - jnp.asarray(physics["friction"])) * moved if self.slides else jnp.zeros(2)
            after = PointState(robot, puck, slide, state.goal)
        rule = self.spaces.goal or SPARSE
        reward, success = rule.reward(after.puck, after.goal), rule.success(after.puck, after.goal)
        return Transition(after, self._observe(after), reward, jnp.zeros((), bool), success)

    def _on_table(self, place: Float[Array, " 2"]) -> Float[Array, " 2"]:
        return jnp.clip(place, -LIMIT, jnp.asarray([self.edge, LIMIT]))

    def _observe(self, state: PointState) -> Observation:
        parts = [state.robot, state.puck, state.puck - state.robot, state.slide] if self.puck else [state.robot]
        return {OBSERVATION: jnp.concatenate(parts), ACHIEVED: state.puck, DESIRED: state.goal}


@native_environments.register("PointReach-v0")
class PointReach(PointTask):
    """The robot goes to the goal."""

    spaces: ClassVar[Spaces] = spaces_of(2)
    puck: ClassVar[bool] = False


@native_environments.register("PointPush-v0")
class PointPush(PointTask):
    """The robot pushes a puck to the goal; the puck stops where it is left."""

    spaces: ClassVar[Spaces] = spaces_of(8)


@native_environments.register("PointSlide-v0")
class PointSlide(PointTask):
    """The robot hits a puck so that it slides to a goal beyond the robot's reach."""

    spaces: ClassVar[Spaces] = spaces_of(8)
    slides: ClassVar[bool] = True
    edge: ClassVar[float] = -0.2
    goals: ClassVar[tuple[tuple[float, float], tuple[float, float]]] = ((0.0, -0.5), (0.7, 0.5))
    pucks: ClassVar[tuple[tuple[float, float], tuple[float, float]]] = ((-0.5, -0.3), (-0.3, 0.3))


@native_environments.register("PointReachDense-v0")
class PointReachDense(PointReach):
    """Rewarded by the distance from the goal."""

    spaces: ClassVar[Spaces] = spaces_of(2, DENSE)


@native_environments.register("PointPushDense-v0")
class PointPushDense(PointPush):
    """Rewarded by the puck's distance from the goal."""

    spaces: ClassVar[Spaces] = spaces_of(8, DENSE)


@native_environments.register("PointSlideDense-v0")
class PointSlideDense(PointSlide):
    """Rewarded by the puck's distance from the goal."""

    spaces: ClassVar[Spaces] = spaces_of(8, DENSE)
