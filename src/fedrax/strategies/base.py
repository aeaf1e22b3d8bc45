"""What a federation strategy is: the verbs of a round, and a declaration of what travels.

All verbs but those of the server speak of ONE agent; the runtime maps them over the agents' axis.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from fedrax.aggregators.base import Aggregate
from fedrax.environments.base import Episodes, Spaces
from fedrax.errors import FedraxError
from fedrax.learners.base import Agent, Learner, Objective
from fedrax.registry import Registry


class Needs(NamedTuple):
    """What a strategy asks of its surroundings; impossible combinations are refused when the configuration is read."""

    messages: str = "individual"
    """``individual``: the server sees each agent's message. ``sum``: only their (weighted) sum, so that secure
    summation is possible and robust rules are not."""
    server_environment: bool = False
    """The server samples an environment of its own."""
    learner: str | None = None
    """The one learner it works with; None for any."""
    local_updates: bool = True
    """Agents may collect and learn several times in a round."""


class Tools(NamedTuple):
    """What the server is handed in ``combine``."""

    aggregate: Callable[[Float[Array, "n d"], Float[Array, " n"], float | Array], Aggregate]
    """The configured (pre-)aggregator on ``[n, d]`` vectors, weights (0 = absent) and samples per vector."""
    spread: Callable[[Float[Array, "n d"], Float[Array, " n"]], Array]
    """The geometric median ``[d]``: a fallback when the rule accepts nobody."""
    key: PRNGKeyArray


class Downlink(eqx.Module):
    """What every strategy broadcasts at least: the policy to act with, and how much to collect with it."""

    params: PyTree
    episodes: Int[Array, ""]
    """Trajectories each agent shall collect this round."""


class Strategy(eqx.Module):
    """A way to learn together."""

    name: ClassVar[str]
    needs: ClassVar[Needs] = Needs()

    @classmethod
    def implies(cls, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Defaults this strategy (with these explicit ``settings``) sets in other rooms and in its own, by room.

        They rank below everything a preset, a file or a command line says; what a ``mode`` stands for, below
        everything said in the layer that says the mode.
        """
        return {}

    def check(self, learner: Learner) -> None:
        """Raises :class:`FedraxError` where the strategy does not fit the learner."""
        if self.needs.learner is not None and learner.name != self.needs.learner:
            raise FedraxError(
                f"strategy {self.name!r} works with learner {self.needs.learner!r}, not {learner.name!r}; "
                f"set learner={self.needs.learner}"
            )

    @property
    @abc.abstractmethod
    def max_episodes(self) -> int:
        """The most trajectories one agent is ever asked for in a round (arrays are padded to it)."""

    @property
    def server_episodes(self) -> int:
        """Trajectories the server samples per step of its own; 0 for a server without an environment."""
        return 0

    # Server's verbs.

    @abc.abstractmethod
    def init(self, learner: Learner, spaces: Spaces, key: PRNGKeyArray) -> PyTree:
        """The server's state."""

    @abc.abstractmethod
    def broadcast(self, server: PyTree, key: PRNGKeyArray) -> Downlink:
        """What every agent receives at the start of a round."""

    @abc.abstractmethod
    def combine(
        self,
        learner: Learner,
        server: PyTree,
        downlink: Any,
        messages: PyTree,
        weights: Float[Array, " n"],
        tools: Tools,
    ) -> tuple[PyTree, Aggregate]:
        """The server after the agents' messages (leaves ``[n, ...]``), and the rule's verdict on them."""

    def refining(self, server: PyTree) -> Array:
        """Whether the server wants (another) ``server_episodes`` trajectories of its own; bool scalar."""
        return jnp.asarray(False)

    def refine(self, learner: Learner, server: PyTree, episodes: Episodes) -> PyTree:
        """The server after one step on trajectories of its own, sampled with :meth:`policy`."""
        return server

    def finish(self, server: PyTree, key: PRNGKeyArray) -> tuple[PyTree, ServerWork]:
        """The server at the end of the round, and what its own sampling amounted to."""
        return server, ServerWork.none()

    @abc.abstractmethod
    def policy(self, server: PyTree) -> PyTree:
        """The parameters the server would act with now."""

    def output(self, server: PyTree) -> PyTree:
        """The parameters the federation hands out; by default those of :meth:`policy`."""
        return self.policy(server)

    # One agent's verbs.

    def private(self, learner: Learner, agent: Agent) -> PyTree:
        """What the strategy keeps on a fresh agent."""
        return ()

    @abc.abstractmethod
    def absorb(self, agent: Agent, downlink: Downlink) -> Agent:
        """The agent after the broadcast."""

    def objective(self, agent: Agent) -> Objective:
        """What the strategy adds to local learning."""
        return Objective()

    def work(self, learner: Learner, agent: Agent, episodes: Episodes) -> tuple[Agent, dict[str, Array]]:
        """One local update; by default the learner's own, under :meth:`objective`."""
        return learner.learn(agent, episodes, self.objective(agent))

    @abc.abstractmethod
    def emit(self, agent: Agent) -> PyTree:
        """The message: a pytree of arrays. Byte accounting, attacks and robust rules read nothing else.

        What a server averages must be an *update* (a gradient, or weights minus those received), so that an attack,
        a norm or a distance means the same for every strategy.
        """


class ServerWork(NamedTuple):
    """The server's own sampling in one round."""

    counted: Array
    """Trajectories as the reference counts them, int32."""
    gradient_steps: Array
    """Optimiser steps, int32."""

    @staticmethod
    def none() -> ServerWork:
        """No sampling, one optimiser step."""
        return ServerWork(jnp.asarray(0), jnp.asarray(1))


strategies: Registry[Strategy] = Registry("strategy", "fedrax.strategies")


def select(condition: Array, new: PyTree, old: PyTree) -> PyTree:
    """``new`` where the scalar ``condition`` holds, else ``old``."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), new, old)
