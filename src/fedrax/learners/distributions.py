"""Action distributions: pytrees over leading batch axes, with exact log-probabilities."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray


class Categorical(eqx.Module):
    """Over ``n`` discrete actions, from unnormalised ``logits[..., n]``."""

    logits: Float[Array, "... n"]

    def sample(self, key: PRNGKeyArray) -> Int[Array, ...]:
        """One action per batch element, by inversion: one uniform number each instead of one per action."""
        cumulative = jnp.cumsum(jax.nn.softmax(self.logits), -1)
        uniform = jax.random.uniform(key, self.logits.shape[:-1])
        return (uniform[..., None] >= cumulative[..., :-1]).sum(-1, dtype=jnp.int32)

    def mode(self) -> Int[Array, ...]:
        """The most probable action."""
        return jnp.argmax(self.logits, -1).astype(jnp.int32)

    def log_prob(self, action: Int[Array, ...]) -> Float[Array, ...]:
        """Log-probability of ``action`` (natural logarithm)."""
        log_probs = jax.nn.log_softmax(self.logits)
        # A one-hot product instead of a gather: its gradient is a product too, where a gather's is a slow scatter.
        chosen = jax.nn.one_hot(action, self.logits.shape[-1], dtype=log_probs.dtype)
        return (log_probs * chosen).sum(-1)

    def entropy(self) -> Float[Array, ...]:
        """Entropy in nats."""
        log_probs = jax.nn.log_softmax(self.logits)
        return -(jnp.exp(log_probs) * log_probs).sum(-1)


class Gaussian(eqx.Module):
    """Independent normals per action component: ``mean`` and ``deviation`` are ``[..., d]``."""

    mean: Float[Array, "... d"]
    deviation: Float[Array, "... d"]
    floor: float = eqx.field(static=True, default=-math.inf)
    """Least log-density of one component; the FedPG-BR reference uses -1e5."""

    def sample(self, key: PRNGKeyArray) -> Float[Array, "... d"]:
        """One action per batch element; :mod:`fedrax.environments.actions` makes the environment's of it."""
        return self.mean + self.deviation * jax.random.normal(key, self.mean.shape)

    def mode(self) -> Float[Array, "... d"]:
        """The mean."""
        return self.mean

    def log_prob(self, action: Float[Array, "... d"]) -> Float[Array, ...]:
        """Log-density of ``action``, summed over components."""
        z = (action - self.mean) / self.deviation
        component = -0.5 * z**2 - jnp.log(self.deviation) - 0.5 * math.log(2 * math.pi)
        return jnp.maximum(component, self.floor).sum(-1)

    def entropy(self) -> Float[Array, ...]:
        """Differential entropy in nats."""
        return (0.5 * math.log(2 * math.pi * math.e) + jnp.log(self.deviation)).sum(-1)


Distribution = Categorical | Gaussian


def kl_divergence(p: Distribution, q: Distribution) -> Float[Array, ...]:
    """KL(p || q) in nats, per batch element and exact: over all actions, or in closed form for Gaussians.

    Both are of the same kind; a Gaussian's ``floor`` does not enter.
    """
    if isinstance(p, Categorical):
        assert isinstance(q, Categorical)
        log_p, log_q = jax.nn.log_softmax(p.logits), jax.nn.log_softmax(q.logits)
        return (jnp.exp(log_p) * (log_p - log_q)).sum(-1)
    assert isinstance(q, Gaussian)
    ratio = p.deviation / q.deviation
    distance = (p.mean - q.mean) / q.deviation
    return (0.5 * (ratio**2 + distance**2 - 1.0) - jnp.log(ratio)).sum(-1)
