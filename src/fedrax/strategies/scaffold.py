"""SCAFFOLD (Karimireddy et al., 2020): local gradients are corrected for how agents' objectives differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from fedrax.aggregators.base import Aggregate
from fedrax.environments.base import Spaces
from fedrax.learners.base import Agent, Learner, Objective
from fedrax.message import Message
from fedrax.strategies.base import Tools, select, strategies
from fedrax.strategies.fedavg import FedAvg
from fedrax.strategies.return_weights import Returns
from fedrax.strategies.sharing import Broadcast, put_shared, take_shared
from fedrax.trees import ravel_rows, unravel_like


class ControlServer(eqx.Module):
    """As :class:`~fedrax.strategies.sharing.Server`, and the mean of the agents' control variates."""

    params: PyTree
    round: Int[Array, ""]
    returns: Float[Array, " agents"]
    control: PyTree
    carried: PyTree = ()


class ControlBroadcast(eqx.Module):
    """The averaged parts, and the server's control variate."""

    networks: Broadcast
    control: PyTree

    @property
    def episodes(self) -> int:
        """As in :class:`~fedrax.strategies.base.Downlink`."""
        return self.networks.episodes


class Controlled(eqx.Module):
    """As :class:`~fedrax.strategies.sharing.Kept`, with control variates and the gradients of this round."""

    received: PyTree
    returns: Returns
    own: PyTree
    """The agent's control variate: its mean gradient in the last round it took part in."""
    gradients: Gradients


class Gradients(NamedTuple):
    """Gradients as they were before any correction."""

    total: PyTree
    """Summed over steps."""
    count: PyTree
    """Of how many steps each leaf's sum is."""


@strategies.register("scaffold")
class Scaffold(FedAvg):
    """Federated averaging where every local gradient g becomes ``g - c_i + c``.

    The control variates start at 0, and c_i becomes the mean of the agent's uncorrected gradients of the round. Under
    plain gradient descent that is the paper's second option, ``c_i - c + (x - y_i) / (K eta)``, exactly; unlike that
    formula it is one under Adam too, where the correction belongs before the moments.
    """

    supports_staleness: ClassVar[bool] = False

    def period(self, path: tuple[str, ...]) -> int:
        """Control variates always travel."""
        return 1 if "control" in path else super().period(path)

    def init(self, learner: Learner, spaces: Spaces, agents: Agent, key: PRNGKeyArray) -> ControlServer:
        """The common networks, and no correction."""
        start = super().init(learner, spaces, agents, key)
        zero = jax.tree.map(jnp.zeros_like, take_shared(start.params, self.average))
        return ControlServer(start.params, start.round, start.returns, zero, start.carried)

    def broadcast(self, server: Any, key: PRNGKeyArray) -> ControlBroadcast:
        """The averaged parts and their control variate."""
        return ControlBroadcast(super().broadcast(server, key), server.control)

    def private(self, learner: Learner, agent: Agent) -> Controlled:
        """No correction."""
        kept = super().private(learner, agent)
        zero = jax.tree.map(jnp.zeros_like, kept.received)
        return Controlled(kept.received, kept.returns, zero, no_gradients(zero))

    def absorb(self, agent: Agent, downlink: Any, index: Int[Array, ""]) -> Agent:
        """The global networks; the own control variate is of the last round's gradients."""
        after, before = super().absorb(agent, downlink.networks, index), agent.private
        private = dataclasses.replace(
            after.private,
            own=mean_gradient(before.gradients, otherwise=before.own),
            gradients=no_gradients(before.gradients.total),
        )
        return dataclasses.replace(after, private=private)

    def context(self, agent: Agent, downlink: Any, index: Int[Array, ""]) -> PyTree:
        """The server's control variate."""
        return downlink.control

    def objective(self, learner: Learner, agent: Agent, context: PyTree) -> Objective:
        """The correction, by the difference from the server's control variate."""
        return Correction(self, jax.tree.map(jnp.subtract, context, agent.private.own))

    def emit(self, learner: Learner, agent: Agent, key: PRNGKeyArray) -> Message:
        """How the averaged parts and the control variate changed."""
        message, kept = super().emit(learner, agent, key), agent.private
        control = jax.tree.map(jnp.subtract, mean_gradient(kept.gradients, otherwise=kept.own), kept.own)
        return Message({"networks": message.update, "control": control}, message.statistics)

    def combine(
        self, learner: Learner, server: Any, downlink: Any, messages: Message, weights: Array, tools: Tools
    ) -> tuple[ControlServer, Aggregate]:
        """Networks as in federated averaging; the control variate by the same rule, for the share that took part."""
        networks = Message(messages.update["networks"], messages.statistics)
        after, verdict = super().combine(learner, server, downlink, networks, weights, tools)
        controls = tools.aggregate(ravel_rows(messages.update["control"]), weights, 1.0)
        share = (weights > 0).sum() / server.returns.shape[0]
        change = unravel_like(server.control, share * controls.vector)
        control = select(controls.valid, jax.tree.map(jnp.add, server.control, change), server.control)
        return dataclasses.replace(after, control=control), verdict


class Correction(Objective):
    """Adds ``c - c_i`` to every gradient, and sums up what the gradients were without it."""

    strategy: Scaffold
    difference: PyTree

    def start(self, params: PyTree) -> Gradients:
        """No gradient yet."""
        return no_gradients(self.difference)

    def correct(self, gradient: PyTree, params: PyTree, notes: Gradients) -> tuple[PyTree, Gradients]:
        """The corrected gradient of the parts that this step trains."""

        def present(function: Callable[[Array, Array], Array], tree: PyTree, *, absent: bool) -> PyTree:
            # A part that is not trained is one None in place of its whole subtree.
            def each(x: Array | None, y: PyTree) -> PyTree:
                return (y if absent else None) if x is None else function(x, y)

            return jax.tree.map(each, shared, tree, is_leaf=lambda x: x is None)

        shared = take_shared(gradient, self.strategy.average)
        total = present(jnp.add, notes.total, absent=True)
        count = present(lambda x, n: n + 1, notes.count, absent=True)
        corrected = present(jnp.add, self.difference, absent=False)
        return put_shared(gradient, corrected, self.strategy.average), Gradients(total, count)

    def keep(self, private: Controlled, notes: Gradients) -> Controlled:
        """The round's gradients with those of this update."""
        return dataclasses.replace(private, gradients=jax.tree.map(jnp.add, private.gradients, notes))


def no_gradients(example: PyTree) -> Gradients:
    """Sums of nothing."""
    return Gradients(jax.tree.map(jnp.zeros_like, example), jax.tree.map(lambda x: jnp.asarray(0), example))


def mean_gradient(gradients: Gradients, *, otherwise: PyTree) -> PyTree:
    """The mean over steps; ``otherwise`` where there was none."""
    return jax.tree.map(
        lambda total, count, old: jnp.where(count > 0, total / jnp.maximum(count, 1), old), *gradients, otherwise
    )
