"""No federation at all."""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from fedrax.aggregators.base import Aggregate
from fedrax.environments.base import Spaces
from fedrax.learners.base import Agent, Learner
from fedrax.message import Message
from fedrax.registry import option
from fedrax.strategies.base import Strategy, Tools, strategies


class Nothing(eqx.Module):
    """A broadcast without an array: agents know how many trajectories to collect."""

    episodes: int = eqx.field(static=True)


@strategies.register("local")
class Local(Strategy):
    """No federation: every agent learns alone. The baseline that a federation must beat."""

    personal: ClassVar[bool] = True
    sends: ClassVar[bool] = False

    batch: int = option(16, "trajectories of each agent per update, for learners of whole episodes", minimum=1)

    @property
    def max_episodes(self) -> int:
        """The batch."""
        return self.batch

    def init(self, learner: Learner, spaces: Spaces, agents: Agent, key: PRNGKeyArray) -> tuple[()]:
        """Nothing."""
        return ()

    def broadcast(self, server: tuple[()], key: PRNGKeyArray) -> Nothing:
        """Nothing."""
        return Nothing(self.batch)

    def absorb(self, agent: Agent, downlink: Nothing, index: Int[Array, ""]) -> Agent:
        """The agent as it was."""
        return agent

    def emit(self, learner: Learner, agent: Agent, key: PRNGKeyArray) -> Message:
        """An empty message."""
        return Message()

    def combine(
        self,
        learner: Learner,
        server: tuple[()],
        downlink: Nothing,
        messages: Message,
        weights: Float[Array, " n"],
        tools: Tools,
    ) -> tuple[tuple[()], Aggregate]:
        """Nothing to combine."""
        present = weights > 0
        return server, Aggregate(jnp.zeros(0), present, present.any(), {})
