"""CartPole with a continuous force, in JAX."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from fedrax.environments.base import Box, Physics, Spaces
from fedrax.environments.native import native_environments
from fedrax.environments.native.cartpole import CartPole


@native_environments.register("ContinuousCartPole-v0")
class ContinuousCartPole(CartPole):
    """CartPole pushed by a share in [-1, 1] of 30 N, with episodes of 300 steps, in float32.

    It is the cart of Mai et al. (2024), "Server-Client Collaborative Distillation for Federated Reinforcement
    Learning". Gymnasium has none: it exists in JAX only. Motion, thresholds, rewards and initial states are those of
    CartPole-v1.
    """

    spaces: ClassVar[Spaces] = Spaces(CartPole.spaces.observation, Box((1,), (-1.0,), (1.0,)))
    time_limit: ClassVar[int] = 300

    def physics(self) -> dict[str, float]:
        """As CartPole's, in SI units; ``force_mag`` is the force of action 1."""
        return {**super().physics(), "force_mag": 30.0}

    def force(self, action: Float[Array, " 1"], physics: Physics) -> Float[Array, ""]:
        """``action * force_mag``, in N; an action beyond its bounds counts as the bound."""
        return physics["force_mag"] * jnp.clip(action[0], -1.0, 1.0)
