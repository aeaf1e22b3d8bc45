"""Federated averaging (McMahan et al., 2017): agents learn locally, the server averages what changed."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from fedrax.aggregators.base import Aggregate
from fedrax.environments.base import Experience, Spaces
from fedrax.errors import FedraxError
from fedrax.learners.base import Agent, Clock, Learner
from fedrax.parts import check_parts, put_parts, take_parts
from fedrax.registry import option
from fedrax.strategies.base import Strategy, Tools, select, strategies
from fedrax.trees import ravel_rows, tree_bytes, unravel_like


class Server(eqx.Module):
    """The global networks; their parts that are not averaged are as they were first drawn."""

    params: PyTree
    round: Int[Array, ""]
    returns: Float[Array, " n"]
    """Each agent's last known mean training return; NaN before its first episode ended."""


class Global(eqx.Module):
    """What goes out."""

    params: PyTree
    episodes: Int[Array, ""]
    actor_due: Array
    """Whether the actor was averaged in the last round, bool."""


class Received(eqx.Module):
    """What an agent keeps of the last broadcast, to tell how it changed since, and its return this round."""

    params: PyTree
    return_sum: Float[Array, ""]
    episodes: Array


class Report(eqx.Module):
    """What an agent sends."""

    change: PyTree
    """Of the averaged parts."""
    return_sum: Float[Array, ""]
    """Of the training episodes that ended, with how many these were; 0 unless agents are weighted by return."""
    episodes: Array


