"""Plain federated policy gradient (GPOMDP): agents send gradients, the server takes one step a round."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from fedrax.aggregators.base import Aggregate
from fedrax.environments.base import Episodes, Spaces
from fedrax.learners.base import Agent, EpisodeLearner, Learner, UpdateContext
from fedrax.message import Message
from fedrax.registry import option
from fedrax.strategies.base import Downlink, Needs, ServerWork, Strategy, Tools, select, strategies
from fedrax.trees import ravel_rows, unravel_like


class Server(eqx.Module):
    """The server of a strategy that descends on its agents' gradients."""

    params: PyTree
    optimizer: PyTree


class GradientStrategy(Strategy):
    """What the gradient-sending strategies share: agents send one gradient at the broadcast policy."""

    needs: ClassVar[Needs] = Needs(local_updates=False)
    counts_server: ClassVar[bool] = True
    sums: ClassVar[bool] = True

    @property
    def requires(self) -> frozenset[str]:
        """A gradient at the broadcast policy."""
        return frozenset({"gradient"})

    def private(self, learner: Learner, agent: Agent) -> PyTree:
        """Zeros in the shape of the gradient that will be sent."""
        return jax.tree.map(jnp.zeros_like, agent.params)

    def absorb(self, agent: Agent, downlink: Downlink, index: Int[Array, ""]) -> Agent:
        """The broadcast policy replaces the agent's own."""
        return Agent(downlink.params, agent.optimizer, agent.memory, agent.private)

    def work(
        self, learner: Learner, agent: Agent, experience: Episodes, update_context: UpdateContext
    ) -> tuple[Agent, dict[str, Array]]:
        """The gradient of the learner's loss on the round's trajectories; no local step."""
        assert isinstance(learner, EpisodeLearner)
        gradient = learner.gradient(agent.params, experience)
        return Agent(agent.params, agent.optimizer, agent.memory, gradient), {}

    def emit(self, learner: Learner, agent: Agent, key: PRNGKeyArray) -> Message:
        """The gradient."""
        return Message(agent.private)

    def local_gradient_steps(self, learner: Learner) -> int:
        """None: only the server steps."""
        return 0


@strategies.register("gpomdp")
class FederatedGradient(GradientStrategy):
    """The server steps along the aggregate of the agents' gradients (the GPOMDP baseline of FedPG-BR)."""

    batch: int = option(16, "trajectories of each agent in a round", unit="trajectories", minimum=1)

    @classmethod
    def implies(cls, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """An undefended mean, as in the reference."""
        return {"aggregator": {"kind": "mean"}}

    @property
    def max_episodes(self) -> int:
        """The batch."""
        return self.batch

    def init(self, learner: Learner, spaces: Spaces, agents: Agent, key: PRNGKeyArray) -> Server:
        """Fresh parameters and optimiser."""
        agent = learner.init(key, spaces)
        return Server(agent.params, agent.optimizer)

    def broadcast(self, server: Server, key: PRNGKeyArray) -> Downlink:
        """The policy."""
        return Downlink(server.params, jnp.asarray(self.batch))

    def combine(
        self,
        learner: Learner,
        server: Server,
        downlink: Downlink,
        messages: Message,
        weights: Float[Array, " n"],
        tools: Tools,
    ) -> tuple[Server, Aggregate]:
        """One optimiser step along the aggregate; none when the rule accepts nobody."""
        verdict = tools.aggregate(ravel_rows(messages.update), weights, downlink.episodes)
        gradient = unravel_like(server.params, verdict.vector)
        stepped = Server(*learner.apply(server.params, server.optimizer, gradient))
        return select(verdict.valid, stepped, server), verdict

    def finish(self, server: Server, key: PRNGKeyArray) -> tuple[Server, ServerWork]:
        """The server's one step."""
        return server, ServerWork(jnp.asarray(0), jnp.asarray(1))
