"""A model for every agent on the server: averaged within clusters, or by how similar agents' updates are.

Clustered federated learning (Sattler, Müller and Samek, 2020) tells agents with different tasks apart by the cosines of
their updates: those of one task point one way, those of different tasks apart, where their common model cannot serve
both.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from fedrax.aggregators.base import Aggregate
from fedrax.environments.base import Spaces
from fedrax.errors import FedraxError
from fedrax.learners.base import Agent, Learner
from fedrax.message import Message
from fedrax.registry import option
from fedrax.strategies.base import Tools, strategies
from fedrax.strategies.carried import Carried, apart
from fedrax.strategies.clustering import average_linkage, cosines, running_mean
from fedrax.strategies.fedavg import FedAvg
from fedrax.strategies.return_weights import WEIGHTED, weighed
from fedrax.strategies.sharing import Broadcast, take_shared
from fedrax.strategies.statistics import pool_moments, shared_moments
from fedrax.topology_weights import divergence_weights
from fedrax.trees import ravel_rows, unravel_like


class Model(eqx.Module):
    """The averaged parts of one agent's networks, and what belongs to them (:mod:`fedrax.strategies.carried`)."""

    networks: PyTree
    carried: PyTree


class ModelsServer(eqx.Module):
    """As :class:`~fedrax.strategies.sharing.Server`, with a model of every agent."""

    params: PyTree
    """The common start, and the moments of all agents' observations."""
    round: Int[Array, ""]
    returns: Float[Array, " agents"]
    models: Model
    """Leaves ``[agents, ...]``."""
    similarity: Float[Array, "agents agents"]
    """The running mean of the cosines of each pair's updates; NaN before the first round of both."""
    model: Int[Array, " agents"]
    """Which of the models each agent has, by the lowest number of an agent whose model is the same."""


class Models(eqx.Module):
    """What goes out: to each agent its own model, of leaves ``[agents, ...]``, and the moments of all."""

    models: Model
    moments: PyTree
    episodes: int = eqx.field(static=True)

    def of(self, index: Int[Array, ""] | int) -> Broadcast:
        """What one agent receives."""
        own = jax.tree.map(lambda x: x[index], self.models)
        return Broadcast(own.networks, jnp.asarray(True), self.episodes, self.moments, own.carried)


