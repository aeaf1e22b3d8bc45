"""CartPole in JAX."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from fedrax.environments.base import Box, Discrete, NativeEnvironment, Physics, Spaces, Transition
from fedrax.environments.drawing import draw_cartpole
from fedrax.environments.native import native_environments

X_THRESHOLD = 2.4
THETA_THRESHOLD_RADIANS = 12 * 2 * math.pi / 360
OBSERVATION_LIMIT = (2 * X_THRESHOLD, math.inf, 2 * THETA_THRESHOLD_RADIANS, math.inf)


class CartPoleState(NamedTuple):
    """Position (m), velocity (m/s), angle from upright (rad) and angular velocity (rad/s).

    Four scalars rather than one vector: mapped over many copies, each becomes one contiguous array, and a
    step is arithmetic on whole arrays with no slicing.
    """

    x: Float[Array, ""]
    x_dot: Float[Array, ""]
    theta: Float[Array, ""]
    theta_dot: Float[Array, ""]


@native_environments.register("CartPole-v1")
class CartPole(NativeEnvironment):
    """Gymnasium's CartPole-v1 (Barto, Sutton and Anderson, 1983; explicit Euler steps), in float32.

    Gymnasium integrates in float64 and rounds to float32 only what it shows. One step from the same state is
    equal up to that rounding. Under the same actions the difference then grows with the unstable pole, about
    e^4 per second (50 steps): invisible in an episode of random actions, while one of 500 steps parts ways.
    """

    spaces: ClassVar[Spaces] = Spaces(
        Box((4,), tuple(-limit for limit in OBSERVATION_LIMIT), OBSERVATION_LIMIT), Discrete(2)
    )
    time_limit: ClassVar[int] = 500
    positive: ClassVar[tuple[str, ...]] = (
        *("masscart", "masspole", "length", "tau", "theta_threshold_radians", "x_threshold"),
    )

    def draw(self, state: CartPoleState, physics: Mapping[str, float]) -> np.ndarray:
        """The cart on its track, and the pole."""
        return draw_cartpole(np.asarray(state), physics)

    def physics(self) -> dict[str, float]:
        """SI units; ``length`` is half the pole's, and the thresholds are where an episode fails."""
        return {
            "gravity": 9.8,
            "masscart": 1.0,
            "masspole": 0.1,
            "length": 0.5,
            "force_mag": 10.0,
            "tau": 0.02,
            "theta_threshold_radians": THETA_THRESHOLD_RADIANS,
            "x_threshold": X_THRESHOLD,
        }

    def reset(self, key: PRNGKeyArray, physics: Physics) -> tuple[CartPoleState, Float[Array, " 4"]]:
        """Every component uniform in [-0.05, 0.05)."""
        observation = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        return CartPoleState(*observation), observation

    def force(self, action: Array, physics: Physics) -> Float[Array, ""]:
        """What an action pushes the cart with, in N: ``force_mag``, to the left (0) or to the right (1)."""
        return jnp.where(action == 1, physics["force_mag"], -physics["force_mag"])

    def step(self, state: CartPoleState, action: Array, key: PRNGKeyArray, physics: Physics) -> Transition:
        """Pushes with the action's force for ``tau`` seconds; reward 1, also in an episode's last step."""
        x, x_dot, theta, theta_dot = state
        masspole, length, tau = physics["masspole"], physics["length"], physics["tau"]
        total_mass = physics["masscart"] + masspole
        force = self.force(action, physics)
        sine, cosine = jnp.sin(theta), jnp.cos(theta)

        # Florian (2007), "Correct equations for the dynamics of the cart-pole system", without friction.
        push = (force + masspole * length * theta_dot**2 * sine) / total_mass
        theta_acceleration = (physics["gravity"] * sine - cosine * push) / (
            length * (4.0 / 3.0 - masspole * cosine**2 / total_mass)
        )
        x_acceleration = push - masspole * length * theta_acceleration * cosine / total_mass

        after = CartPoleState(
            x + tau * x_dot,
            x_dot + tau * x_acceleration,
            theta + tau * theta_dot,
            theta_dot + tau * theta_acceleration,
        )
        terminated = (jnp.abs(after.x) > physics["x_threshold"]) | (
            jnp.abs(after.theta) > physics["theta_threshold_radians"]
        )
        return Transition(after, jnp.stack(after), jnp.ones_like(x), terminated)
