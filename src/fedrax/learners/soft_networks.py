"""The networks of soft actor-critic: twin critics, a stochastic actor, and the temperature."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fedrax.environments.base import Observation
from fedrax.learners.critics.base import NOTHING, Sight
from fedrax.learners.distributions import Categorical, Gaussian
from fedrax.learners.twin_critic import TwinCritic


class SoftTwinCritic(TwinCritic):
    """With an actor of real actions: tanh of a Gaussian whose mean and log deviation follow from the observation."""

    temperature: Float[Array, ""] = eqx.field(default_factory=lambda: jnp.zeros(()))
    """The natural logarithm of alpha."""
    deviation_bounds: tuple[float, float] = eqx.field(static=True, default=(-20.0, 2.0))
    """Between which the log deviation is clipped."""

    def policy(self, observation: Observation) -> Gaussian:
        """The distribution before tanh, ``[..., a]``."""
        mean, log_deviation = jnp.split(self.actor(self.seen(observation)), 2, -1)
        return Gaussian(mean, jnp.exp(jnp.clip(log_deviation, *self.deviation_bounds)))

    def act(self, observation: Observation) -> Float[Array, "... a"]:
        """The actions of the Gaussian's mean."""
        return self.units(jnp.tanh(self.policy(observation).mean))

    def drawn(
        self, observation: Observation, noise: Float[Array, "... a"]
    ) -> tuple[Float[Array, "... a"], Float[Array, ...]]:
        """Actions, with standard normal noise, and their log-density as shares of their range."""
        policy = self.policy(observation)
        before = policy.mean + policy.deviation * noise
        # log(1 - tanh(x)^2), which is 0 or infinite where it is computed as it stands.
        slope = 2.0 * (math.log(2.0) - before - jax.nn.softplus(-2.0 * before))
        log_prob = -0.5 * noise**2 - jnp.log(policy.deviation) - 0.5 * math.log(2 * math.pi) - slope
        return self.units(jnp.tanh(before)), log_prob.sum(-1)

    def units(self, shares: Float[Array, "... a"]) -> Float[Array, "... a"]:
        """Shares of the range, -1 to 1, as actions."""
        return jnp.asarray(self.centre) + jnp.asarray(self.reach) * shares

    @property
    def alpha(self) -> Float[Array, ""]:
        """The weight of the entropy."""
        return jnp.exp(self.temperature)


class DiscreteTwinCritic(TwinCritic):
    """With an actor of discrete actions, and critics that see an observation and value every action."""

    temperature: Float[Array, ""] = eqx.field(default_factory=lambda: jnp.zeros(()))
    """The natural logarithm of alpha."""

    def policy(self, observation: Observation) -> Categorical:
        """The distribution over actions."""
        return Categorical(self.actor(self.seen(observation)))

    def inputs(self, observation: Observation, action: Float[Array, "... 1"]) -> tuple[Any, ...]:
        """The observation alone."""
        return (self.seen(observation),)

    def all_values(
        self, observation: Observation, sight: Sight = NOTHING
    ) -> tuple[Float[Array, "... n"], Float[Array, "... n"]]:
        """Both critics' values of every action."""
        first, second = (self.outputs(which, (self.seen(observation),), sight) for which in (0, 1))
        return first, second

    def values(
        self, observation: Observation, action: Float[Array, "... 1"], sight: Sight = NOTHING
    ) -> tuple[Float[Array, ...], Float[Array, ...]]:
        """Both critics' values of the actions of these numbers."""
        first, second = self.all_values(observation, sight)
        # A product instead of a gather: its gradient is a product too, where a gather's is a slow scatter.
        chosen = jax.nn.one_hot(action[..., 0].astype(jnp.int32), first.shape[-1], dtype=first.dtype)
        return (first * chosen).sum(-1), (second * chosen).sum(-1)

    @property
    def alpha(self) -> Float[Array, ""]:
        """The weight of the entropy."""
        return jnp.exp(self.temperature)
