"""Generalised advantage estimation over consecutive steps (Schulman et al., 2016)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fedrax.environments.base import Steps
from fedrax.registry import Number


def generalised_advantages(
    steps: Steps, values: Float[Array, "states B"], *, discount: Number, gae_lambda: Number
) -> Float[Array, "states-1 B"]:
    """``A_t = delta_t + gamma lambda A_{t+1}`` within an episode, ``delta_t = r_t + gamma V(s_{t+1}) - V(s_t)``.

    V of a terminal state is 0; at a time limit the value of the episode's own last observation counts, and nothing
    flows back from the next episode. ``values[t]`` belongs to ``steps.observation[t]``. 0 where a step is no
    experience.
    """
    following = jnp.where(steps.terminated, 0.0, values[1:])
    delta = jnp.where(steps.valid, steps.reward + discount * following - values[:-1], 0.0)
    carried = jnp.where(steps.valid & ~steps.over, discount * gae_lambda, 0.0)

    def backwards(later: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        delta, carried = row
        advantage = delta + carried * later
        return advantage, advantage

    return jax.lax.scan(backwards, jnp.zeros(values.shape[1:]), (delta, carried), reverse=True)[1]
