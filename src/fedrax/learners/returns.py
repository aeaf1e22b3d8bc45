"""From rewards to the weight of each step's log-probability gradient. Arrays are time-major, ``[T, B]``."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fedrax.registry import Number

Estimator = Literal["reinforce", "gpomdp", "whitened"]
Baseline = Literal["none", "constant", "average", "leave-one-out"]


def rewards_to_go(rewards: Float[Array, "T B"], discount: Number) -> Float[Array, "T B"]:
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
    discount: Number,
    baseline: Baseline = "none",
) -> Float[Array, "T B"]:
    """The factor of each step's score function ``grad log pi(a_t | s_t)``; 0 on padding.

    - ``reinforce``: the whole episode's discounted return, the same at every step (Williams, 1992), less the batch's
      mean return for baselines ``constant`` and ``average``, less that of the other episodes for ``leave-one-out``.
    - ``gpomdp``: ``sum_{h >= t} (gamma^h r_h - C_h)`` (Baxter & Bartlett, 2001). ``C_h`` is 0 for baseline ``none``,
      the mean of ``gamma^h r_h`` over all steps of the batch for ``constant``, and over the batch's episodes that
      reach step h for ``average``. For ``leave-one-out`` the sum of the C_h is the mean of
      ``sum_{h >= t} gamma^h r_h`` over the batch's *other* episodes that reach step t, 0 where there are none.
    - ``whitened``: reward-to-go without the factor gamma^t, standardised within each episode with the unbiased
      deviation, as the FedPG-BR reference does. An episode of one step, or of constant reward-to-go, gets 0 where
      the reference divides by zero. The baseline does not apply: the mean is one.

    In expectation the first two are the policy gradient of the discounted return if the baseline of an episode does
    not depend on its own actions: ``none`` and ``leave-one-out``. With ``constant`` and ``average`` it does, through
    the episode's own rewards and, for ``gpomdp``, through its length: where every reward is 1, ``average`` is 0.
    ``whitened`` is biased: weights that add up to zero in each episode say nothing of how it compares with others. If
    an episode is rewarded late, its early steps have less reward-to-go than its late ones, so that exactly the action
    that earned the reward is made rarer.
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
        if baseline == "leave-one-out":
            episode = (episode - _mean_of_others(episode[None], mask[:1]))[0]
        elif baseline != "none":
            episode = episode - episode.sum() / jnp.maximum(valid[0].sum(), 1)
        return jnp.where(valid, episode, 0.0)
    if baseline == "constant":
        discounted = discounted - mask * discounted.sum() / jnp.maximum(mask.sum(), 1)
    elif baseline == "average":
        discounted = discounted - mask * (discounted.sum(1) / jnp.maximum(mask.sum(1), 1))[:, None]
    to_go = rewards_to_go(discounted, 1.0)
    if baseline == "leave-one-out":
        to_go = to_go - _mean_of_others(to_go, mask)
    return jnp.where(valid, to_go, 0.0)


def _mean_of_others(values: Float[Array, "T B"], mask: Float[Array, "T B"]) -> Float[Array, "T B"]:
    """The mean over the other columns that are counted (``mask`` 1) in a row; 0 where there are none."""
    counted = values * mask
    others = mask.sum(1, keepdims=True) - mask
    return jnp.where(others > 0, (counted.sum(1, keepdims=True) - counted) / jnp.maximum(others, 1), 0.0)
