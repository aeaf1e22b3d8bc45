"""The round: broadcast, absorb, work, emit, decode, attack, combine. Pure, and the same for every runtime.

A runtime composes these verbs: it decides where experience comes from and how agents are mapped, nothing else.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from fedrax.aggregators.base import Aggregate, Aggregator, PreAggregator, check_verdict
from fedrax.attacks.base import Attack, Knowledge
from fedrax.compression.base import Compression, no_residual, with_feedback
from fedrax.environments.actions import Actions
from fedrax.environments.base import Episodes, Experience, Observation, Spaces
from fedrax.learners.base import Agent, Learner, UpdateContext
from fedrax.message import Message, arrived, finite_rows, is_real, keep_rows, periods
from fedrax.privacy.protection import Protection
from fedrax.seeds import derive
from fedrax.strategies.base import Strategy, Tools
from fedrax.trees import strongly_typed


class Tally(eqx.Module):
    """What a budget is measured in, so far; int32 scalars."""

    rounds: Array
    trajectories: Array
    """Per agent; where agents send gradients, as the reference counts them."""
    steps: Array
    """Environment steps of all agents and the server."""
    agent_steps: Array
    """Environment steps of all agents."""
    agent_trajectories: Array
    """Of all agents."""


class State(eqx.Module):
    """A federation between two rounds."""

    server: PyTree
    agents: PyTree
    """An :class:`Agent` whose every leaf has a leading axis ``[agents]``; () where they are in other processes."""
    tally: Tally
    best: PyTree
    """What was handed out at the best evaluation: a policy, or every agent's (``[agents]``)."""
    best_return: Array
    clip: PyTree = ()
    """What updates are clipped to, where that moves (:meth:`Protection.moved`)."""
    environments: PyTree = ()
    """The collectors' states in native environments, for learners whose episodes run on between collections; every
    leaf has a leading axis ``[agents]``."""


class Cohort(NamedTuple):
    """Who takes part in a round; ``m`` participants, or places for as many where their number varies."""

    ids: Int[Array, " m"]
    byzantine: Bool[Array, " m"]
    answers: Bool[Array, " m"]
    """False for those who never send their message."""
    selected: Bool[Array, " m"] | None = None
    """Who takes part: the others only fill a place, and are after the round as before it. None: everyone."""


class Sending(NamedTuple):
    """What an agent's message depends on, beside the agent and its own key."""

    episodes: Int[Array, ""]
    """Those that it was asked for."""
    round: Int[Array, ""]
    shared: PRNGKeyArray
    """As of :meth:`Federation.shared_key`."""
    secret: PRNGKeyArray | None = None
    """What the noise of one agent alone is drawn from; None: from its own key."""
    clip: PyTree = ()
    """As :attr:`State.clip`."""


class Exchange(NamedTuple):
    """What became of a round's messages."""

    accepted: Bool[Array, " m"]
    present: Bool[Array, " m"]
    excluded: Bool[Array, " m"]
    """Participants whose message was not finite."""
    metrics: dict[str, Array]
    clip: PyTree = ()
    """That of the next round, as :attr:`State.clip`."""
    overflowed: Bool[Array, ""] | bool = False
    """Whether the messages came to numbers that the server cannot keep, so that none is used."""


