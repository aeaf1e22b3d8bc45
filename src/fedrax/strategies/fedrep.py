"""FedRep (Collins, Hassani, Mokhtari and Shakkottai, 2021): heads are learned first, then the body that is averaged."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from fedrax.errors import FedraxError
from fedrax.learners.base import Agent, Learner, Objective, UpdateContext
from fedrax.parts import NORMALISER, part_names
from fedrax.registry import option
from fedrax.strategies.base import select, strategies
from fedrax.strategies.fedper import FedPer
from fedrax.strategies.return_weights import Returns
from fedrax.strategies.sharing import put_shared, take_shared


class Alternating(eqx.Module):
    """As :class:`~fedrax.strategies.sharing.Kept`, how far the round is, and an optimiser's state of the body alone."""

    received: PyTree
    returns: Returns
    updates: Int[Array, ""]
    """Local updates done in this round."""
    optimizer: PyTree
    """Of the updates that learn the averaged parts; the agent's own is of those that learn the others."""


@strategies.register("fedrep")
class FedRep(FedPer):
    """Federated averaging of the body, with two time scales.

    In each round's first ``head_updates`` local updates an agent learns only what stays with it, on the body as
    received; in those that are left, only the body, for the head that it has then (algorithm 1 of the paper, whose
    heads are learned to convergence). FedPer learns both at once.
    """

    head_updates: int = option(
        1, "local updates of each round that learn what is not averaged; the others learn what is", minimum=1
    )

    @property
    def least_local_updates(self) -> int:
        """One more than learn the head."""
        return self.head_updates + 1

    def check(self, learner: Learner) -> None:
        """Raises :class:`FedraxError` where nothing stays with an agent, and as :class:`Carrying`."""
        super().check(learner)
        if not self.average:
            raise self._no_head()

    def _no_head(self) -> FedraxError:
        return FedraxError(
            f"strategy 'fedrep' with strategy.average = {list(self.average)} averages the networks whole, and no head "
            "is left to learn; name the body's parts, or set strategy=fedavg"
        )

    def private(self, learner: Learner, agent: Agent) -> Alternating:
        """The common start, and an optimiser that has done nothing.

        Raises:
            FedraxError: nothing stays with the agent.
        """
        if set(part_names(agent.params)) - {NORMALISER} <= set(self.average):
            raise self._no_head()
        kept = super().private(learner, agent)
        return Alternating(kept.received, kept.returns, jnp.asarray(0), agent.optimizer)

    def absorb(self, agent: Agent, downlink: Any, index: Int[Array, ""]) -> Agent:
        """The averaged parts replace the agent's; its head is learned first."""
        after = super().absorb(agent, downlink, index)
        optimizer = after.private.optimizer
        if self.moments == "reset":
            optimizer = jax.tree.map(jnp.zeros_like, optimizer)
        private = dataclasses.replace(after.private, updates=jnp.asarray(0), optimizer=optimizer)
        return dataclasses.replace(after, private=private)

    def objective(self, learner: Learner, agent: Agent, context: PyTree) -> Objective:
        """One of both stands still."""
        return Partly(self, agent.private.updates < self.head_updates)

    def work(
        self, learner: Learner, agent: Agent, experience: Any, update_context: UpdateContext
    ) -> tuple[Agent, dict[str, Array]]:
        """One local update of the head or of the body, by an optimiser that has never seen a gradient of the other."""
        kept = agent.private
        head = kept.updates < self.head_updates
        acting = dataclasses.replace(agent, optimizer=select(head, agent.optimizer, kept.optimizer))
        after, metrics = super().work(learner, acting, experience, update_context)
        private = dataclasses.replace(
            after.private,
            updates=kept.updates + 1,
            optimizer=select(head, kept.optimizer, after.optimizer),
        )
        optimizer = select(head, after.optimizer, agent.optimizer)
        return dataclasses.replace(after, optimizer=optimizer, private=private), metrics


class Partly(Objective):
    """Gradients of what is averaged, or of all else.

    An optimiser whose gradients of a part have always been 0 leaves that part as it is: its moments are 0 too.
    """

    strategy: FedRep
    head: Bool[Array, ""]
    """Whether all else is learned."""

    def correct(self, gradient: PyTree, params: PyTree, notes: PyTree) -> tuple[PyTree, PyTree]:
        """Zeros in place of the gradients of what stands still."""
        body = jax.tree.map(lambda x: jnp.where(self.head, 0, x), take_shared(gradient, self.strategy.average))
        rest = jax.tree.map(lambda x: jnp.where(self.head, x, 0), gradient)
        return put_shared(rest, body, self.strategy.average), notes
