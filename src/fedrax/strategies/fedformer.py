"""FedFormer (Hebert, Golab, Poupart and Cohen, 2023): agents exchange their critics' encoders, and average nothing.

Every agent's critics attend over what its peers' encoders make of its own transitions (critic ``fedformer``). Policies,
transformers, targets and data never leave an agent.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from fedrax.aggregators.base import Aggregate
from fedrax.environments.base import Spaces
from fedrax.errors import FedraxError
from fedrax.learners.base import Agent, Learner
from fedrax.learners.critics.base import Peers
from fedrax.message import Message
from fedrax.registry import option
from fedrax.strategies.base import Strategy, Tools, strategies
from fedrax.trees import ravel_rows

MOST = 50
"""Agents up to whose number every round's row tells who attended to whom."""
LARGEST = 1e6
"""Of an encoder's numbers: layers of larger ones make encodings that overflow where their squares are summed."""

Encoders: TypeAlias = PyTree
"""Those of both critics, the part ``features`` of an agent's networks."""


class Bank(eqx.Module):
    """The server's state: everyone's encoders as last accepted, leaves ``[agents, ...]``."""

    encoders: Encoders
    targets: Encoders
    """What target values are made with; () where they are the same."""
    saved: Encoders
    """Those of an earlier run's agents, leaves ``[saved_agents, ...]``; () without. They never change."""
    age: Int[Array, " agents"]
    """Rounds since each agent's encoders were last accepted."""
    attention: Float[Array, "agents everyone"]
    """How much each agent last took of each one's encodings, those saved last; 0 before it learned."""


class EncoderBroadcast(eqx.Module):
    """What goes out: the bank, which all agents share, and whose encoders each agent sees."""

    encoders: Encoders
    """Leaves ``[everyone, ...]``: of all agents, and after them those saved."""
    targets: Encoders
    peers: Int[Array, "agents k"]
    known: Bool[Array, "agents k"]
    """False for peers whose encoders are too old."""
    episodes: int = eqx.field(static=True)

    def of(self, index: Int[Array, ""] | int) -> PeerEncoders:
        """What one agent receives."""
        rows = self.peers[index]
        encoders, targets = jax.tree.map(lambda x: x[rows], (self.encoders, self.targets))
        return PeerEncoders(encoders, targets, rows, self.known[index], self.episodes)


class PeerEncoders(eqx.Module):
    """What one agent receives: the encoders that it sees, leaves ``[k, ...]``."""

    encoders: Encoders
    targets: Encoders
    peers: Int[Array, " k"]
    known: Bool[Array, " k"]
    episodes: int = eqx.field(static=True)


