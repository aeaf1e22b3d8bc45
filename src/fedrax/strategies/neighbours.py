"""Agents that learn from their neighbours' policies over a graph; the server only relays them.

The federated PPO and MDPO of RLHF-And-Friends/FedRL: a KL divergence to the neighbours' pooled policy in each agent's
loss (``neighbours``), averaging of weights over the graph (``gossip``), or both.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from fedrax.aggregators.base import Aggregate
from fedrax.environments.base import Experience, Spaces
from fedrax.errors import FedraxError
from fedrax.learners.base import Agent, Batch, Learner, Objective
from fedrax.learners.distributions import Distribution
from fedrax.message import Message
from fedrax.parts import check_parts, put_parts, take_parts
from fedrax.registry import option
from fedrax.strategies.base import Strategy, Tools, select, strategies
from fedrax.strategies.pooling import Direction, Pool, closeness, divergence
from fedrax.strategies.return_weights import Returns
from fedrax.topology import is_drawn, make_graph, neighbours_of
from fedrax.topology_weights import divergence_weights, normalise, return_weights, stale
from fedrax.trees import ravel_rows, unravel_like

ALL_PARTS = ("torso", "actor", "critic")


class Inbox(eqx.Module):
    """What the agents last sent, relayed; ``n`` agents. One agent gets its own rows and its neighbours' networks."""

    policies: PyTree
    """Their networks, ``[n, ...]``."""
    weights: Float[Array, "n n"] | Float[Array, " n"]
    """How much each listens to each; rows sum to 1, or are 0 for the isolated."""
    shift: PyTree
    """What averaging over the graph changes in each agent's networks, ``[n, ...]``; () without averaging."""
    episodes: Int[Array, ""]
    """As in :class:`Downlink`."""


class Relay(eqx.Module):
    """The relay's state between rounds."""

    policies: PyTree
    shift: PyTree
    age: Int[Array, " n"]
    """Rounds since each agent's last message."""
    returns: Float[Array, " n"]
    """Mean training return that each agent last reported; NaN before its first finished episode."""


class Known(eqx.Module):
    """What an agent keeps from its inbox to its message."""

    sent: PyTree
    """Its own networks as its neighbours have them."""
    returns: Returns
    """Of the episodes that ended since its last message."""


class PeerPolicies(eqx.Module):
    """What an agent's loss looks at in a round, and no longer; ``k`` neighbours at most."""

    policies: PyTree
    """Their networks, ``[k, ...]``."""
    weights: Float[Array, " members"]
    """Of itself, then of its neighbours."""


