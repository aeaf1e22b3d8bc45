"""Agents weighted by their training returns, for strategies that average and for those that listen to neighbours."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fedrax.environments.base import Experience
from fedrax.learners.base import Agent

WEIGHTED: dict[str, dict[str, Any]] = {"aggregator": {"kind": "weighted-mean"}}
"""What weights imply: an average that heeds them."""


class Returns(eqx.Module):
    """Of the training episodes that ended: the sum of their returns, and how many they were."""

    total: Float[Array, "*n"]
    count: Int[Array, "*n"]

    @staticmethod
    def none() -> Returns:
        """No episode."""
        return Returns(jnp.asarray(0.0), jnp.asarray(0))

    def add(self, experience: Experience) -> Returns:
        """With the episodes that ended in a collection."""
        return Returns(self.total + experience.returns.sum(), self.count + experience.count)

    def latest(
        self, known: Float[Array, " agents"], ids: Int[Array, " n"], present: Bool[Array, " n"]
    ) -> Float[Array, " agents"]:
        """Every agent's last mean return: ``known``, replaced where one of the present ``ids`` ended an episode."""
        mean = self.total / jnp.maximum(self.count, 1)
        return known.at[ids].set(jnp.where(present & (self.count > 0), mean, known[ids]))


def count_returns(agent: Agent, experience: Experience) -> Agent:
    """The agent with the episodes that ended in a collection among its private ``returns``."""
    private = dataclasses.replace(agent.private, returns=agent.private.returns.add(experience))
    return dataclasses.replace(agent, private=private)


def weighed(
    temperature: float | None,
    known: Float[Array, " agents"],
    reported: Returns | tuple[()],
    ids: Int[Array, " n"],
    weights: Float[Array, " n"],
) -> tuple[Float[Array, " agents"], Float[Array, " n"]]:
    """Every agent's last mean return, and the weights of messages by them; both as they were without a temperature."""
    if temperature is None or not isinstance(reported, Returns):
        return known, weights
    returns = reported.latest(known, ids, weights > 0)
    return returns, weights * poor_first(returns[ids], temperature)


def poor_first(returns: Float[Array, " n"], temperature: float) -> Float[Array, " n"]:
    """Weights that fall with the return: ``softmax(-z / temperature)``, z the standardised returns.

    At a temperature of 0 the poorest agents alone count.
    The FedTD3 reference divides by the sum of the shifted returns instead, which depends on where returns have their
    zero. An unknown return (NaN) counts as the mean.
    """
    known = ~jnp.isnan(returns)
    count = jnp.maximum(known.sum(), 1)
    mean = jnp.where(known, returns, 0.0).sum() / count
    centred = jnp.where(known, returns - mean, 0.0)
    deviation = jnp.sqrt((centred**2).sum() / count)
    standard = centred / jnp.where(deviation > 0, deviation, 1.0)
    above = standard - standard.min()
    return jax.nn.softmax(-above / jnp.maximum(temperature, jnp.finfo(above.dtype).tiny))
