"""What a federation strategy is: the verbs of a round, and a declaration of what travels.

All verbs but those of the server speak of ONE agent; the runtime maps them over the agents' axis.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from fedrax.aggregators.base import Aggregate, ServerGradient
from fedrax.environments.base import Episodes, Spaces
from fedrax.errors import FedraxError
from fedrax.learners.base import Agent, Learner, Objective, UpdateContext
from fedrax.message import Message
from fedrax.registry import Registry
from fedrax.strategies.return_weights import count_returns


class Needs(NamedTuple):
    """What a strategy asks of its surroundings; impossible combinations are refused when the configuration is read."""

    server_environment: bool = False
    """The server samples an environment of its own."""
    local_updates: bool = True
    """Agents may collect and learn several times in a round."""
    pooled: bool = False
    """One agent owns every agent's environments (the centralised baseline)."""


class Tools(NamedTuple):
    """What the server is handed in ``combine``."""

    aggregate: Callable[[Float[Array, "n d"], Float[Array, " n"], float | Array], Aggregate]
    """The configured (pre-)aggregator on ``[n, d]`` vectors, weights (0 = absent) and samples per vector."""
    spread: Callable[[Float[Array, "n d"], Float[Array, " n"]], Array]
    """The geometric median ``[d]``: a fallback when the rule accepts nobody."""
    key: PRNGKeyArray
    ids: Int[Array, " n"]
    """Which of all agents each message is from."""


class Downlink(eqx.Module):
    """What every strategy broadcasts at least: how much to collect. Most add the policy to act with, as ``params``."""

    params: PyTree
    episodes: Int[Array, ""]
    """Trajectories each agent shall collect this round; 0 with learners that count steps."""