@strategies.register("fedformer")
class FedFormer(Strategy):
    """Exchange of critics' encoders, over which every agent's critics attend."""

    personal: ClassVar[bool] = True
    shows_peers: ClassVar[bool] = True
    saved_part: ClassVar[str] = "features"

    exchange: Literal["peers", "self", "none"] = option(
        "peers",
        "whose encoders an agent sees: its peers'; in their place copies of its own (self), or those that its peers "
        "started with (none), the controls that isolate what exchange is worth",
    )
    top: int | None = option(
        None,
        "see so many peers: those that an agent attended to most, and in the place of the last of them one at random, "
        "so that none is forgotten (of 1: a random one); none: see all",
        minimum=1,
    )
    max_age: int | None = option(
        None, "rounds after which a silent peer's encoders are no longer seen", unit="rounds", minimum=0
    )
    target_step: float = option(
        1.0,
        "how far the peers' encoders that target values are made with move towards the latest in a round; 1: they are "
        "these (the reference lags: 0.92 at its 500 updates a round)",
        minimum=0,
        maximum=1,
    )
    clip: float | None = option(
        None,
        "changes of encoders longer than so many times the median of a round's are shortened to it; none: they are "
        "taken as they are",
        minimum=0,
    )

    saved: str | None = option(
        None,
        "a run, or its policy.safetensors, whose agents' encoders every agent sees beside its peers'; they stay as "
        "they are",
    )
    saved_peers: int = option(0, "how many agents' encoders strategy.saved holds", minimum=0)

    agents: int = eqx.field(static=True, default=1)
    """Of the federation."""

    @classmethod
    def implies(cls, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The critic that attends."""
        return {"critic": {"kind": "fedformer"}}

    @property
    def requires(self) -> frozenset[str]:
        """Critics that look at peers."""
        return frozenset({"peers"})

    @property
    def lags(self) -> bool:
        """Whether target values are made with encoders of their own."""
        return self.target_step < 1 and self.exchange == "peers"

    @property
    def readers(self) -> float:
        """The peers that an agent sees, at most where some of the ``top`` may be saved ones; nobody in the controls,
        which send no encoders."""
        seen = self.agents - 1 if self.top is None else min(self.top, self.agents - 1)
        return float(seen if self.exchange == "peers" else 0)

    @property
    def saved_agents(self) -> int:
        """They are peers of every agent."""
        return self.saved_peers

    def bind(self, agents: int, seed: int) -> FedFormer:
        """For so many agents.

        Raises:
            FedraxError: more peers than there are, or saved ones that nobody would see.
        """
        peers = agents - 1 + self.saved_peers
        if self.top is not None and self.top > peers:
            raise FedraxError(
                f"strategy.top = {self.top} is not allowed: each of {agents} agents has {peers} peers; set a "
                "smaller number, or strategy.top=none"
            )
        if self.clip is not None and (self.clip == 0 or self.exchange != "peers"):
            why = "would take nothing of what is sent" if self.clip == 0 else "shortens what is sent, and nothing is"
            raise FedraxError(
                f"strategy.clip = {self.clip:g} with strategy.exchange = {self.exchange!r} is not allowed: it {why}; "
                "set strategy.clip=none, or to more than 0 with strategy.exchange=peers"
            )
        if self.saved_peers > 0 and self.saved is None:
            raise FedraxError(
                f"strategy.saved_peers = {self.saved_peers} is not allowed without strategy.saved, the run that they "
                "are of"
            )
        if self.saved_peers > 0 and self.exchange == "self":
            raise FedraxError(
                "strategy.exchange = 'self' shows no peers, and strategy.saved_peers gives some; set "
                "strategy.exchange=peers or none, or strategy.saved=none and strategy.saved_peers=0"
            )
        return dataclasses.replace(self, agents=agents)

    @property
    def draws(self) -> bool:
        """Nothing."""
        return False

    # The server's verbs.

    def init(self, learner: Learner, spaces: Spaces, agents: Agent, key: PRNGKeyArray) -> Bank:
        """Everyone's fresh encoders."""
        encoders = agents.params.features if self.exchange != "self" else ()
        targets = encoders if self.lags else ()
        saved = ()
        if self.saved_peers:
            saved = jax.tree.map(lambda x: jnp.zeros((self.saved_peers, *x.shape[1:])), encoders)
        nobody = jnp.zeros((self.agents, self.agents + self.saved_peers))
        return Bank(encoders, targets, saved, jnp.zeros(self.agents, jnp.int32), nobody)

    def given(self, server: Bank, parts: Encoders) -> Bank:
        """The bank with these encoders beside its own."""
        return dataclasses.replace(server, saved=parts)

    def broadcast(self, server: Bank, key: PRNGKeyArray) -> EncoderBroadcast:
        """The bank, and whom each agent sees."""
        peers = others(self.agents, self.saved_peers)
        age = jnp.concatenate([server.age, jnp.zeros(self.saved_peers, server.age.dtype)])
        fresh = jnp.ones(age.shape, bool) if self.max_age is None else age <= self.max_age
        if self.top is not None:
            # Those who are not seen come last, whatever the random place is.
            attention = jnp.where(fresh[peers], jnp.take_along_axis(server.attention, peers, 1), -1.0)
            chance = jax.random.uniform(key, peers.shape)
            order = jnp.argsort(-attention, axis=1, stable=True)
            rank = jnp.argsort(order, axis=1)
            # The most attended first, then all others in an order of their own in every round.
            first = jnp.where(rank < self.top - 1, rank, self.top + jnp.where(fresh[peers], chance, 1.0))
            peers = jnp.take_along_axis(peers, jnp.argsort(first, axis=1)[:, : self.top], 1)
        encoders, targets = server.encoders, server.targets
        if self.saved_peers:
            encoders = _joined(encoders, server.saved)
            targets = _joined(targets, server.saved) if self.lags else ()
        return EncoderBroadcast(encoders, targets, peers, fresh[peers], 0)

    def combine(
        self, learner: Learner, server: Bank, downlink: Any, messages: Message, weights: Array, tools: Tools
    ) -> tuple[Bank, Aggregate]:
        """Takes the encoders whose change the rule accepts; all others stay as they were."""
        encoders, accepted = self._delivered(server, messages.individual["encoders"], weights, tools)
        rows = shares(messages.individual["attention"])
        learned = accepted & (rows.sum(1) > 0)
        rows = jnp.where(learned[:, None], rows, server.attention[tools.ids])
        attention = server.attention.at[tools.ids].set(rows)
        targets = server.targets
        if self.lags:
            targets = jax.tree.map(lambda x, y: x + self.target_step * (y - x), targets, encoders)
        fresh = jnp.zeros(self.agents, bool).at[tools.ids].set(accepted)
        age = jnp.where(fresh, 0, server.age + 1)
        extras = {"stale": age.max(), "attention_own": jnp.diagonal(attention).mean()}
        if self.agents <= MOST:
            extras["attention"] = attention
        return Bank(encoders, targets, server.saved, age, attention), Aggregate(
            jnp.zeros(0), accepted, accepted.any(), extras
        )

    def undone(self, before: Bank, after: Bank) -> Bank:
        """As before, but that nobody's encoders arrived."""
        return dataclasses.replace(before, age=before.age + 1)

    def _delivered(self, server: Bank, sent: Encoders, weights: Array, tools: Tools) -> tuple[Encoders, Array]:
        """The encoders of all with those ``[m, ...]`` that arrived and were accepted, and whose these are."""
        bank = server.encoders
        if self.exchange != "peers":
            return bank, weights > 0
        change = jax.tree.map(lambda new, old: new - old[tools.ids], sent, bank)
        vectors = ravel_rows(change)
        # Independent changes of k rounds are as long as sqrt(k) of one: who was rejected, or silent, is not rejected
        # for what it has not been able to send.
        rounds = jnp.sqrt(server.age[tools.ids] + 1.0)
        verdict = tools.aggregate(vectors / rounds[:, None], weights, 1.0)
        bounded = jnp.abs(ravel_rows(sent)).max(1) <= LARGEST
        accepted = verdict.accepted & (weights > 0) & verdict.valid & bounded
        scale = jnp.ones(weights.shape)
        if self.clip is not None:
            lengths = jnp.linalg.norm(vectors, axis=1)
            bound = self.clip * jnp.nanmedian(jnp.where(weights > 0, lengths, jnp.nan))
            scale = jnp.minimum(1.0, bound / jnp.maximum(lengths, jnp.finfo(lengths.dtype).tiny))

        def delivered(all: Array, new: Array) -> Array:
            old = all[tools.ids]
            taken, factor = (x.reshape(-1, *[1] * (new.ndim - 1)) for x in (accepted, scale))
            # What is not shortened is taken to the bit.
            shortened = jnp.where(factor == 1, new, old + factor * (new - old))
            return all.at[tools.ids].set(jnp.where(taken, shortened, old))

        return jax.tree.map(delivered, bank, sent), accepted

    # One agent's verbs.

    def private(self, learner: Learner, agent: Agent) -> Float[Array, " everyone"]:
        """How much its critics took of each one's encodings at the start of the round."""
        return jnp.zeros(self.agents + self.saved_peers)

    def absorb(self, agent: Agent, downlink: EncoderBroadcast | PeerEncoders, index: Int[Array, ""]) -> Agent:
        """The agent as it is: nothing of it is replaced."""
        return agent

    def outgoing(self, downlink: EncoderBroadcast, index: int) -> PeerEncoders:
        """The encoders that the agent sees."""
        return downlink.of(index)

    def context(self, agent: Agent, downlink: EncoderBroadcast | PeerEncoders, index: Int[Array, ""]) -> Peers:
        """The peers' encoders."""
        seen = downlink.of(index) if isinstance(downlink, EncoderBroadcast) else downlink
        encoders = seen.encoders
        if self.exchange == "self":
            count = seen.peers.shape[0]
            own = jax.lax.stop_gradient(agent.params.features)
            encoders = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), own)
        targets = seen.targets if self.lags else encoders
        return Peers(encoders, targets, seen.peers, seen.known, jnp.asarray(index))

    def begin(self, learner: Any, agent: Agent, context: Peers, key: PRNGKeyArray) -> Agent:
        """Notes how much it takes of whom, as soon as the encoders arrive."""
        taken = learner.attention(agent, context, key)
        row = jnp.zeros_like(agent.private).at[context.ids].set(taken[2:]).at[context.index].set(taken[1])
        return Agent(agent.params, agent.optimizer, agent.memory, row)

    def emit(self, learner: Learner, agent: Agent, key: PRNGKeyArray) -> Message:
        """Both encoders as they are, and how much the agent took of each one's."""
        encoders = agent.params.features if self.exchange == "peers" else ()
        return Message(individual={"encoders": encoders, "attention": agent.private})


def shares(reported: Float[Array, "m everyone"]) -> Float[Array, "m everyone"]:
    """What agents report of their attention, as shares that sum to 1 at most, whatever a message claims."""
    each = jnp.clip(reported, 0.0, 1.0)
    return each / jnp.maximum(each.sum(1, keepdims=True), 1.0)


def others(agents: int, saved: int = 0) -> Int[Array, "agents peers"]:
    """Of each agent, the numbers of all others, and of so many that were saved, which follow the agents'."""
    numbers = jnp.arange(agents)
    peers = (numbers[:, None] + 1 + numbers[None, :-1]) % agents
    return jnp.concatenate([peers, jnp.broadcast_to(agents + jnp.arange(saved), (agents, saved))], 1)


def _joined(encoders: Encoders, saved: Encoders) -> Encoders:
    """Those of agents, and after them those saved."""
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), encoders, saved)