@strategies.register("neighbours")
class Neighbours(Strategy):
    """A KL penalty towards the neighbours' pooled policy, and averaging with them on request."""

    personal: ClassVar[bool] = True

    topology: str = option(
        "complete",
        "who listens to whom: complete, pairs, ring, star, random, none, or the path of a TOML or JSON file",
    )
    self_weight: float = option(
        1.0,
        "an agent's weight of its own previous policy, beside 1 for each neighbour (a file says its own)",
        minimum=0,
    )
    degree: float | None = option(None, "expected neighbours in a random graph", minimum=0)
    weights: Literal["fixed", "return", "similarity"] = option(
        "fixed", "the graph's, times exp(return / temperature), or times exp(-divergence / temperature)"
    )
    temperature: float = option(
        0.1, "difference that makes a factor of e in the weights", unit="return, or nats", minimum=0
    )
    top: int | None = option(None, "listen only to so many neighbours, the most similar ones", minimum=1)
    max_age: int | None = option(None, "rounds after which a silent neighbour is no longer listened to", minimum=0)
    coefficient: float = option(
        0.1, "beta, weight of the divergence from the neighbours' pooled policy", unit="1/nat", minimum=0
    )
    direction: Direction = option("mdpo", "KL(pool || own) (ppo) or KL(own || pool) (mdpo)")
    pool: Pool = option(
        "arithmetic",
        "the neighbours as one policy: their mixture, the normalised product of powers (log-linear), the mean of the "
        "divergences from each, or FedRL's unnormalised product with its estimate from the actions taken (reference)",
    )
    average: tuple[str, ...] = option(
        (), "parts of the networks to average over the graph after each round, for example torso, actor, critic"
    )
    moments: Literal["keep", "reset"] = option("keep", "an optimiser's moments when its networks were averaged")
    batch: int = option(16, "trajectories of each agent per update, for learners of whole episodes", minimum=1)

    graph: tuple[tuple[float, ...], ...] = eqx.field(static=True, default=())
    """``W[i][j]``, how much agent i listens to agent j."""

    @classmethod
    def implies(cls, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Averaging weighs neighbours by the graph."""
        return {"aggregator": {"kind": "weighted-mean"}}

    def bind(self, agents: int, seed: int) -> Neighbours:
        """The strategy with its graph."""
        graph = make_graph(self.topology, agents, seed, self_weight=self.self_weight, degree=self.degree)
        rows = tuple(tuple(float(weight) for weight in row) for row in graph)
        return dataclasses.replace(self, graph=rows)

    @property
    def draws(self) -> bool:
        """A random graph."""
        return is_drawn(self.topology)

    @property
    def requires(self) -> frozenset[str]:
        """A stochastic policy, where it is held near the neighbours'."""
        return frozenset({"distribution"} if self.coefficient > 0 else ())

    @property
    def reports(self) -> bool:
        """Training returns."""
        return True

    def check(self, learner: Learner) -> None:
        """Raises :class:`FedraxError` where neighbours' policies would go unused."""
        super().check(learner)
        if self.coefficient == 0 and not self.average:
            raise FedraxError(
                f"strategy {self.name!r} with coefficient = 0 and nothing to average does not communicate; "
                "set strategy.coefficient or strategy.average, or strategy=local"
            )

    @property
    def max_episodes(self) -> int:
        """The batch."""
        return self.batch

    @property
    def readers(self) -> float:
        """The neighbours."""
        return sum(map(len, neighbours_of(np.array(self.graph)))) / len(self.graph)

    @property
    def peers(self) -> np.ndarray:
        """Each agent's neighbours, ``int[n, k]``; the rest of a row is the agent itself, which does not count."""
        lists = neighbours_of(np.array(self.graph))
        most = max((len(each) for each in lists), default=0)
        rows = [each + [index] * (most - len(each)) for index, each in enumerate(lists)]
        return np.array(rows, np.int32).reshape(len(lists), most)

    # The relay's verbs.

    def init(self, learner: Learner, spaces: Spaces, agents: Agent, key: PRNGKeyArray) -> Relay:
        """Everyone's fresh networks: a first round is penalised towards them, as any other is."""
        count = len(self.graph)
        if self.average:
            check_parts("strategy.average", self.average, agents.params)
        nothing = jax.tree.map(jnp.zeros_like, take_parts(agents.params, self.average))
        return Relay(agents.params, nothing, jnp.zeros(count, jnp.int32), jnp.full(count, jnp.nan))

    def broadcast(self, server: Relay, key: PRNGKeyArray) -> Inbox:
        """Everyone's networks as last sent, and the weights of this round."""
        graph = stale(jnp.array(self.graph), server.age, self.max_age)
        if self.weights == "return":
            weights = return_weights(server.returns, graph, self.temperature)
        else:
            weights = normalise(graph)
        return Inbox(server.policies, weights, server.shift, jnp.asarray(self.batch))

    def combine(
        self, learner: Learner, server: Relay, downlink: Inbox, messages: Message, weights: Array, tools: Tools
    ) -> tuple[Relay, Aggregate]:
        """Takes the networks of those who sent, keeps the last ones of who did not, and averages over the graph."""
        present = weights > 0
        sent = jnp.zeros(len(self.graph), bool).at[tools.ids].set(present)

        def deliver(old: Array, change: Array) -> Array:
            shown = present.reshape(-1, *[1] * (change.ndim - 1))
            return old.at[tools.ids].add(jnp.where(shown, change, 0.0))

        policies = jax.tree.map(deliver, server.policies, messages.individual)
        returns = messages.statistics.latest(server.returns, tools.ids, present)
        age = jnp.where(sent, 0, server.age + 1)
        after = Relay(policies, server.shift, age, returns)
        if self.average:
            after = Relay(policies, self._averaged(after, sent, tools), age, returns)
        return after, Aggregate(jnp.zeros(0), present, present.any(), {"stale": age.max()})

    def _averaged(self, server: Relay, sent: Array, tools: Tools) -> PyTree:
        """How the aggregate of each agent's neighbours differs from its own networks; 0 for who did not send."""
        parts = take_parts(server.policies, self.average)
        vectors = ravel_rows(parts)
        weights = self.broadcast(server, tools.key).weights

        def one(own: Array, row: Array, sent: Array) -> Array:
            verdict = tools.aggregate(vectors - own, row, 1.0)
            return jnp.where(verdict.valid & sent, verdict.vector, 0.0)

        shifts = jax.lax.map(lambda inputs: one(*inputs), (vectors, weights, sent))
        return unravel_like(jax.tree.map(lambda x: x[0], parts), shifts)

    # An agent's verbs.

    def private(self, learner: Learner, agent: Agent) -> Known:
        """Its fresh networks, which are those that its neighbours have."""
        return Known(agent.params, Returns.none())

    def absorb(self, agent: Agent, downlink: Inbox, index: Int[Array, ""]) -> Agent:
        """The agent, its networks moved by the average."""
        known = Known(jax.tree.map(lambda x: x[index], downlink.policies), Returns.none())
        params, optimizer = agent.params, agent.optimizer
        if self.average:
            shift = jax.tree.map(lambda x: x[index], downlink.shift)
            moved = jax.tree.map(jnp.add, take_parts(params, self.average), shift)
            params = put_parts(params, moved)
            if self.moments == "reset":
                averaged = jnp.stack([jnp.any(x != 0) for x in jax.tree.leaves(shift)]).any()
                optimizer = select(averaged, jax.tree.map(jnp.zeros_like, optimizer), optimizer)
        return Agent(params, optimizer, agent.memory, known)

    def context(self, agent: Agent, downlink: Inbox, index: Int[Array, ""]) -> PeerPolicies | tuple[()]:
        """The neighbours' networks and their weights; () without a penalty."""
        if self.coefficient == 0:
            return ()
        peers = jnp.asarray(self.peers)[index]
        row = downlink.weights[index]
        others = jnp.where(peers == index, 0.0, row[peers])
        policies = jax.tree.map(lambda x: x[peers], downlink.policies)
        return PeerPolicies(policies, jnp.concatenate([row[index][None], others]))

    def _rows(self, index: int) -> np.ndarray:
        """Whose networks the agent at ``index`` reads: its own, then its neighbours'."""
        return np.concatenate([[index], neighbours_of(np.array(self.graph))[index]]).astype(np.int32)

    def outgoing(self, downlink: Inbox, index: int) -> Inbox:
        """The agent's own rows and its neighbours' networks: nobody receives those of other agents."""
        rows = self._rows(index)
        policies = jax.tree.map(lambda x: x[rows], downlink.policies)
        shift = jax.tree.map(lambda x: x[index], downlink.shift)
        return Inbox(policies, downlink.weights[index], shift, downlink.episodes)

    def incoming(self, received: Inbox, index: int) -> Inbox:
        """The inbox, zeros in the rows that were not sent."""
        rows, count = self._rows(index), len(self.graph)

        def spread(x: Array, rows: np.ndarray | int) -> Array:
            shape = x.shape if isinstance(rows, int) else x.shape[1:]
            return jnp.zeros((count, *shape), x.dtype).at[rows].set(x)

        policies = jax.tree.map(lambda x: spread(x, rows), received.policies)
        shift = jax.tree.map(lambda x: spread(x, index), received.shift)
        return Inbox(policies, spread(received.weights, index), shift, received.episodes)

    def objective(self, learner: Learner, agent: Agent, context: Any) -> Objective:
        """The penalty, towards the neighbours' policies."""
        if self.coefficient == 0:
            return Objective()
        return Penalty(self, context.policies, context.weights)

    def emit(self, learner: Learner, agent: Agent, key: PRNGKeyArray) -> Message:
        """How the networks changed since the neighbours' copy, and the training return."""
        change = jax.tree.map(jnp.subtract, agent.params, agent.private.sent)
        return Message(statistics=agent.private.returns, individual=change)


@strategies.register("gossip")
class Gossip(Neighbours):
    """Averaging over the graph, without a penalty."""

    coefficient: float = option(
        0.0, "beta, weight of the divergence from the neighbours' pooled policy", unit="1/nat", minimum=0
    )
    average: tuple[str, ...] = option(ALL_PARTS, "parts of the networks to average over the graph after each round")


class Reference(eqx.Module):
    """What the penalty compares with in each step."""

    policies: PyTree
    """The own previous policy, then the neighbours', ``[N, k+1, ...]``."""
    weights: Float[Array, "N members"]


class Penalty(Objective):
    """``beta KL`` between an agent's policy and its own previous and its neighbours' policies as one."""

    strategy: Neighbours
    peers: PyTree
    weights: Float[Array, " members"]

    def prepare(self, learner: Learner, experience: Experience, own: Distribution) -> Reference:
        """Everyone's outputs on the agent's own steps."""

        def outputs(inputs: tuple[PyTree, Array]) -> Distribution:
            # Rows of a graph are filled up to the longest: the filling costs nothing where agents follow one another.
            peer, weight = inputs
            return jax.lax.cond(weight > 0, lambda: learner.outputs(peer, experience), lambda: own)

        others = jax.lax.map(outputs, (self.peers, self.weights[1:]))
        policies = jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]).swapaxes(0, 1), own, others)
        weights = self.weights
        if self.strategy.weights == "similarity":
            graph = jnp.zeros((len(weights), len(weights))).at[0].set(weights)
            settings = self.strategy
            weights = divergence_weights(closeness(policies), graph, settings.temperature, top=settings.top)[0]
        count = jax.tree.leaves(policies)[0].shape[0]
        return Reference(policies, jnp.broadcast_to(weights, (count, len(weights))))

    def penalty(self, params: PyTree, batch: Batch) -> Float[Array, ""]:
        """The mean over the minibatch; 0 for an isolated agent."""
        settings = self.strategy
        assert batch.distribution is not None
        each = divergence(
            batch.distribution,
            batch.reference.policies,
            batch.reference.weights,
            batch.action,
            pool=settings.pool,
            direction=settings.direction,
        )
        listens = batch.valid & (self.weights.sum() > 0)
        return settings.coefficient * jnp.where(listens, each, 0.0).sum() / jnp.maximum(batch.valid.sum(), 1)
