"""FedProx (Li et al., 2020): local learning is held near the networks that were received."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from fedrax.learners.base import Agent, Batch, Learner, Objective
from fedrax.registry import option
from fedrax.strategies.base import strategies
from fedrax.strategies.fedavg import FedAvg
from fedrax.strategies.sharing import take_shared


@strategies.register("fedprox")
class FedProx(FedAvg):
    """Federated averaging with ``mu/2 ||w - w_received||^2`` in every local loss.

    The FedTD3 reference leaves out the half: its beta is half of our ``proximal``.
    """

    proximal: float = option(0.02, "mu, weight of half the squared distance from the received networks", minimum=0)

    def objective(self, learner: Learner, agent: Agent, context: PyTree) -> Objective:
        """The distance from what was received."""
        return Proximal(self, agent.private.received)


class Proximal(Objective):
    """Half the squared distance of the averaged parts from where they were."""

    strategy: FedProx
    received: PyTree

    def penalty(self, params: PyTree, batch: Batch) -> Float[Array, ""]:
        """``mu/2 ||w - w_received||^2``."""
        return (
            0.5 * self.strategy.proximal * squared_distance(take_shared(params, self.strategy.average), self.received)
        )


def squared_distance(x: PyTree, y: PyTree) -> Float[Array, ""]:
    """The sum over all leaves."""
    parts = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), x, y)
    return jnp.stack(jax.tree.leaves(parts)).sum()
