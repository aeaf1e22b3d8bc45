"""From rewards to the weight of each step's log-probability gradient. Arrays are time-major, ``[T, B]``."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Estimator = Literal["reinforce", "gpomdp", "whitened"]
Baseline = Literal["none", "constant", "average"]


def rewards_to_go(rewards: Float[Array, "T B"], discount: float) -> Float[Array, "T B"]:
    """Discounted sums of the rewards from each step on; padding must hold rewards of 0."""

    def backwards(later: Array, reward: Array) -> tuple[Array, Array]:
        total = reward + discount * later
        return total, total

    return jax.lax.scan(backwards, jnp.zeros(rewards.shape[1:]), rewards, reverse=True)[1]


def step_weights(
    rewards: Float[Array, "T B"],
    valid: Bool[Array, "T B"],
    *,
    estimator: Estimator,
    discount: float,
    baseline: Baseline = "none",
) -> Float[Array, "T B"]:
    """The factor of each step's score function ``grad log pi(a_t | s_t)``; 0 on padding.

    - ``reinforce``: the whole episode's discounted return, the same at every step (Williams, 1992).
    - ``gpomdp``: ``sum_{h >= t} (gamma^h r_h - C_h)`` (Baxter & Bartlett, 2001). ``C_h`` is 0 for baseline ``none``,
      the mean of ``gamma^h r_h`` over all steps of the batch for ``constant``, and over the batch's episodes that
      reach step h for ``average``.
    - ``whitened``: reward-to-go without the factor gamma^t, standardised within each episode with the unbiased
      deviation, as the FedPG-BR reference does. An episode of one step, or of constant reward-to-go, gets 0 where
      the reference divides by zero. The baseline does not apply: the mean is one.
    """
    mask = valid.astype(rewards.dtype)
    rewards = jnp.where(valid, rewards, 0.0)
    if estimator == "whitened":
        returns = rewards_to_go(rewards, discount)
        steps = mask.sum(0)
        mean = (returns * mask).sum(0) / jnp.maximum(steps, 1)
        centred = jnp.where(valid, returns - mean, 0.0)
        deviation = jnp.sqrt((centred**2).sum(0) / jnp.maximum(steps - 1, 1))
        # Below float32's resolution of the returns the deviation is rounding error: such an episode says nothing.
        resolution = 1e-6 * jnp.abs(returns).max(0)
        return jnp.where(deviation > resolution, centred / jnp.maximum(deviation, 1e-20), 0.0)
    discounts = discount ** jnp.arange(rewards.shape[0], dtype=rewards.dtype)
    discounted = rewards * discounts[:, None]
    if estimator == "reinforce":
        episode = discounted.sum(0)
        if baseline != "none":
            episode = episode - episode.sum() / jnp.maximum(valid[0].sum(), 1)
        return jnp.where(valid, episode, 0.0)
    if baseline == "constant":
        discounted = discounted - mask * discounted.sum() / jnp.maximum(mask.sum(), 1)
    elif baseline == "average":
        discounted = discounted - mask * (discounted.sum(1) / jnp.maximum(mask.sum(1), 1))[:, None]
    return jnp.where(valid, rewards_to_go(discounted, 1.0), 0.0)
