"""Attacks on the attacker's own environment: what it does there, or what it claims to have earned."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from fedrax.attacks.base import Attack, attacks
from fedrax.environments.base import Discrete, Spaces


@attacks.register("random-action")
class ConstantAction(Attack):
    """Always action 0, or the zero vector in the environment's units: the FedPG-BR reference's "random action".

    The gradient is then taken of the policy's log-probability of that action, which for a narrow Gaussian is huge.
    """

    def act(self, action: Array, spaces: Spaces, key: PRNGKeyArray) -> Array:
        """Zeros of the action's shape."""
        return jnp.zeros_like(action)


@attacks.register("true-random-action")
class RandomAction(Attack):
    """Uniform over the environment's action space; standard normal in components without finite bounds."""

    def act(self, action: Array, spaces: Spaces, key: PRNGKeyArray) -> Array:
        """Actions drawn without regard to the policy."""
        if isinstance(spaces.action, Discrete):
            return jax.random.randint(key, action.shape, 0, spaces.action.n, action.dtype)
        low = jnp.asarray(spaces.action.low).reshape(spaces.action.shape)
        high = jnp.asarray(spaces.action.high).reshape(spaces.action.shape)
        bounded = jnp.isfinite(low) & jnp.isfinite(high)
        floor, ceiling = jnp.where(bounded, low, 0.0), jnp.where(bounded, high, 0.0)
        uniform_key, normal_key = jax.random.split(key)
        uniform = floor + (ceiling - floor) * jax.random.uniform(uniform_key, action.shape)
        return jnp.where(bounded, uniform, jax.random.normal(normal_key, action.shape)).astype(action.dtype)


@attacks.register("reward-flipping")
class RewardFlipping(Attack):
    """Learns from ``-r``. Under whitened returns this is exactly the opposite of the honest gradient."""

    def poison(self, rewards: Array, valid: Array, key: PRNGKeyArray) -> Array:
        """The rewards negated."""
        return jnp.where(valid, -rewards, rewards)


@attacks.register("random-reward")
class RandomReward(Attack):
    """Shuffles the rewards within each episode. Where all rewards are equal, as on CartPole, it does nothing."""

    def poison(self, rewards: Array, valid: Array, key: PRNGKeyArray) -> Array:
        """The rewards of each episode (a column) in random order; padding stays in place."""
        # Padding sorts last under any draw, so the shuffled steps are the episode's own.
        order = jnp.argsort(jnp.where(valid, jax.random.uniform(key, rewards.shape), jnp.inf), axis=0)
        return jnp.where(valid, jnp.take_along_axis(rewards, order, axis=0), rewards)
