"""Federated averaging (McMahan et al., 2017): agents learn locally, the server averages what changed."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from fedrax.aggregators.base import Aggregate
from fedrax.environments.base import Spaces
from fedrax.learners.base import Agent, Learner
from fedrax.registry import option
from fedrax.strategies.base import Downlink, Strategy, Tools, select, strategies
from fedrax.trees import ravel_rows, unravel_like


class Server(eqx.Module):
    """The global networks."""

    params: PyTree


@strategies.register("fedavg")
class FedAvg(Strategy):
    """The server moves along the aggregate of the agents' changes of the networks."""

    server_learning_rate: float = option(
        1.0, "how far the server moves along the aggregate of the changes (1: to the average)", minimum=0
    )
    batch: int = option(16, "trajectories of each agent per local update, for learners of whole episodes", minimum=1)

    @property
    def max_episodes(self) -> int:
        """The batch."""
        return self.batch

    def init(self, learner: Learner, spaces: Spaces, agents: Agent, key: PRNGKeyArray) -> Server:
        """Fresh networks."""
        return Server(learner.init_params(key, spaces))

    def broadcast(self, server: Server, key: PRNGKeyArray) -> Downlink:
        """The global networks."""
        return Downlink(server.params, jnp.asarray(self.batch))

    def private(self, learner: Learner, agent: Agent) -> PyTree:
        """The networks as received."""
        return agent.params

    def absorb(self, agent: Agent, downlink: Downlink, index: Int[Array, ""]) -> Agent:
        """The global networks replace the agent's; its optimiser goes on."""
        return Agent(downlink.params, agent.optimizer, agent.memory, downlink.params)

    def emit(self, agent: Agent) -> PyTree:
        """How the networks changed."""
        return jax.tree.map(jnp.subtract, agent.params, agent.private)

    def combine(
        self,
        learner: Learner,
        server: Server,
        downlink: Downlink,
        messages: PyTree,
        weights: Float[Array, " n"],
        tools: Tools,
    ) -> tuple[Server, Aggregate]:
        """One step along the aggregate; none when the rule accepts nobody."""
        verdict = tools.aggregate(ravel_rows(messages), weights, 1.0)
        change = unravel_like(server.params, self.server_learning_rate * verdict.vector)
        moved = Server(jax.tree.map(jnp.add, server.params, change))
        return select(verdict.valid, moved, server), verdict


@strategies.register("local")
class Local(Strategy):
    """No federation: every agent learns alone. The baseline that a federation must beat."""

    personal: ClassVar[bool] = True

    batch: int = option(16, "trajectories of each agent per update, for learners of whole episodes", minimum=1)

    @property
    def max_episodes(self) -> int:
        """The batch."""
        return self.batch

    def init(self, learner: Learner, spaces: Spaces, agents: Agent, key: PRNGKeyArray) -> tuple[()]:
        """Nothing."""
        return ()

    def broadcast(self, server: tuple[()], key: PRNGKeyArray) -> Downlink:
        """Nothing but how much to collect."""
        return Downlink((), jnp.asarray(self.batch))

    def received(self, downlink: Any) -> float:
        """Nothing travels."""
        return 0.0

    def absorb(self, agent: Agent, downlink: Downlink, index: Int[Array, ""]) -> Agent:
        """The agent as it was."""
        return agent

    def emit(self, agent: Agent) -> Array:
        """An empty message."""
        return jnp.zeros(0)

    def combine(
        self,
        learner: Learner,
        server: tuple[()],
        downlink: Downlink,
        messages: PyTree,
        weights: Float[Array, " n"],
        tools: Tools,
    ) -> tuple[tuple[()], Aggregate]:
        """Nothing to combine."""
        present = weights > 0
        return server, Aggregate(jnp.zeros(0), present, present.any(), {})