class OwnModels(FedAvg):
    """Federated averaging into a model of every agent: ``x_i <- x_i + server_learning_rate sum_j w_ij (y_j - x_i)``.

    The rows of ``w`` follow from the cosines of the agents' updates ``y_j - x_j``; a rule other than the mean is
    applied to the rows of each agent on its own.
    """

    personal: ClassVar[bool] = True
    averages: ClassVar[bool] = False

    memory: float = option(
        0.9, "weight of earlier rounds in the running mean of the cosines of updates", minimum=0, maximum=1
    )
    warmup: int = option(10, "rounds in which all agents are averaged alike", unit="rounds", minimum=0)

    @abc.abstractmethod
    def listens(self, similarity: Float[Array, "n n"], present: Bool[Array, " n"]) -> Float[Array, "n n"]:
        """How much of each agent's model is made of each one's; columns of absent agents do not count.

        The similarity is NaN between agents that never sent in the same round.
        """

    def personal_with(self, learner: Learner | type[Learner]) -> bool:
        """Every agent has a model of its own."""
        return True

    @property
    def reports(self) -> bool:
        """Training returns, where agents are weighted by them."""
        return self.return_temperature is not None

    def check(self, learner: Learner) -> None:
        """Raises :class:`FedraxError` for an actor that is averaged now and then, and as :class:`Carrying`."""
        super().check(learner)
        if self.actor_every > 1:
            raise FedraxError(
                f"strategy {self.name!r} compares whole updates, of every round; set strategy.actor_every=1"
            )

    def init(self, learner: Learner, spaces: Spaces, agents: Agent, key: PRNGKeyArray) -> ModelsServer:
        """Every agent's model is the common start."""
        start = super().init(learner, spaces, agents, key)
        count = start.returns.shape[0]
        first = Model(take_shared(start.params, self.average), start.carried)
        models = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), first)
        unknown, same = jnp.full((count, count), jnp.nan), jnp.zeros(count, jnp.int32)
        return ModelsServer(start.params, start.round, start.returns, models, unknown, same)

    def broadcast(self, server: ModelsServer, key: PRNGKeyArray) -> Models:
        """All models."""
        return Models(server.models, shared_moments(server.params), self.batch)

    def outgoing(self, downlink: Models, index: int) -> Broadcast:
        """The agent's own model: nobody receives those of other agents."""
        return downlink.of(index)

    def absorb(self, agent: Agent, downlink: Models | Broadcast, index: Int[Array, ""]) -> Agent:
        """Its model replaces the agent's."""
        return super().absorb(agent, downlink.of(index) if isinstance(downlink, Models) else downlink, index)

    def combine(
        self, learner: Learner, server: Any, downlink: Any, messages: Message, weights: Array, tools: Tools
    ) -> tuple[ModelsServer, Aggregate]:
        """Every agent's model moves towards the aggregate of those it listens to; it stays where there is none."""
        present = weights > 0
        everyone = jnp.zeros(len(server.returns), bool).at[tools.ids].set(present)
        returns, weights = weighed(
            self.return_temperature, server.returns, messages.statistics.returns, tools.ids, weights
        )
        new = cosines(ravel_rows(apart(messages.update)[0]))
        similarity = running_mean(server.similarity, new, tools.ids, present, self.memory)
        # Who has never sent, like everyone in the first rounds, listens to all alike.
        known = (server.round >= self.warmup) & ~jnp.isnan(similarity).all(1)
        listened = jnp.where(known[:, None], self.listens(similarity, everyone), 1.0)
        share = jnp.where(known, self.share(listened, everyone), 1.0)
        made = jax.vmap(after_update)(jax.tree.map(lambda x: x[tools.ids], server.models), messages.update)
        # Of agents that had one model and listen alike, one step is that of all.
        alike = (server.model[:, None] == server.model) & self.together(listened)
        first = jnp.argmax(alike, axis=1).astype(jnp.int32)
        models, verdict = self._moved(
            server.models, first, ravel_rows(made), listened[:, tools.ids] * weights, share, tools
        )
        after = ModelsServer(
            pool_moments(server.params, messages.statistics.observations, present),
            server.round + 1,
            returns,
            models,
            similarity,
            first,
        )
        return after, verdict._replace(metrics=verdict.metrics | self.reported(listened))

    def share(
        self, listened: Float[Array, "agents agents"], present: Bool[Array, " agents"]
    ) -> Float[Array, " agents"]:
        """How far each agent's model moves towards the aggregate, 0 to 1."""
        return jnp.ones(len(listened))

    def together(self, listened: Float[Array, "agents agents"]) -> Bool[Array, "agents agents"]:
        """Pairs known to listen to the same agents as much as each other; everyone to itself."""
        return jnp.eye(len(listened), dtype=bool)

    def reported(self, listened: Float[Array, "agents agents"]) -> dict[str, Array]:
        """Metrics of how much every agent listens to each."""
        return {}

    def _moved(
        self,
        models: Model,
        first: Int[Array, " agents"],
        vectors: Float[Array, "n d"],
        listened: Float[Array, "agents n"],
        share: Float[Array, " agents"],
        tools: Tools,
    ) -> tuple[Model, Aggregate]:
        """The models after a step towards the aggregates; a sender counts as accepted where its own model takes it.

        The agent called ``first[i]`` has the step of agent i.
        """
        own = ravel_rows(models)

        def aggregate(agent: Array) -> Aggregate:
            return tools.aggregate(vectors - own[agent], listened[agent], 1.0)

        verdicts = by_first(aggregate, first)
        vector = jnp.where(verdicts.valid[:, None], share[:, None] * verdicts.vector, 0.0)
        steps = unravel_like(jax.tree.map(lambda x: x[0], models), vector)
        # What belongs to networks is averaged whole, however far these go.
        networks = jax.tree.map(lambda x, y: x + self.server_learning_rate * y, models.networks, steps.networks)
        moved = Model(networks, jax.tree.map(jnp.add, models.carried, steps.carried))
        accepted = verdicts.accepted[tools.ids, jnp.arange(len(tools.ids))]
        metrics = jax.tree.map(lambda x: x.mean(0), verdicts.metrics)
        return moved, Aggregate(jnp.zeros(0), accepted, verdicts.valid.any(), metrics)


