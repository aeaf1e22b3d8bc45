"""MOON (Li, He and Song, 2021): representations near the global model's, far from an earlier local one's."""

from __future__ import annotations

import dataclasses
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from fedrax.errors import FedraxError
from fedrax.learners.base import Agent, Batch, Learner, Objective
from fedrax.registry import option
from fedrax.strategies.base import strategies
from fedrax.strategies.fedavg import FedAvg
from fedrax.strategies.return_weights import Returns
from fedrax.strategies.sharing import Broadcast, put_shared, take_shared


class Remembered(eqx.Module):
    """As :class:`Kept`, and the networks before the last broadcast."""

    received: PyTree
    returns: Returns
    previous: PyTree


@strategies.register("moon")
class MOON(FedAvg):
    """Federated averaging with a contrastive term in every local loss.

    ``-log(e^{cos(z, z_global) / T} / (e^{cos(z, z_global) / T} + e^{cos(z, z_previous) / T}))``, z the learner's
    representations (:meth:`Learner.representations`), the other models' held fixed. Agents keep all parts of the
    received networks for it, so every part must be averaged.
    """

    contrast: float = option(0.01, "mu, weight of the contrastive term", minimum=0)
    contrast_temperature: float = option(1.0, "T of the contrastive term", minimum=1e-6)
    previous: Literal["round", "step"] = option(
        "round",
        "the model to move away from: the agent's own at the end of the last round, as published; or the one a "
        "gradient step ago (the FedTD3 reference), whose gradient vanishes as the two models all but agree",
    )

    @property
    def requires(self) -> frozenset[str]:
        """Representations."""
        return frozenset({"representations"})

    def check(self, learner: Learner) -> None:
        """Raises :class:`FedraxError` where only some parts are averaged."""
        super().check(learner)
        if self.average:
            raise FedraxError("strategy 'moon' compares whole networks; remove strategy.average")

    def private(self, learner: Learner, agent: Agent) -> Remembered:
        """The networks as received and before."""
        kept = super().private(learner, agent)
        return Remembered(kept.received, kept.returns, take_shared(agent.params, ()))

    def absorb(self, agent: Agent, downlink: Broadcast, index: Int[Array, ""]) -> Agent:
        """The global networks replace the agent's, which it remembers."""
        after = super().absorb(agent, downlink, index)
        return dataclasses.replace(
            after, private=dataclasses.replace(after.private, previous=take_shared(agent.params, ()))
        )

    def objective(self, learner: Learner, agent: Agent, context: PyTree) -> Objective:
        """The contrast between what was received and what was before."""
        received, previous = (
            put_shared(agent.params, each, ()) for each in (agent.private.received, agent.private.previous)
        )
        return Contrast(self, learner, received, previous)


class Contrast(Objective):
    """Near the received model's representations, far from the previous model's."""

    strategy: MOON
    learner: Learner
    received: PyTree
    previous: PyTree

    def penalty(self, params: PyTree, batch: Batch) -> Float[Array, ""]:
        """The mean over the minibatch, summed over the networks' representations."""
        before = params if self.strategy.previous == "step" else self.previous
        own, received, previous = (
            self.learner.representations(each, batch)
            for each in (params, jax.lax.stop_gradient(self.received), jax.lax.stop_gradient(before))
        )
        terms = [
            jax.nn.softplus((cosine(z, old) - cosine(z, new)) / self.strategy.contrast_temperature)
            for z, new, old in zip(own, received, previous, strict=True)
        ]
        share = batch.valid / jnp.maximum(batch.valid.sum(), 1)
        return self.strategy.contrast * (sum(terms) * share).sum()


def cosine(x: Float[Array, "N f"], y: Float[Array, "N f"]) -> Float[Array, " N"]:
    """Of each pair of rows; 0 where one of them is 0."""
    lengths = jnp.sqrt(jnp.maximum((x**2).sum(-1) * (y**2).sum(-1), 1e-16))
    return (x * y).sum(-1) / lengths