@strategies.register("fedavg")
class FedAvg(Strategy):
    """The server moves along the aggregate of the agents' changes of the networks."""

    common_start: ClassVar[bool] = True
    bears_stale: ClassVar[bool] = True

    server_learning_rate: float = option(
        1.0, "how far the server moves along the aggregate of the changes (1: to the average)", minimum=0
    )
    average: tuple[str, ...] = option((), "parts of the networks to average (the others stay with each agent); []: all")
    actor_every: int = option(1, "rounds from one average of the part 'actor' to the next", unit="rounds", minimum=1)
    return_temperature: float | None = option(
        None, "weigh agents by softmax(-return / temperature), so that the worst count most; none: equally", minimum=0
    )
    batch: int = option(16, "trajectories of each agent per local update, for learners of whole episodes", minimum=1)

    @classmethod
    def implies(cls, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """An average that heeds weights, where agents are weighted."""
        weighted = settings.get("return_temperature", "none") not in (None, "none")
        return {"aggregator": {"kind": "weighted-mean"}} if weighted else {}

    @property
    def weighs(self) -> bool:
        """Whether by return."""
        return self.return_temperature is not None

    def check(self, learner: Learner) -> None:
        """Raises :class:`FedraxError` where the policy that is handed out would not be averaged."""
        super().check(learner)
        missing = [part for part in learner.policy_parts if part not in self.average]
        if self.average and missing:
            raise FedraxError(
                f"strategy.average = {list(self.average)} leaves out {' and '.join(missing)}, without which there "
                "is no shared policy; add it, or set strategy=gossip, where agents keep their own"
            )
        if self.actor_every > 1 and "actor" not in learner.policy_parts:
            raise FedraxError(f"strategy.actor_every needs a learner with a part 'actor', not {learner.name!r}")

    @property
    def max_episodes(self) -> int:
        """The batch."""
        return self.batch

    def init(self, learner: Learner, spaces: Spaces, agents: Agent, key: PRNGKeyArray) -> Server:
        """The networks that all agents start from."""
        if self.average:
            check_parts("strategy.average", self.average, agents.params)
        count = jax.tree.leaves(agents.params)[0].shape[0]
        return Server(jax.tree.map(lambda x: x[0], agents.params), jnp.asarray(0), jnp.full(count, jnp.nan))

    def broadcast(self, server: Server, key: PRNGKeyArray) -> Global:
        """The averaged parts."""
        due = server.round % self.actor_every == 0
        return Global(self.shared(server.params), jnp.asarray(self.batch), due)

    def shared(self, params: PyTree) -> PyTree:
        """The parts that are averaged: a table of them, or the networks whole."""
        return take_parts(params, self.average) if self.average else params

    def with_shared(self, params: PyTree, shared: PyTree) -> PyTree:
        """The networks with these averaged parts."""
        return put_parts(params, shared) if self.average else shared

    # One agent's verbs.

    def private(self, learner: Learner, agent: Agent) -> Received:
        """The networks as received."""
        return Received(self.shared(agent.params), jnp.asarray(0.0), jnp.asarray(0))

    def absorb(self, agent: Agent, downlink: Global, index: Int[Array, ""]) -> Agent:
        """The averaged parts replace the agent's; its optimiser goes on."""
        params = self.with_shared(agent.params, downlink.params)
        if self.actor_every > 1:
            params = put_parts(params, {"actor": select(downlink.actor_due, params.actor, agent.params.actor)})
        received = Received(downlink.params, jnp.asarray(0.0), jnp.asarray(0))
        return Agent(params, agent.optimizer, agent.memory, received)

    def work(
        self, learner: Learner, agent: Agent, experience: Experience, clock: Clock
    ) -> tuple[Agent, dict[str, Array]]:
        """One local update; counts the episodes that ended where agents are weighted by return."""
        agent, metrics = super().work(learner, agent, experience, clock)
        if self.return_temperature is None:
            return agent, metrics
        kept = agent.private
        kept = dataclasses.replace(
            kept, return_sum=kept.return_sum + experience.returns.sum(), episodes=kept.episodes + experience.count
        )
        return dataclasses.replace(agent, private=kept), metrics

    def emit(self, learner: Learner, agent: Agent, key: PRNGKeyArray) -> Report:
        """How the averaged parts changed."""
        change = jax.tree.map(jnp.subtract, self.shared(agent.params), agent.private.params)
        return Report(change, agent.private.return_sum, agent.private.episodes)

    def sent(self, message: Report) -> float:
        """The changes (the actor's in the rounds that average it), and the returns where they are asked for."""
        change = tree_bytes(message.change) - self._saved(message.change)
        return change + (8 if self.return_temperature is not None else 0)

    def received(self, downlink: Global) -> float:
        """The averaged parts, the actor in the rounds that follow its average."""
        return tree_bytes(downlink.params) - self._saved(downlink.params)

    def _saved(self, shared: PyTree) -> float:
        """Bytes per round of an actor that travels only every so often."""
        if self.actor_every == 1:
            return 0.0
        actor = shared["actor"] if self.average else shared.actor
        return tree_bytes(actor) * (1 - 1 / self.actor_every)

    # The server's.

    def combine(
        self,
        learner: Learner,
        server: Server,
        downlink: Global,
        messages: Report,
        weights: Float[Array, " n"],
        tools: Tools,
    ) -> tuple[Server, Aggregate]:
        """One step along the aggregate; none when the rule accepts nobody."""
        weights, returns = self.weigh(server, messages, weights, tools)
        verdict = tools.aggregate(ravel_rows(messages.change), weights, 1.0)
        shared = self.shared(server.params)
        change = unravel_like(shared, self.server_learning_rate * verdict.vector)
        moved = self.with_shared(server.params, jax.tree.map(jnp.add, shared, change))
        if self.actor_every > 1:
            due = (server.round + 1) % self.actor_every == 0
            moved = put_parts(moved, {"actor": select(due, moved.actor, server.params.actor)})
        return Server(select(verdict.valid, moved, server.params), server.round + 1, returns), verdict

    def weigh(
        self, server: Server, messages: Report, weights: Float[Array, " n"], tools: Tools
    ) -> tuple[Float[Array, " n"], Float[Array, " agents"]]:
        """The weights in the average, and every agent's last known return."""
        if self.return_temperature is None:
            return weights, server.returns
        ended = (weights > 0) & (messages.episodes > 0)
        latest = messages.return_sum / jnp.maximum(messages.episodes, 1)
        returns = server.returns.at[tools.ids].set(jnp.where(ended, latest, server.returns[tools.ids]))
        return weights * poor_first(returns[tools.ids], self.return_temperature), returns


def poor_first(returns: Float[Array, " n"], temperature: float) -> Float[Array, " n"]:
    """Positive weights that fall with the return: ``softmax(-z / temperature)``, z the standardised returns.

    The FedTD3 reference divides by the sum of the shifted returns instead, which depends on where returns have their
    zero. An unknown return (NaN) counts as the mean.
    """
    known = ~jnp.isnan(returns)
    count = jnp.maximum(known.sum(), 1)
    mean = jnp.where(known, returns, 0.0).sum() / count
    centred = jnp.where(known, returns - mean, 0.0)
    deviation = jnp.sqrt((centred**2).sum() / count)
    standard = centred / jnp.where(deviation > 0, deviation, 1.0)
    return jax.nn.softmax(-standard / temperature)
