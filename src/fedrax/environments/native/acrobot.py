"""Acrobot in JAX."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from fedrax.environments.base import Box, Discrete, NativeEnvironment, Physics, Spaces, Transition
from fedrax.environments.drawing import draw_acrobot
from fedrax.environments.native import native_environments
from fedrax.environments.native.angles import wrap

MAX_VEL_1 = 4 * math.pi
MAX_VEL_2 = 9 * math.pi
OBSERVATION_LIMIT = (1.0, 1.0, 1.0, 1.0, MAX_VEL_1, MAX_VEL_2)


class AcrobotState(NamedTuple):
    """Angle of the first link from hanging and of the second from the first (rad), and their velocities (rad/s)."""

    theta1: Float[Array, ""]
    theta2: Float[Array, ""]
    theta1_dot: Float[Array, ""]
    theta2_dot: Float[Array, ""]


@native_environments.register("Acrobot-v1")
class Acrobot(NativeEnvironment):
    """Gymnasium's Acrobot-v1 (Sutton and Barto's book, 1998; one Runge-Kutta step of order 4), in float32.

    Gymnasium integrates in float64 and rounds to float32 only what it shows. One step from the same state is equal up
    to that rounding; a double pendulum is chaotic, so that under the same actions long episodes part ways.
    """

    spaces: ClassVar[Spaces] = Spaces(
        Box((6,), tuple(-limit for limit in OBSERVATION_LIMIT), OBSERVATION_LIMIT), Discrete(3)
    )
    time_limit: ClassVar[int] = 500

    frames_per_second: ClassVar[int] = 15
    positive: ClassVar[tuple[str, ...]] = (
        *("link_length_1", "link_mass_1", "link_mass_2", "link_moi", "max_vel_1", "max_vel_2", "dt"),
    )

    def draw(self, state: AcrobotState, physics: Mapping[str, float]) -> np.ndarray:
        """The two links, and the height that ends an episode."""
        return draw_acrobot(float(state.theta1), float(state.theta2), physics)

    def physics(self) -> dict[str, float]:
        """Lengths in m, masses in kg, times in s, ``torque`` in N m, velocities in rad/s, ``link_moi`` in kg m^2.

        ``link_com_pos_1`` and ``link_com_pos_2`` are the distances of the links' centres of mass from their upper
        joints, ``link_moi`` either link's moment of inertia about its centre of mass, and ``torque`` what the joint
        between the links can apply. The length of the second link is not among them: no equation depends on it, nor
        does the height that ends an episode, in which both links count 1.
        """
        return {
            "gravity": 9.8,
            "link_length_1": 1.0,
            "link_mass_1": 1.0,
            "link_mass_2": 1.0,
            "link_com_pos_1": 0.5,
            "link_com_pos_2": 0.5,
            "link_moi": 1.0,
            "max_vel_1": MAX_VEL_1,
            "max_vel_2": MAX_VEL_2,
            "torque": 1.0,
            "dt": 0.2,
        }

    def reset(self, key: PRNGKeyArray, physics: Physics) -> tuple[AcrobotState, Float[Array, " 6"]]:
        """Every component of the state uniform in [-0.1, 0.1)."""
        state = AcrobotState(*jax.random.uniform(key, (4,), minval=-0.1, maxval=0.1))
        return state, _observe(state)

    def step(self, state: AcrobotState, action: Array, key: PRNGKeyArray, physics: Physics) -> Transition:
        """Applies a negative (0), no (1) or a positive (2) torque for ``dt`` seconds; reward -1, and 0 at the end."""
        torque = physics["torque"] * (action - 1)
        dt = physics["dt"]

        def slope(at: AcrobotState) -> AcrobotState:
            return _derivative(at, torque, physics)

        k1 = slope(state)
        k2 = slope(_along(state, k1, dt / 2))
        k3 = slope(_along(state, k2, dt / 2))
        k4 = slope(_along(state, k3, dt))
        mean = AcrobotState(*((a + 2 * b + 2 * c + d) / 6 for a, b, c, d in zip(k1, k2, k3, k4, strict=True)))
        theta1, theta2, theta1_dot, theta2_dot = _along(state, mean, dt)
        after = AcrobotState(
            wrap(theta1),
            wrap(theta2),
            jnp.clip(theta1_dot, -physics["max_vel_1"], physics["max_vel_1"]),
            jnp.clip(theta2_dot, -physics["max_vel_2"], physics["max_vel_2"]),
        )
        terminated = -jnp.cos(after.theta1) - jnp.cos(after.theta2 + after.theta1) > 1.0
        return Transition(after, _observe(after), jnp.where(terminated, 0.0, -1.0), terminated)


def _derivative(state: AcrobotState, torque: Float[Array, ""], physics: Physics) -> AcrobotState:
    """The rate of change of each field, by the equations of the book: those of the paper of 1996 lack some terms."""
    theta1, theta2, theta1_dot, theta2_dot = state
    gravity, length, inertia = physics["gravity"], physics["link_length_1"], physics["link_moi"]
    mass1, mass2 = physics["link_mass_1"], physics["link_mass_2"]
    com1, com2 = physics["link_com_pos_1"], physics["link_com_pos_2"]
    sine2, cosine2 = jnp.sin(theta2), jnp.cos(theta2)
    coupling = mass2 * length * com2

    d1 = mass1 * com1**2 + mass2 * (length**2 + com2**2 + 2 * length * com2 * cosine2) + 2 * inertia
    d2 = mass2 * com2**2 + coupling * cosine2 + inertia
    # cos(angle - pi / 2) is the angle's sine, which float32 takes more exactly than the shifted cosine.
    phi2 = mass2 * com2 * gravity * jnp.sin(theta1 + theta2)
    phi1 = (
        -coupling * theta2_dot * (theta2_dot + 2 * theta1_dot) * sine2
        + (mass1 * com1 + mass2 * length) * gravity * jnp.sin(theta1)
        + phi2
    )
    theta2_acceleration = (torque + d2 / d1 * phi1 - coupling * theta1_dot**2 * sine2 - phi2) / (
        mass2 * com2**2 + inertia - d2**2 / d1
    )
    theta1_acceleration = -(d2 * theta2_acceleration + phi1) / d1
    return AcrobotState(theta1_dot, theta2_dot, theta1_acceleration, theta2_acceleration)


def _along(state: AcrobotState, slope: AcrobotState, time: Float[Array, ""] | float) -> AcrobotState:
    return AcrobotState(*(value + time * rate for value, rate in zip(state, slope, strict=True)))


def _observe(state: AcrobotState) -> Float[Array, " 6"]:
    theta1, theta2, theta1_dot, theta2_dot = state
    return jnp.stack((jnp.cos(theta1), jnp.sin(theta1), jnp.cos(theta2), jnp.sin(theta2), theta1_dot, theta2_dot))