class Federation(eqx.Module):
    """The components of a run and the verbs of its round."""

    learner: Learner
    strategy: Strategy
    aggregator: Aggregator
    preaggregator: PreAggregator
    spread: Aggregator
    """The geometric median, for strategies that fall back on it when the rule accepts nobody."""
    attack: Attack
    compression: Compression
    spaces: Spaces = eqx.field(static=True)
    actions: Actions = eqx.field(static=True)
    """From what the learner emits to what environments are given."""
    agents: int = eqx.field(static=True)
    """Agents that learn."""
    sites: int = eqx.field(static=True)
    """Agents configured: one learner may stand for all of them (the centralised baseline)."""
    participants: int = eqx.field(static=True)
    """Agents that take part in a round, or the most that do where their number varies (:attr:`chance`)."""
    dropout: float = eqx.field(static=True)
    local_updates: int = eqx.field(static=True)
    protection: Protection = Protection()
    detailed: bool = eqx.field(static=True, default=False)
    """Whether every agent's episodes and learning metrics are recorded one by one (``records.csv_layout``)."""
    chance: float | None = eqx.field(static=True, default=None)
    """The probability with which each agent takes part in a round, whoever else does; None: ``participants`` do."""
    best_by: str = eqx.field(static=True, default="mean")
    """``mean`` or ``median``: which return over agents makes a policy the best."""

    def init(self, key: PRNGKeyArray, initial: PyTree = ()) -> State:
        """The state before the first round.

        Args:
            key: the run's.
            initial: networks that the agents start from, leaves ``[agents, ...]``; () for fresh ones. Where a server
                has networks of its own, they are the first agent's.
        """
        agents = jax.vmap(lambda index, networks: self.fresh(key, index, networks))(jnp.arange(self.agents), initial)
        learner = dataclasses.replace(self.learner, networks=jax.tree.map(lambda x: x[0], initial))
        server = self.strategy.init(learner, self.spaces, agents, derive(key, "server"))
        zero = jnp.asarray(0)
        state = State(
            server=server,
            agents=agents,
            tally=Tally(zero, zero, zero, zero, zero),
            best=self.output(server, agents),
            best_return=jnp.asarray(-jnp.inf),
            clip=self.protection.first_clip,
        )
        # Rounds return strong types; with weak ones the first call would compile a program of its own.
        return strongly_typed(state)

    def fresh(self, key: PRNGKeyArray, index: Int[Array, ""], networks: PyTree = ()) -> Agent:
        """One agent before its first round; ``key`` is the run's. It starts from ``networks``, where there are some."""
        own = derive(key, "agent", 0 if self.strategy.common_start else index)
        agent = dataclasses.replace(self.learner, networks=networks).init(own, self.spaces)
        private = self.strategy.private(self.learner, agent)
        agent = Agent(agent.params, agent.optimizer, agent.memory, private)
        if not self.compression.remembers:
            return agent
        message = jax.eval_shape(lambda agent: self.strategy.emit(self.learner, agent, own), agent)
        return dataclasses.replace(agent, residual=no_residual(message.update))

    def shapes(self) -> tuple[PyTree, PyTree]:
        """One agent's message, as it travels, and the broadcast, as bare shapes."""
        key = jax.random.key(0)
        agent = jax.eval_shape(self.fresh, key, jnp.asarray(0))

        def sent(agent: Agent) -> Message:
            sending = Sending(jnp.asarray(1), jnp.asarray(0), key, clip=self.protection.first_clip)
            return self.emit(agent, key, sending)[1]

        message = jax.eval_shape(sent, agent)
        downlink = jax.eval_shape(lambda: self.strategy.broadcast(self.init(key).server, key))
        return message, downlink

    def output(self, server: PyTree, agents: Agent) -> PyTree:
        """The parameters handed out: the server's, or every agent's own, ``[agents, ...]``."""
        if not self.strategy.personal_with(self.learner):
            return self.strategy.output(server)
        return agents.params if self.personal else jax.tree.map(lambda x: x[0], agents.params)

    def after_broadcast(self, server: PyTree, agents: Agent, key: PRNGKeyArray, round: Array) -> PyTree:
        """All agents' networks, ``[agents, ...]``, as a broadcast of the server makes them."""
        downlink = self.broadcast(server, key, round)
        numbers = jnp.arange(self.agents)
        params: PyTree = jax.vmap(lambda agent, index: self.strategy.absorb(agent, downlink, index).params)(
            agents, numbers
        )
        return params

    @property
    def personal(self) -> bool:
        """Whether every agent hands out a policy of its own; a pooled learner's is that of all sites."""
        return self.strategy.personal_with(self.learner) and self.agents == self.sites

    @property
    def mean_participants(self) -> float:
        """Agents that take part in a round, on average."""
        return self.participants if self.chance is None else self.chance * self.agents

    def cohort(self, key: PRNGKeyArray) -> Cohort:
        """Draws who takes part, who is Byzantine and who will not answer."""
        ids, selected = self._drawn(derive(key, "participation"))
        byzantine = self.attack.byzantine(self.agents, derive(key, "byzantine"))[ids]
        if selected is not None:
            byzantine &= selected
        answers = self.attack.answers(byzantine, derive(key, "answers"))
        if self.dropout > 0:
            answers &= ~jax.random.bernoulli(derive(key, "dropout"), self.dropout, ids.shape)
        return Cohort(ids, byzantine, answers if selected is None else answers & selected, selected)

    def _drawn(self, key: PRNGKeyArray) -> tuple[Int[Array, " m"], Bool[Array, " m"] | None]:
        """The numbers of those who take part in a round, in their order, and which of them do where that varies."""
        everyone = jnp.arange(self.agents)
        if self.chance is not None:
            drawn = jax.random.bernoulli(key, self.chance, everyone.shape)
            ids = jnp.sort(jnp.argsort(~drawn)[: self.participants])
            return ids, drawn[ids]
        if self.participants < self.agents:
            return jnp.sort(jax.random.permutation(key, self.agents)[: self.participants]), None
        return everyone, None

    # One agent's part. `byzantine` is the agent's own flag.

    def decide(
        self, params: PyTree, observation: Observation, key: PRNGKeyArray, byzantine: Array
    ) -> tuple[Array, PyTree]:
        """Actions for observations, leaves ``[B, *o]``, a Byzantine agent's replaced by its attack's; and extras."""
        action, extras = self.learner.decide(params, observation, key)
        if type(self.attack).act is Attack.act:
            return action, extras
        meant = self.actions.in_units(action)
        forged = self.actions.emitted(self.attack.act(meant, self.spaces, derive(key, "attack")))
        return jnp.where(byzantine, forged, action), extras

    def work(
        self, agent: Agent, experience: Experience, update_context: UpdateContext, byzantine: Array
    ) -> tuple[Agent, dict[str, Array]]:
        """One local update from fresh experience, a Byzantine agent's poisoned by its attack."""
        if type(self.attack).poison is not Attack.poison:
            rewards = self.attack.poison(experience.reward, experience.valid, derive(update_context.key, "poison"))
            poisoned = jnp.where(byzantine, rewards, experience.reward)
            experience = eqx.tree_at(lambda e: e.reward, experience, poisoned)
        learner = self.learner.clipping_episodes(self.protection.clips_episodes)
        return self.strategy.work(learner, agent, experience, update_context)

    def emit(self, agent: Agent, key: PRNGKeyArray, sending: Sending) -> tuple[Agent, Message]:
        """The agent after sending, and its message with the update as it travels: protected, then compressed.

        Args:
            agent: with its residual.
            key: the agent's own of the round.
            sending: what the message depends on besides.
        """
        message = self.strategy.emit(self.learner, dataclasses.replace(agent, residual=()), derive(key, "emit"))
        secret = derive(key, "protect") if sending.secret is None else sending.secret
        update = self.protection.at_agent(message.update, sending.episodes, secret, sending.clip)
        message = dataclasses.replace(message, update=update)
        if self.compression.lossless:
            return agent, message
        own = derive(key, "compression")
        if not self.compression.remembers:
            return agent, dataclasses.replace(message, update=self.compression.encode(update, own, sending.shared))
        every = periods(message, self.strategy.period).update
        travels = jax.tree.map(lambda x, n: (sending.round + 1) % n == 0 if is_real(x) else None, update, every)
        encoded, residual = with_feedback(self.compression, update, agent.residual, travels, own, sending.shared)
        return dataclasses.replace(agent, residual=residual), dataclasses.replace(message, update=encoded)

    def sending(
        self,
        downlink: Any,
        round: Int[Array, ""],
        key: PRNGKeyArray,
        clip: PyTree,
        secret: PRNGKeyArray | None = None,
    ) -> Sending:
        """What messages of a round depend on beside their agents; ``key`` is the round's, of the run's seed.

        ``clip`` is :attr:`State.clip`. Noise is drawn from ``secret``; unless given, from each agent's own key.
        """
        return Sending(jnp.asarray(downlink.episodes), jnp.asarray(round), self.shared_key(key), secret, clip)

    @staticmethod
    def shared_key(key: PRNGKeyArray) -> PRNGKeyArray:
        """Randomness that the server and all agents of a round share, nodes with secrets of their own too.

        ``key`` is the round's, of the run's seed.
        """
        return derive(key, "compression")

    # The server's part.

    def update_shapes(self) -> PyTree:
        """One agent's update as the server decodes it, as bare shapes."""
        key = jax.random.key(0)
        agent = jax.eval_shape(lambda: dataclasses.replace(self.fresh(key, jnp.asarray(0)), residual=()))
        return jax.eval_shape(lambda agent: self.strategy.emit(self.learner, agent, key), agent).update

    def decoded(self, messages: Message, key: PRNGKeyArray) -> Message:
        """A round's messages, leaves ``[m, ...]``, with their updates decoded; ``key`` is the round's."""
        if self.compression.lossless:
            return messages
        template, shared = self.update_shapes(), self.shared_key(key)
        update = jax.vmap(lambda encoded: self.compression.decode(encoded, template, shared))(messages.update)
        return dataclasses.replace(messages, update=update)

    def broadcast(self, server: PyTree, key: PRNGKeyArray, round: Int[Array, ""]) -> Any:
        """What agents receive at the start of a round; ``key`` is the round's."""
        return arrived(self.strategy.broadcast(server, derive(key, "broadcast")), self.strategy.period, round)

    def received(self, messages: Message, round: Int[Array, ""]) -> Message:
        """What the server reads of a round's messages, leaves ``[m, ...]``."""
        return arrived(messages, self.strategy.period, round + 1)

    def exchange(
        self,
        server: PyTree,
        downlink: Any,
        cohort: Cohort,
        messages: Message,
        key: PRNGKeyArray,
        round: Int[Array, ""],
        reference: Episodes | None = None,
        clip: PyTree = (),
        secret: PRNGKeyArray | None = None,
    ) -> tuple[PyTree, Exchange]:
        """Decode, attack, exclude what is not finite, aggregate, combine. Message leaves are ``[m, ...]``.

        ``reference`` are the server's own trajectories at the broadcast policy, for rules that need its gradient,
        ``clip`` is :attr:`State.clip`, and ``secret`` is what noise is drawn from; unless given, ``key`` is.
        """
        messages = self.received(self.decoded(messages, key), round)
        rule = self.aggregator
        if reference is not None:
            rule = rule.informed(self.strategy.server_gradient(self.learner, server, reference))

        def aggregate(vectors: Float[Array, "n d"], weights: Float[Array, " n"], samples: float | Array) -> Aggregate:
            mixed, row_weights, row = self.preaggregator(
                vectors, weights, self.aggregator.f, key=derive(key, "preaggregate")
            )
            verdict = rule(mixed, row_weights, samples=samples, key=derive(key, "aggregate"))
            check_verdict(rule.name, verdict, mixed.shape)
            return verdict._replace(accepted=verdict.accepted[row] & (weights > 0))

        def fallback(vectors: Float[Array, "n d"], weights: Float[Array, " n"]) -> Array:
            return self.spread(vectors, weights, key=key).vector

        everyone = jnp.ones(cohort.ids.shape)
        knowledge = Knowledge(lambda vectors: aggregate(vectors, everyone, downlink.episodes).vector)
        messages = self.received(self.attack.applied(messages, cohort.byzantine, key, knowledge), round)
        clipped = self.protection.at_server(messages.update, downlink.episodes, clip)
        messages = dataclasses.replace(messages, update=clipped)
        finite = finite_rows(messages, cohort.ids.shape[0])
        messages = keep_rows(messages, finite)
        present = cohort.answers & finite
        present &= present.sum() >= self.protection.least
        secret = key if secret is None else secret
        after = self.protection.moved(clip, messages.update, present, secret)
        messages, weights = self.summed(messages, present, downlink, secret, round, clip)
        tools = Tools(aggregate, fallback, derive(key, "combine"), cohort.ids)
        server, verdict = self.strategy.combine(self.learner, server, downlink, messages, weights, tools)
        metrics = verdict.metrics if self.protection.quantile is None else {**verdict.metrics, "clip": clip}
        return server, Exchange(verdict.accepted & present, present, cohort.answers & ~finite, metrics, after)

    def summed(
        self,
        messages: Message,
        present: Bool[Array, " m"],
        downlink: Any,
        key: PRNGKeyArray,
        round: Int[Array, ""],
        clip: PyTree,
    ) -> tuple[Message, Float[Array, " m"]]:
        """What of these messages the server may know, and the weights of its rows.

        Where that is the sum of the updates, its mean stands in every row and all of them count: who has answered is
        in the sum already.
        """
        weights = present.astype(jnp.float32)
        if not self.protection.sums:
            return messages, weights
        update = self.protection.summed(messages.update, present, downlink.episodes, key, clip)
        known = self.protection.unit is not None
        weights = jnp.ones_like(weights) * (1.0 if known and not self.protection.least else present.any())
        return self.received(dataclasses.replace(messages, update=update), round), weights


def round_metrics(cohort: Cohort, exchange: Exchange, *, rejects: bool) -> dict[str, Array]:
    """Scalars of the exchange, with the filter's precision and recall (positive = Byzantine) where any attacked.

    A rule that never rejects anybody is no filter, and has neither.
    """
    counts = {
        "present": exchange.present.sum(),
        "accepted": exchange.accepted.sum(),
        "byzantine": cohort.byzantine.sum(),
        **exchange.metrics,
    }
    if not rejects:
        return counts
    rejected = exchange.present & ~exchange.accepted
    caught = (rejected & cohort.byzantine).sum()
    attackers = (exchange.present & cohort.byzantine).sum()
    undefined = jnp.nan
    return counts | {
        "filter_precision": jnp.where(
            rejected.any() & (attackers > 0), caught / jnp.maximum(rejected.sum(), 1), undefined
        ),
        "filter_recall": jnp.where(attackers > 0, caught / jnp.maximum(attackers, 1), undefined),
    }
