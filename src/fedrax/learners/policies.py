"""Policies without a critic, for learners of whole episodes."""

from __future__ import annotations

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from fedrax.environments.base import Discrete, Observation, Spaces
from fedrax.learners.distributions import Categorical, Gaussian
from fedrax.learners.encoders import Encoder, TorsoKind, make_encoder
from fedrax.learners.networks import Activation, Dense, Initialisation, Policy, activate, flat_size, make_dense


class CategoricalPolicy(Policy):
    """An MLP to logits, with ``squash`` on the logits (``tanh`` keeps every action's probability away from 0)."""

    encoder: Encoder
    layers: tuple[Dense, ...]
    activation: Activation = eqx.field(static=True)
    squash: Activation = eqx.field(static=True)

    def __call__(self, observation: Observation) -> Categorical:
        """The distribution over actions."""
        hidden = self.encoder(observation)
        for layer in self.layers[:-1]:
            hidden = activate(self.activation, layer(hidden))
        return Categorical(activate(self.squash, self.layers[-1](hidden)))


class GaussianPolicy(Policy):
    """An MLP to the mean, with one learned log deviation per action component whatever the state."""

    encoder: Encoder
    layers: tuple[Dense, ...]
    log_deviation: Float[Array, " a"]
    activation: Activation = eqx.field(static=True)

    def __call__(self, observation: Observation) -> Gaussian:
        """The distribution over actions."""
        hidden = self.encoder(observation)
        for layer in self.layers[:-1]:
            hidden = activate(self.activation, layer(hidden))
        mean = self.layers[-1](hidden)
        return Gaussian(mean, jnp.broadcast_to(jnp.exp(self.log_deviation), mean.shape))


class BoundedGaussianPolicy(Policy):
    """The FedPG-BR reference's continuous policy.

    The last trunk layer has no activation; both heads are without bias: mean = tanh(W h) and
    deviation = tanh(exp(clip(V h, -20, -2))), so that no deviation exceeds 0.1345.
    """

    encoder: Encoder
    trunk: tuple[Dense, ...]
    mean: Dense
    deviation: Dense
    activation: Activation = eqx.field(static=True)

    def __call__(self, observation: Observation) -> Gaussian:
        """The distribution over actions."""
        hidden = self.encoder(observation)
        for layer in self.trunk[:-1]:
            hidden = activate(self.activation, layer(hidden))
        hidden = self.trunk[-1](hidden)
        deviation = jnp.tanh(jnp.exp(jnp.clip(self.deviation(hidden), -20.0, -2.0)))
        return Gaussian(jnp.tanh(self.mean(hidden)), deviation, floor=-1e5)


def make_policy(
    key: PRNGKeyArray,
    spaces: Spaces,
    *,
    torso: TorsoKind,
    hidden: tuple[int, ...],
    activation: Activation,
    logits: Activation,
    gaussian: Literal["free", "bounded"],
    initialisation: Initialisation,
) -> Policy:
    """A policy for ``spaces``: categorical for discrete actions, Gaussian for real ones."""
    encoder, inputs = make_encoder(jax.random.fold_in(key, 1), torso, spaces.observation, initialisation)
    sizes = (inputs, *hidden)
    *keys, head_key, other_key = jax.random.split(key, len(hidden) + 2)
    trunk = tuple(make_dense(k, i, o, initialisation) for k, i, o in zip(keys, sizes[:-1], sizes[1:], strict=True))
    if isinstance(spaces.action, Discrete):
        head = make_dense(head_key, sizes[-1], spaces.action.n, initialisation, gain=0.01)
        return CategoricalPolicy(encoder, (*trunk, head), activation, logits)
    outputs = flat_size(spaces.action)
    if gaussian == "bounded":
        mean = make_dense(head_key, sizes[-1], outputs, initialisation, gain=0.01, bias=False)
        deviation = make_dense(other_key, sizes[-1], outputs, initialisation, gain=0.01, bias=False)
        return BoundedGaussianPolicy(encoder, trunk, mean, deviation, activation)
    head = make_dense(head_key, sizes[-1], outputs, initialisation, gain=0.01)
    return GaussianPolicy(encoder, (*trunk, head), jnp.full(outputs, -0.5), activation)