class Strategy(eqx.Module):
    """A way to learn together."""

    name: ClassVar[str]
    needs: ClassVar[Needs] = Needs()
    personal: ClassVar[bool] = False
    """Every agent keeps a policy of its own, and what is evaluated and handed out is those, not the server's."""
    supports_staleness: ClassVar[bool] = False
    """A message still means something to a server that has moved on meanwhile, so that rounds may overlap."""
    sends: ClassVar[bool] = True
    """Agents send messages."""
    averages: ClassVar[bool] = False
    """What the server makes of updates depends on their mean alone, so that it need not know them one by one."""
    means_of_episodes: ClassVar[bool] = False
    """An update is a mean over the round's episodes, which enter no other round's."""
    counts_server: ClassVar[bool] = False
    """Trajectories per agent are counted as in the code of FedPG-BR, where the server is one more node."""
    shows_peers: ClassVar[bool] = False
    """Its context is :class:`~fedrax.learners.critics.base.Peers`, for critics that attend over them."""
    saved_part: ClassVar[str] = ""
    """The part of networks that it may be given of an earlier run's agents, whose path is its option ``saved``."""
    common_start: ClassVar[bool] = False
    """All agents start from the same networks, which are also what the server starts from."""

    @classmethod
    def implies(cls, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Defaults this strategy (with these explicit ``settings``) sets for every component kind, by kind.

        They rank below everything a preset, a file or a command line says; what a ``mode`` stands for, below
        everything said in the layer that says the mode.
        """
        return {}

    def personal_with(self, learner: Learner | type[Learner]) -> bool:
        """Whether every agent that learns by this keeps a policy of its own; by default :attr:`personal`."""
        return self.personal

    def hands_out_own(self, learner: Learner | type[Learner]) -> bool:
        """Whether a run hands out a policy of every agent: a pooled learner's is that of all."""
        return self.personal_with(learner) and not self.needs.pooled

    @property
    def requires(self) -> frozenset[str]:
        """What the learner must provide (:data:`fedrax.compatibility.CAPABILITIES`)."""
        return frozenset()

    @property
    def reports(self) -> bool:
        """Whether messages hold statistics; by default, training returns where agents are weighted by them."""
        return self.weighs

    def check(self, learner: Learner) -> None:
        """Raises :class:`FedraxError` where these options do not fit a learner that provides what is required."""

    def bind(self, agents: int, seed: int) -> Strategy:
        """The strategy for this many agents, with whatever it must know of them; ``seed`` is the run's first.

        Raises:
            FedraxError: settings that do not fit so many agents.
        """
        return self

    @property
    def draws(self) -> bool:
        """Whether :meth:`bind` draws from the seed, so that several seeds in one run would share what the first drew.

        A class that has a ``bind`` of its own says whether it does.
        """
        return type(self).bind is not Strategy.bind

    @property
    def readers(self) -> float | None:
        """Agents that read an agent's message as it is, the mean over agents: how often it would be sent if agents sent
        to one another. None where the server makes something of messages, which a mesh could not replace."""
        return None

    @property
    def saved_agents(self) -> int:
        """Agents of an earlier run whose networks' ``saved_part`` the server is given at the start (:meth:`given`)."""
        return 0

    @property
    def least_local_updates(self) -> int:
        """Local updates that a round must have."""
        return 1

    @property
    def sends_moments(self) -> bool:
        """Whether updates hold an optimiser's moments, which are no changes of what the server has."""
        return False

    @property
    def weighs(self) -> bool:
        """Whether it gives agents unequal weights, which the rule must heed."""
        return False

    @property
    def max_episodes(self) -> int:
        """The most trajectories one agent is ever asked for in a round (arrays are padded to it)."""
        return 0

    @property
    def server_episodes(self) -> int:
        """Trajectories the server samples per step of its own; 0 for a server without an environment."""
        return 0

    @property
    def reference_episodes(self) -> int:
        """The most trajectories the server samples at the broadcast policy for rules that need a gradient of its own;
        0 for a server that cannot."""
        return 0

    # Server's verbs.

    @abc.abstractmethod
    def init(self, learner: Learner, spaces: Spaces, agents: Agent, key: PRNGKeyArray) -> PyTree:
        """The server's state; ``agents`` are the fresh agents, leaves ``[n, ...]``."""

    def given(self, server: Any, parts: PyTree) -> Any:
        """The fresh server with what the agents of an earlier run had learned, leaves ``[saved_agents, ...]``."""
        raise FedraxError(f"strategy {self.name!r} is given nothing of an earlier run: it has no method `given`")

    @abc.abstractmethod
    def broadcast(self, server: Any, key: PRNGKeyArray) -> Any:
        """What goes out at the start of a round: a :class:`Downlink`, or another module that has its ``episodes``."""

    @abc.abstractmethod
    def combine(
        self,
        learner: Learner,
        server: PyTree,
        downlink: Any,
        messages: Message,
        weights: Float[Array, " n"],
        tools: Tools,
    ) -> tuple[PyTree, Aggregate]:
        """The server after the agents' messages (leaves ``[n, ...]``), and the rule's verdict on them."""

    def reference_count(self, downlink: Any) -> Int[Array, ""]:
        """How many of :attr:`reference_episodes` the server samples this round."""
        return jnp.asarray(self.reference_episodes)

    def server_gradient(self, learner: Learner, server: PyTree, episodes: Episodes) -> ServerGradient:
        """The server's own estimate at the broadcast policy, from trajectories sampled with it.

        Its vector ``[d]`` is laid out as the messages' rows, which must be gradients of the same loss. Called only
        where :attr:`reference_episodes` is not 0: other strategies are refused with such a rule before anything runs.
        """
        raise NotImplementedError

    def refining(self, server: PyTree) -> Array:
        """Whether the server wants (another) ``server_episodes`` trajectories of its own; bool scalar."""
        return jnp.asarray(False)

    def refine(self, learner: Learner, server: PyTree, episodes: Episodes) -> PyTree:
        """The server after one step on trajectories of its own, sampled with :meth:`policy`."""
        return server

    def finish(self, server: PyTree, key: PRNGKeyArray) -> tuple[PyTree, ServerWork]:
        """The server at the end of the round, and what its own sampling amounted to."""
        return server, ServerWork.none()

    def policy(self, server: PyTree) -> PyTree:
        """The parameters the server would act with now; personal strategies have none."""
        return server.params

    def output(self, server: PyTree) -> PyTree:
        """The parameters the federation hands out; by default those of :meth:`policy`."""
        return self.policy(server)

    def undone(self, before: PyTree, after: PyTree) -> PyTree:
        """The server after a round whose messages came to numbers that cannot be kept: as ``before``, a round later."""
        return dataclasses.replace(before, round=after.round) if hasattr(after, "round") else before

    # One agent's verbs.

    def private(self, learner: Learner, agent: Agent) -> PyTree:
        """What the strategy keeps on a fresh agent."""
        return ()

    @abc.abstractmethod
    def absorb(self, agent: Agent, downlink: Any, index: Int[Array, ""]) -> Agent:
        """The agent after the broadcast; ``index`` is its number among all agents."""

    def outgoing(self, downlink: Any, index: int) -> PyTree:
        """What of the broadcast is sent to the agent at ``index`` over a network; unless overridden, all of it."""
        return downlink

    def incoming(self, received: PyTree, index: int) -> Any:
        """The broadcast as that agent's :meth:`absorb` reads it, made again from what was received."""
        return received

    def context(self, agent: Agent, downlink: Any, index: Int[Array, ""]) -> PyTree:
        """Frozen arrays that networks and losses may look at in this round: peers' encoders, a reference policy.

        Of the agent as :meth:`absorb` left it, its number, and the broadcast that it absorbed. Computed once a round;
        no part of the agent's state or of a checkpoint. An array that is the same for all agents (one of the broadcast
        as it is, or made of it alone) is held once for all of them.
        """
        return ()

    def begin(self, learner: Learner, agent: Agent, context: PyTree, key: PRNGKeyArray) -> Agent:
        """The agent after whatever learning it does once a round, before its local updates."""
        return agent

    def objective(self, learner: Learner, agent: Agent, context: PyTree) -> Objective:
        """What the strategy adds to local learning; ``context`` is what :meth:`context` returned in this round."""
        return Objective()

    def work(
        self, learner: Learner, agent: Agent, experience: Any, update_context: UpdateContext
    ) -> tuple[Agent, dict[str, Array]]:
        """One local update; by default the learner's own, under :meth:`objective`.

        Both may read what :meth:`context` returned, which is :attr:`UpdateContext.context`. Where messages report
        returns (:attr:`reports`), the episodes that ended are counted in the agent's private ``returns``.
        """
        objective = self.objective(learner, agent, update_context.context)
        agent, metrics = learner.learn(agent, experience, objective, update_context)
        return (count_returns(agent, experience) if self.reports else agent), metrics

    @abc.abstractmethod
    def emit(self, learner: Learner, agent: Agent, key: PRNGKeyArray) -> Message:
        """The message. Byte accounting, attacks and robust rules read nothing else."""

    def period(self, path: tuple[str, ...]) -> int:
        """Of the array at a path of a message or a broadcast: the rounds from one time that it travels to the next.

        In between, whoever receives it reads zeros. A message's array travels in the rounds before those in which the
        broadcast's of the same period does.
        """
        return 1

    def local_gradient_steps(self, learner: Learner) -> int:
        """Optimiser steps of an agent in one local update."""
        return learner.gradient_steps

    def round_gradient_steps(self, learner: Learner) -> int:
        """Optimiser steps of an agent once a round, beside those of its local updates."""
        return 0


class ServerWork(NamedTuple):
    """The server's own sampling in one round."""

    counted: Array
    """Trajectories as the reference counts them, int32."""
    gradient_steps: Array
    """Optimiser steps, int32."""

    @staticmethod
    def none() -> ServerWork:
        """No sampling and no optimiser step."""
        return ServerWork(jnp.asarray(0), jnp.asarray(0))


strategies: Registry[Strategy] = Registry("strategy", "fedrax.strategies")


def select(condition: Array, new: PyTree, old: PyTree) -> PyTree:
    """``new`` where the scalar ``condition`` holds, else ``old``."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), new, old)
