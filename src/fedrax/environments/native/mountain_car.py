"""The continuous MountainCar in JAX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from fedrax.environments.base import Box, NativeEnvironment, Physics, Spaces, Transition
from fedrax.environments.drawing import draw_mountain_car
from fedrax.environments.native import native_environments
from fedrax.errors import FedraxError

MIN_POSITION, MAX_POSITION = -1.2, 0.6
MAX_SPEED = 0.07


class MountainCarState(NamedTuple):
    """Position along the track, whose valley is at -pi/6, and velocity in positions per step."""

    position: Float[Array, ""]
    velocity: Float[Array, ""]


@native_environments.register("MountainCarContinuous-v0")
class MountainCarContinuous(NativeEnvironment):
    """Gymnasium's MountainCarContinuous-v0 (Moore, 1990; a car too weak to climb without swinging), in float32.

    Gymnasium keeps its state in float32 too. One step from the same state is equal up to rounding.
    """

    spaces: ClassVar[Spaces] = Spaces(
        Box((2,), (MIN_POSITION, -MAX_SPEED), (MAX_POSITION, MAX_SPEED)), Box((1,), (-1.0,), (1.0,))
    )
    time_limit: ClassVar[int] = 999
    frames_per_second: ClassVar[int] = 30
    positive: ClassVar[tuple[str, ...]] = ("max_speed",)

    def draw(self, state: MountainCarState, physics: Mapping[str, float]) -> np.ndarray:
        """The car between its hills, and the flag that ends an episode."""
        return draw_mountain_car(float(state.position), physics)

    def physics(self) -> dict[str, float]:
        """Changes of velocity per step by action 1 (``power``) and by the steepest slope (``gravity``); limits.

        An episode ends at ``goal_position`` or beyond it, at a velocity of at least ``goal_velocity``.
        """
        return {
            "power": 0.0015,
            "gravity": 0.0025,
            "max_speed": MAX_SPEED,
            "min_position": MIN_POSITION,
            "max_position": MAX_POSITION,
            "goal_position": 0.45,
            "goal_velocity": 0.0,
        }

    def check(self, physics: Mapping[str, float]) -> None:
        """Raises :class:`FedraxError` for a valley without width."""
        super().check(physics)
        if physics["min_position"] >= physics["max_position"]:
            raise FedraxError(
                f"environment.heterogeneity.min_position = {physics['min_position']:g} is not allowed: it must be "
                f"below max_position, {physics['max_position']:g}"
            )

    def reset(self, key: PRNGKeyArray, physics: Physics) -> tuple[MountainCarState, Float[Array, " 2"]]:
        """A position uniform in [-0.6, -0.4), at rest."""
        position = jax.random.uniform(key, (), minval=-0.6, maxval=-0.4)
        state = MountainCarState(position, jnp.zeros_like(position))
        return state, jnp.stack(state)

    def step(
        self, state: MountainCarState, action: Float[Array, " 1"], key: PRNGKeyArray, physics: Physics
    ) -> Transition:
        """Accelerates by the action, clipped to [-1, 1]; the reward, 100 at the goal, pays 0.1 of its square.

        As in Gymnasium, the action that is paid for is not clipped.
        """
        force = jnp.clip(action[0], -1.0, 1.0)
        velocity = state.velocity + force * physics["power"] - physics["gravity"] * jnp.cos(3 * state.position)
        velocity = jnp.clip(velocity, -physics["max_speed"], physics["max_speed"])
        position = jnp.clip(state.position + velocity, physics["min_position"], physics["max_position"])
        # The left end is a wall that stops the car.
        velocity = jnp.where((position == physics["min_position"]) & (velocity < 0), 0.0, velocity)
        terminated = (position >= physics["goal_position"]) & (velocity >= physics["goal_velocity"])
        reward = jnp.where(terminated, 100.0, 0.0) - 0.1 * action[0] ** 2
        after = MountainCarState(position, velocity)
        return Transition(after, jnp.stack(after), reward, terminated)
