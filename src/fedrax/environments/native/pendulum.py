"""Pendulum in JAX."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from fedrax.environments.base import Box, NativeEnvironment, Physics, Spaces, Transition
from fedrax.environments.drawing import draw_pendulum
from fedrax.environments.native import native_environments
from fedrax.environments.native.angles import wrap
from fedrax.errors import FedraxError

MAX_SPEED = 8.0
MAX_TORQUE = 2.0
OBSERVATION_LIMIT = (1.0, 1.0, MAX_SPEED)


class PendulumState(NamedTuple):
    """Angle from upright (rad, counted on over whole turns) and angular velocity (rad/s)."""

    theta: Float[Array, ""]
    theta_dot: Float[Array, ""]


@native_environments.register("Pendulum-v1")
class Pendulum(NativeEnvironment):
    """Gymnasium's Pendulum-v1 (a rod on a motor too weak to lift it; semi-implicit Euler steps), in float32.

    Gymnasium integrates in float64 and rounds to float32 only what it shows. One step from the same state is equal up
    to that rounding.

    OpenAI Gym, up to its version 0.18, limited the velocity only after the angle had moved with it; Gymnasium limits it
    before. The two differ in steps that reach the limit of velocity. ``clip_after_angle = 1`` chooses the older rule,
    which published results with gym 0.18 used (Mai et al., 2024).
    """

    spaces: ClassVar[Spaces] = Spaces(
        Box((3,), tuple(-limit for limit in OBSERVATION_LIMIT), OBSERVATION_LIMIT),
        Box((1,), (-MAX_TORQUE,), (MAX_TORQUE,)),
    )
    time_limit: ClassVar[int] = 200
    frames_per_second: ClassVar[int] = 30
    positive: ClassVar[tuple[str, ...]] = ("l", "m", "dt", "max_speed")

    def draw(self, state: PendulumState, physics: Mapping[str, float]) -> np.ndarray:
        """The rod, and the circle that its end moves on."""
        return draw_pendulum(float(state.theta), physics)

    def physics(self) -> dict[str, float]:
        """The rod's length ``l`` in m and mass ``m`` in kg, gravity ``g`` in m/s^2, ``dt`` in s.

        ``max_speed`` limits the angular velocity, in rad/s, and ``max_torque`` the torque, in N m;
        ``clip_after_angle`` is 0 (Gymnasium) or 1 (OpenAI Gym), see the class.
        """
        return {
            "l": 1.0,
            "m": 1.0,
            "g": 10.0,
            "dt": 0.05,
            "max_speed": MAX_SPEED,
            "max_torque": MAX_TORQUE,
            "clip_after_angle": 0.0,
        }

    def check(self, physics: Mapping[str, float]) -> None:
        """Raises :class:`FedraxError` for a rod without length or mass, or a rule of clipping that does not exist."""
        super().check(physics)
        if physics["clip_after_angle"] not in (0, 1):
            raise FedraxError(
                f"environment.heterogeneity.clip_after_angle = {physics['clip_after_angle']:g} is not allowed: "
                "give 0 (Gymnasium) or 1 (OpenAI Gym)"
            )

    def reset(self, key: PRNGKeyArray, physics: Physics) -> tuple[PendulumState, Float[Array, " 3"]]:
        """Any angle, and a velocity uniform in [-1, 1)."""
        theta, theta_dot = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
        state = PendulumState(math.pi * theta, theta_dot)
        return state, _observe(state)

    def step(self, state: PendulumState, action: Float[Array, " 1"], key: PRNGKeyArray, physics: Physics) -> Transition:
        """Applies the torque ``action`` (N m, clipped) for ``dt`` seconds; never terminal.

        The reward is ``-(theta^2 + 0.1 theta_dot^2 + 0.001 torque^2)`` of the state before, theta in [-pi, pi].
        """
        theta, theta_dot = state
        length, mass, dt, limit = physics["l"], physics["m"], physics["dt"], physics["max_speed"]
        torque = jnp.clip(action[0], -physics["max_torque"], physics["max_torque"])
        reward = -(wrap(theta) ** 2 + 0.1 * theta_dot**2 + 0.001 * torque**2)

        acceleration = 3 * physics["g"] / (2 * length) * jnp.sin(theta) + 3 / (mass * length**2) * torque
        free = theta_dot + acceleration * dt
        limited = jnp.clip(free, -limit, limit)
        moving = jnp.where(jnp.asarray(physics["clip_after_angle"]) > 0, free, limited)
        after = PendulumState(theta + moving * dt, limited)
        return Transition(after, _observe(after), reward, jnp.zeros_like(theta, bool))


def _observe(state: PendulumState) -> Float[Array, " 3"]:
    return jnp.stack((jnp.cos(state.theta), jnp.sin(state.theta), state.theta_dot))
