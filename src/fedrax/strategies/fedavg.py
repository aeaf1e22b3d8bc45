"""Federated averaging (McMahan et al., 2017): agents learn locally, the server averages what changed."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from fedrax.aggregators.base import Aggregate
from fedrax.environments.base import Spaces
from fedrax.learners.base import Agent, Learner
from fedrax.message import Message
from fedrax.registry import Number, option
from fedrax.strategies.base import Tools, select, strategies
from fedrax.strategies.carried import Carrying, apart, averaged, joined
from fedrax.strategies.return_weights import WEIGHTED, Returns, weighed
from fedrax.strategies.sharing import Broadcast, Kept, Server, check_actor, put_shared, replaced, take_shared
from fedrax.strategies.statistics import Statistics, own_moments, pool_moments, put_moments, shared_moments
from fedrax.trees import ravel_rows, unravel_like


@strategies.register("fedavg")
class FedAvg(Carrying):
    """``x <- x + server_learning_rate * aggregate_i(y_i - x)``, y_i the networks that agent i makes of x locally."""

    common_start: ClassVar[bool] = True
    supports_staleness: ClassVar[bool] = True
    averages: ClassVar[bool] = True

    server_learning_rate: Number = option(
        1.0, "step of the server along the aggregate of the changes", minimum=0, argument=True
    )
    actor_every: int = option(1, "rounds from one average of the part 'actor' to the next", unit="rounds", minimum=1)
    return_temperature: float | None = option(
        None, "weigh agents by softmax(-return / temperature), so that the worst count most; none: equally", minimum=0
    )
    batch: int = option(16, "trajectories of each agent per local update, for learners of whole episodes", minimum=1)

    @classmethod
    def implies(cls, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """An average that heeds weights, where agents are weighted."""
        return WEIGHTED if settings.get("return_temperature", "none") not in (None, "none") else {}

    @property
    def weighs(self) -> bool:
        """Whether by return."""
        return self.return_temperature is not None

    @property
    def max_episodes(self) -> int:
        """The batch."""
        return self.batch

    def check(self, learner: Learner) -> None:
        """Raises :class:`FedraxError` for an actor that cannot be averaged now and then, and as :class:`Carrying`."""
        super().check(learner)
        check_actor(self.average, self.actor_every, learner, carries=self.carries)

    def personal_with(self, learner: Learner | type[Learner]) -> bool:
        """Where a part of the policy stays with each agent."""
        return bool(self.average) and not set(learner.policy_parts) <= set(self.average)

    def period(self, path: tuple[str, ...]) -> int:
        """The actor travels in every :attr:`actor_every`-th round."""
        return self.actor_every if "actor" in path else 1

    def init(self, learner: Learner, spaces: Spaces, agents: Agent, key: PRNGKeyArray) -> PyTree:
        """The networks that all agents start from."""
        return Server.first(agents.params, self.carried_first(jax.tree.map(lambda x: x[0], agents)))

    def broadcast(self, server: Any, key: PRNGKeyArray) -> PyTree:
        """The averaged parts."""
        shared, due = take_shared(server.params, self.average), server.round % self.actor_every == 0
        return Broadcast(shared, due, self.batch, shared_moments(server.params), server.carried)

    def private(self, learner: Learner, agent: Agent) -> PyTree:
        """The common start."""
        return Kept(take_shared(agent.params, self.average), Returns.none())

    def absorb(self, agent: Agent, downlink: Broadcast, index: Int[Array, ""]) -> Agent:
        """The averaged parts replace the agent's."""
        received = replaced(agent.private.received, downlink, self.actor_every)
        own = replaced(take_shared(agent.params, self.average), downlink, self.actor_every)
        private = dataclasses.replace(agent.private, received=received, returns=Returns.none())
        params = put_moments(put_shared(agent.params, own, self.average), downlink.moments)
        return self.carried_absorbed(Agent(params, agent.optimizer, agent.memory, private), downlink.carried)

    def emit(self, learner: Learner, agent: Agent, key: PRNGKeyArray) -> Message:
        """How the averaged parts changed."""
        change = jax.tree.map(jnp.subtract, take_shared(agent.params, self.average), agent.private.received)
        statistics = Statistics(agent.private.returns if self.reports else (), own_moments(agent.params))
        return Message(joined(change, self.carried_sent(agent, agent.private.received)), statistics)

    def combine(
        self, learner: Learner, server: Any, downlink: Any, messages: Message, weights: Array, tools: Tools
    ) -> tuple[Any, Aggregate]:
        """One step along the aggregate; none when the rule accepts nobody."""
        reported, present = messages.statistics.returns, weights > 0
        returns, weights = weighed(self.return_temperature, server.returns, reported, tools.ids, weights)
        verdict = tools.aggregate(ravel_rows(messages.update), weights, 1.0)
        shared = take_shared(server.params, self.average)
        change, carried = apart(unravel_like(joined(shared, server.carried), verdict.vector))
        moved = jax.tree.map(lambda x, y: x + self.server_learning_rate * y, shared, change)
        params = select(verdict.valid, put_shared(server.params, moved, self.average), server.params)
        carried = select(verdict.valid, averaged(shared, carried), server.carried)
        params = pool_moments(params, messages.statistics.observations, present)
        after = dataclasses.replace(server, params=params, round=server.round + 1, returns=returns, carried=carried)
        return after, verdict