@strategies.register("clustered")
class Clustered(OwnModels):
    """Averaging within clusters of agents, which average linkage makes of the cosines of their updates.

    Sattler et al. split a cluster in two where its model no longer improves; here clusters are made anew in every
    round, so that an agent may change its cluster, and noise in one round's updates is averaged out over rounds.
    """

    threshold: float = option(
        0.0, "clusters whose updates have a lower mean cosine are not joined", minimum=-1, maximum=1
    )
    clusters: int = option(1, "the fewest clusters: no more are joined", minimum=1)

    def bind(self, agents: int, seed: int) -> Clustered:
        """Raises :class:`FedraxError` for more clusters than agents."""
        if self.clusters > agents:
            raise FedraxError(
                f"strategy.clusters = {self.clusters} is more than federation.agents = {agents}; lower the one or "
                "raise the other"
            )
        return self

    @property
    def draws(self) -> bool:
        """Nothing."""
        return False

    def listens(self, similarity: Float[Array, "n n"], present: Bool[Array, " n"]) -> Float[Array, "n n"]:
        """Equally, to the agents of the own cluster."""
        group = average_linkage(similarity, threshold=self.threshold, clusters=self.clusters)
        return jnp.where(group[:, None] == group, 1.0, 0.0)

    def together(self, listened: Float[Array, "agents agents"]) -> Bool[Array, "agents agents"]:
        """Those of one cluster; who listens to all, as before its first update, is of none."""
        return (listened[:, None] == listened).all(-1)

    def reported(self, listened: Float[Array, "agents agents"]) -> dict[str, Array]:
        """Each agent's cluster, by the lowest number in it, and how many clusters there are.

        Agents without one, as before their first update, count as one more.
        """
        cluster = jnp.argmax(self.together(listened), axis=1)
        return {"cluster": cluster, "clusters": (cluster == jnp.arange(len(cluster))).sum()}


@strategies.register("similarity")
class Similarity(OwnModels):
    """Averaging with weights ``softmax_j(cos(u_i, u_j) / temperature)`` of the agents' updates u."""

    temperature: float = option(0.2, "difference of cosines that makes a factor of e in the weights", minimum=0)
    top: int | None = option(None, "listen only to so many other agents, the most similar ones", minimum=1)

    @classmethod
    def implies(cls, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """An average that heeds weights."""
        return WEIGHTED

    def bind(self, agents: int, seed: int) -> Similarity:
        """Raises :class:`FedraxError` for more agents to listen to than there are others."""
        if self.top is not None and self.top >= agents:
            raise FedraxError(
                f"strategy.top = {self.top} is not allowed: an agent has {agents - 1} others; lower it, or set "
                "strategy.top=none to listen to all"
            )
        return self

    @property
    def draws(self) -> bool:
        """Nothing."""
        return False

    @property
    def weighs(self) -> bool:
        """By similarity."""
        return True

    def listens(self, similarity: Float[Array, "n n"], present: Bool[Array, " n"]) -> Float[Array, "n n"]:
        """The more, the more similar; most to itself, also where it is absent and its model is all there is of it."""
        known = jnp.where(present | jnp.eye(len(present), dtype=bool), 1.0, 0.0)
        similarity = jnp.where(jnp.isnan(similarity), -jnp.inf, similarity)
        return divergence_weights(1 - similarity, known, self.temperature, top=self.top)

    def share(
        self, listened: Float[Array, "agents agents"], present: Bool[Array, " agents"]
    ) -> Float[Array, " agents"]:
        """What an absent agent's own model weighs stays where it is."""
        return jnp.where(present, 1.0, 1 - jnp.diagonal(listened))


def by_first(function: Callable[[Array], Any], first: Int[Array, " n"]) -> Any:
    """``function`` of every ``first[i]``, leaves ``[n, ...]``, computed once for each that is different."""
    count = len(first)
    distinct = first == jnp.arange(count)
    order = jnp.argsort(~distinct)
    nothing = jax.tree.map(lambda x: jnp.zeros((count, *x.shape), x.dtype), jax.eval_shape(function, first[0]))

    def compute(state: tuple[Array, Any]) -> tuple[Array, Any]:
        number, results = state
        result = function(order[number])
        return number + 1, jax.tree.map(lambda all, x: all.at[order[number]].set(x), results, result)

    _, results = jax.lax.while_loop(lambda state: state[0] < distinct.sum(), compute, (jnp.asarray(0), nothing))
    return jax.tree.map(lambda x: x[first], results)


def after_update(model: Model, update: PyTree) -> Model:
    """An agent's model as it is after its update."""
    change, carried = apart(update)
    networks = jax.tree.map(jnp.add, model.networks, change)
    if not isinstance(carried, Carried):
        return Model(networks, model.carried)
    target = jax.tree.map(jnp.add, model.networks, carried.target) if jax.tree.leaves(carried.target) else ()
    return Model(networks, dataclasses.replace(carried, target=target))
