"""Several policies as one: what an agent's KL penalty compares its own policy with."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fedrax.learners.distributions import Categorical, Distribution, Gaussian, kl_divergence

Pool = Literal["arithmetic", "log-linear", "mean-of-kls", "reference"]
Direction = Literal["ppo", "mdpo"]


def pooled(
    policies: Distribution, weights: Float[Array, "N k"], pool: Literal["arithmetic", "log-linear"]
) -> Distribution:
    """One distribution per step from ``k`` policies, leaves ``[N, k, ...]``; rows of ``weights`` sum to 1.

    - ``arithmetic``: the mixture ``sum_j w_j pi_j``. Of Gaussians, the Gaussian with the mixture's mean and variance:
      the gradient of KL(mixture || pi) depends on nothing else.
    - ``log-linear``: proportional to ``prod_j pi_j^w_j``.

    A row of zeros gives something finite, and no meaning.
    """
    if isinstance(policies, Categorical):
        log_probs = jax.nn.log_softmax(policies.logits)
        if pool == "arithmetic":
            # Weights of 0 must not meet a logarithm of 0 in the gradient; the pool has none, but NaN spreads. Nothing
            # smaller will do: numbers below the least normal one are 0 in some programs.
            scaled = jnp.maximum(weights, jnp.finfo(weights.dtype).tiny)[..., None]
            return Categorical(jax.nn.logsumexp(log_probs + jnp.log(scaled), axis=-2))
        return Categorical((weights[..., None] * log_probs).sum(-2))
    share = weights[..., None]
    if pool == "arithmetic":
        mean = (share * policies.mean).sum(-2)
        second = (share * (policies.deviation**2 + policies.mean**2)).sum(-2)
        return Gaussian(mean, jnp.sqrt(jnp.maximum(second - mean**2, 1e-12)), policies.floor)
    precision = (share / policies.deviation**2).sum(-2)
    precision = jnp.maximum(precision, 1e-12)
    mean = (share * policies.mean / policies.deviation**2).sum(-2) / precision
    return Gaussian(mean, precision**-0.5, policies.floor)


def divergence(
    new: Distribution,
    peers: Distribution,
    weights: Float[Array, "N k"],
    action: Array,
    *,
    pool: Pool,
    direction: Direction,
) -> Float[Array, " N"]:
    """Of the policy ``new`` (``[N]``) from its peers (``[N, k]``) in each step, in nats.

    ``ppo`` is KL(pool || new), ``mdpo`` KL(new || pool), both exact over all actions; ``mean-of-kls`` is the weighted
    mean of the divergences from each peer. ``reference`` is FedRL's estimate ``exp(x) - 1 - x`` from the ``action``
    taken and the product of the peers' probabilities.
    """
    if pool == "mean-of-kls":
        each = jax.tree.map(lambda x: x[:, None], new)
        kl = _directed(each, peers, direction)
        return (weights * kl).sum(-1)
    if pool == "reference":
        log_pool = (weights * peers.log_prob(action[:, None])).sum(-1)
        x = log_pool - new.log_prob(action)
        x = x if direction == "mdpo" else -x
        return jnp.exp(x) - 1 - x
    whole = pooled(peers, weights, pool)
    return _directed(new, whole, direction)


def closeness(policies: Distribution) -> Float[Array, "k k"]:
    """How far policies ``[N, k]`` are from each other: the mean over steps of the symmetric KL divergence, in nats."""
    one = jax.tree.map(lambda x: x[:, :, None], policies)
    other = jax.tree.map(lambda x: x[:, None, :], policies)
    return 0.5 * (kl_divergence(one, other) + kl_divergence(other, one)).mean(0)


def _directed(new: Distribution, other: Distribution, direction: Direction) -> Array:
    return kl_divergence(new, other) if direction == "mdpo" else kl_divergence(other, new)
