"""The verbs of a round as compiled programs, for runtimes that collect experience outside of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from fedrax.environments.base import Experience, Observation
from fedrax.federation import Cohort, Federation, Sending, State
from fedrax.learners.base import Agent, UpdateContext
from fedrax.runtime import overflow
from fedrax.runtime.compiling import jitted
from fedrax.runtime.mapping import map_in_batches
from fedrax.runtime.rounds import RoundResult, agent_key, agent_report, close_round, update_keys
from fedrax.seeds import derive
from fedrax.strategies.base import Downlink, Strategy
from fedrax.trees import ravel_rows, unravel_like

Actor = Callable[[np.ndarray, int], np.ndarray]
"""Actions for a batch of observations in the given step of a collection."""
Decider = Callable[[np.ndarray, int], tuple[np.ndarray, PyTree]]
"""The same with the learner's extras."""


class Opened(NamedTuple):
    """A round after the broadcast."""

    downlink: Downlink
    cohort: Cohort
    agents: Agent
    """The participants' states before they absorb the broadcast, leaves ``[m, ...]``."""


class Group(NamedTuple):
    """Participants that one call computes, side by side."""

    agents: Agent
    """Leaves ``[g, ...]``, without their residuals."""
    rows: slice
    """Their places among the participants."""
    ids: Array
    """Their numbers among all agents, ``int[g]``."""
    byzantine: Array
    """Which of them an attack governs, ``bool[g]``."""
    residual: PyTree
    """What compression has left out of their updates, leaves ``[g, ...]`` (:attr:`Agent.residual`)."""

    def of(self, tree: PyTree) -> PyTree:
        """Their rows of something all participants have, leaves ``[m, ...]``."""
        return jax.tree.map(lambda x: x[self.rows], tree)


class GroupContext(NamedTuple):
    """What the strategy lets a group's networks and losses look at (:meth:`Strategy.context`), in one round."""

    own: PyTree
    """Arrays that differ between agents, ``[g, ...]``; None in the place of others."""
    shared: PyTree
    """Arrays that are the same for all of them, once; None in the place of others."""

    def of_agent(self, own: PyTree) -> PyTree:
        """One agent's, of its row of :attr:`own`."""
        return eqx.combine(own, self.shared)


class UpdateKeys(NamedTuple):
    """The participants' keys of local updates, ``[m, ...]``, or ``[updates, m, ...]`` for all of a round."""

    act: np.ndarray | Array
    """Bare integers of the keys to act with."""
    learn: Array


class Programs:
    """Compiled verbs for one seed; ``batch`` agents learn side by side, and others in another call.

    A call for each such group, rather than a loop inside of one, changes what an agent remembers in place: a loop
    would copy every agent's memory in and out.

    ``fresh`` says that agents have not absorbed the broadcast yet; ``quick`` is as :func:`jitted` takes it.

    Agents absorb it inside the mapped function, where whatever they take over from it unchanged stays one array for
    all of them: acting and learning then use one large matrix product.
    """

    def __init__(self, federation: Federation, batch: int, *, quick: bool = False) -> None:
        self.federation = federation
        self.batch = batch
        compiled = partial(jitted, quick=quick)
        self._opened = compiled(self._open, donate_argnums=2)
        self.begins = type(federation.strategy).begin is not Strategy.begin
        """Whether agents learn before their local updates, from :meth:`begin`."""
        self._context_group = compiled(self._context)
        self._work_group = compiled(self._work, static_argnames="fresh", donate_argnums=0)
        self._begin_group = compiled(self._begin, donate_argnums=0)
        self._emit_group = compiled(self._emit)
        self._sound_group = compiled(jax.vmap(overflow.sound))
        self.overflowed = compiled(jax.vmap(overflow.overflowed))
        self.exchange = compiled(partial(overflow.exchanged, federation))
        self._update_keys = compiled(self._keys)
        self.refine = compiled(partial(overflow.refined, federation))
        self.finish = compiled(partial(overflow.finished, federation))
        self.output = compiled(federation.output)
        self.after_broadcast = compiled(federation.after_broadcast)
        self._closed = compiled(partial(close_round, federation))
        self._put = compiled(partial(put_rows, federation))
        self._put_memory = compiled(partial(put_rows, federation), donate_argnums=0)
        learner = federation.learner
        self._acting = jax.eval_shape(
            lambda key: learner.acting(learner.init_params(key, federation.spaces)), jax.random.key(0)
        )
        self._vector = compiled(lambda params: self._stack(jax.tree.map(lambda x: x[None], params))[0])
        self._agents_vectors = compiled(self._vectors, static_argnames="fresh")
        self._decide_agents = compiled(self._agents)
        self._act_server = compiled(self._server)
        self._stacked = compiled(self._stack)
        self._act_evaluated = compiled(self._evaluated)

    def groups(self, agents: Agent, ids: Array, byzantine: Array) -> list[Group]:
        """The participants, leaves ``[m, ...]``, as groups that are computed together."""
        count, residual = ids.shape[0], agents.residual
        agents = dataclasses.replace(agents, residual=())
        if count <= self.batch:
            return [Group(agents, slice(0, count), ids, byzantine, residual)]
        rows = [slice(first, min(first + self.batch, count)) for first in range(0, count, self.batch)]

        def part(rows: slice) -> Group:
            own = jax.tree.map(lambda x: x[rows], (agents, ids, byzantine, residual))
            return Group(own[0], rows, *own[1:])

        return [part(each) for each in rows]

    def update_keys(self, key: PRNGKeyArray, ids: Array) -> UpdateKeys:
        """Of the round's key, and of every agent's number; ``[updates, m, ...]``."""
        keys = self._update_keys(key, ids)
        return UpdateKeys(np.asarray(keys.act), keys.learn)

    def contexts(self, groups: list[Group], downlink: Downlink) -> list[GroupContext]:
        """What each group may look at in this round, of agents that have not absorbed the broadcast yet."""
        if type(self.federation.strategy).context is Strategy.context:
            return [GroupContext((), ())] * len(groups)
        return [self._context_group(group.agents, group.ids, downlink) for group in groups]

    def begin(
        self, groups: list[Group], contexts: list[GroupContext], downlink: Downlink, key: PRNGKeyArray
    ) -> list[Group]:
        """What agents do before their local updates; they absorb the broadcast. The groups given are used up."""
        return [
            group._replace(agents=self._begin_group(group.agents, group.ids, context, downlink, key))
            for group, context in zip(groups, contexts, strict=True)
        ]

    def decider_of_agents(
        self, groups: list[Group], downlink: Downlink, key_data: np.ndarray | Array, *, fresh: bool
    ) -> Decider:
        """``decide(observation[m, num_envs, *o], step) -> (action[m, num_envs, *a], extras)`` of the groups' agents.

        ``key_data`` are those of one update to act with, ``[m, ...]``.
        """
        vectors = joined([self._agents_vectors(group.agents, group.ids, downlink, fresh=fresh) for group in groups])
        byzantine = joined([group.byzantine for group in groups])
        return lambda observation, step: jax.tree.map(
            np.asarray, self._decide_agents(vectors, byzantine, key_data, observation, np.int32(step))
        )

    def work(
        self,
        groups: list[Group],
        contexts: list[GroupContext],
        downlink: Downlink,
        experience: Experience,
        keys: Array,
        progress: Array,
        *,
        fresh: bool,
    ) -> tuple[list[Group], list[dict[str, Any]]]:
        """One local update of all participants from their experience, leaves ``[m, ...]``; a report by group.

        ``keys[m]`` are those of the update to learn with. The groups given are used up.
        """
        after, reports = [], []
        for group, context in zip(groups, contexts, strict=True):
            own = (group.agents, group.ids, group.byzantine, group.of(experience), group.of(keys))
            agents, report = self._work_group(*own, context, downlink, progress, fresh=fresh)
            after.append(group._replace(agents=agents))
            reports.append(report)
        return after, reports

    def emit(self, groups: list[Group], key: PRNGKeyArray, sending: Sending) -> tuple[list[Group], PyTree]:
        """The groups after sending, and what their agents send, leaves ``[m, ...]``."""
        after, messages = [], []
        for group in groups:
            residual, message = self._emit_group(group.agents, group.residual, group.ids, key, sending)
            after.append(group._replace(residual=residual))
            messages.append(message)
        return after, joined(messages)

    def sound(self, group: Group) -> Array:
        """Whose state is finite throughout (:func:`.overflow.sound`), bool ``[g]``."""
        return self._sound_group(dataclasses.replace(group.agents, residual=group.residual))

    @property
    def everyone(self) -> bool:
        """Whether all agents take part, in their order."""
        return self.federation.participants == self.federation.agents

    # What agents remember is large. A compiled program copies whatever it only hands on, and new memory takes several
    # times as long to write as memory that was written before.

    def open(self, state: State, key: PRNGKeyArray, spare: PyTree | None = None) -> Opened:
        """The broadcast, who takes part, and copies of their states.

        What they remember is written over ``spare``, what all agents of a state that nobody needs any more did; it is
        used up.
        """
        if not self.everyone:
            spare = ()
        elif spare is None:
            spare = jax.tree.map(jnp.copy, state.agents.memory)
        return self._opened(state, key, spare)

    def put(self, agents: Agent, ids: Array, rows: Agent) -> Agent:
        """All agents after the participants' rows are replaced; what ``agents`` remember is used up."""
        if self.everyone:
            return rows
        memory = self._put_memory(agents.memory, ids, rows.memory)
        agents, rows = (dataclasses.replace(each, memory=()) for each in (agents, rows))
        return dataclasses.replace(self._put(agents, ids, rows), memory=memory)

    def close(self, state: State, result: RoundResult) -> tuple[State, dict[str, Array]]:
        """:func:`close_round`."""
        agents = result.by_agents.agents
        without = result._replace(by_agents=result.by_agents._replace(agents=()))
        after, metrics = self._closed(dataclasses.replace(state, agents=()), without)
        return dataclasses.replace(after, agents=agents), metrics

    def actor_of_server(self, params: PyTree, key: PRNGKeyArray) -> Actor:
        """``act(observation[1, num_envs, *o], step) -> action[1, num_envs, *a]`` of the server."""
        vector = self._vector(params)
        key_data = jax.random.key_data(key)
        return lambda observation, step: np.asarray(self._act_server(vector, key_data, observation, np.int32(step)))

    def evaluated_actor(
        self, params: PyTree, key: PRNGKeyArray | None, *, agents: int | None
    ) -> Callable[[np.ndarray, int], np.ndarray]:
        """``act(observation[num_envs, *o], step) -> action[num_envs, *a]`` without learning; greedy without a key.

        With ``agents``, parameters have that leading axis, and each agent acts in its share of the copies.
        """
        vectors = self._vector(params)[None] if agents is None else self._stacked(params)
        key_data = None if key is None else jax.random.key_data(key)
        return lambda observation, step: np.asarray(self._act_evaluated(vectors, observation, key_data, np.int32(step)))

    def _open(self, state: State, key: PRNGKeyArray, spare: PyTree) -> Opened:
        downlink = self.federation.broadcast(state.server, key, state.tally.rounds)
        cohort = self.federation.cohort(key)
        agents = jax.tree.map(lambda x: x[cohort.ids], state.agents)
        if self.everyone:
            memory = jax.tree.map(written_over, spare, state.agents.memory)
            agents = dataclasses.replace(agents, memory=memory)
        return Opened(downlink, cohort, agents)

    # Acting is called in every step of an environment: with one vector of parameters and a key's bare integers as
    # arguments it is dispatched three times as fast as with pytrees and typed keys.

    def _vectors(self, agents: Agent, ids: Array, downlink: Downlink, *, fresh: bool) -> Array:
        if fresh:
            agents = jax.vmap(self.federation.strategy.absorb, (0, None, 0))(agents, downlink, ids)
        return self._stack(agents.params)

    def _stack(self, params: PyTree) -> Array:
        """The policies as rows of what they act with."""
        return ravel_rows(jax.vmap(self.federation.learner.acting)(params))

    def _agents(
        self, vectors: Array, byzantine: Array, key_data: Array, observation: Observation, step: Array
    ) -> tuple[Array, PyTree]:
        def one(vector: Array, byzantine: Array, key: PRNGKeyArray, observation: Observation) -> tuple[Array, PyTree]:
            params = unravel_like(self._acting, vector)
            return self.federation.decide(params, observation, jax.random.fold_in(key, step), byzantine)

        return jax.vmap(one)(vectors, byzantine, jax.random.wrap_key_data(key_data), observation)

    def _server(self, vector: Array, key_data: Array, observation: Observation, step: Array) -> Array:
        alone = jax.tree.map(lambda x: x[0], observation)
        key = derive(jax.random.wrap_key_data(key_data), "act", step)
        return self.federation.learner.act(unravel_like(self._acting, vector), alone, key)[None]

    def _evaluated(self, vectors: Array, observation: Observation, key_data: Array | None, step: Array) -> Array:
        count = vectors.shape[0]
        rows = jax.tree.leaves(observation)[0].shape[0]
        grouped = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), observation)

        def one(vector: Array, observation: Observation, key: PRNGKeyArray | None) -> Array:
            return self.federation.learner.act(unravel_like(self._acting, vector), observation, key)

        if key_data is None:
            action = jax.vmap(partial(one, key=None))(vectors, grouped)
        else:
            keys = jax.random.split(derive(jax.random.wrap_key_data(key_data), "act", step), count)
            action = jax.vmap(one)(vectors, grouped, keys)
        return action.reshape(rows, *action.shape[2:])

    def _keys(self, key: PRNGKeyArray, ids: Array) -> UpdateKeys:
        def of_agent(index: Array) -> PRNGKeyArray:
            return update_keys(agent_key(key, index), self.federation.local_updates)

        keys = jax.vmap(of_agent, out_axes=1)(ids)
        act = each_derived(keys, "collect", "act")
        return UpdateKeys(jax.random.key_data(act), each_derived(keys, "learn"))

    def _work(
        self,
        agents: Agent,
        ids: Array,
        byzantine: Array,
        experience: Experience,
        keys: Array,
        context: GroupContext,
        downlink: Downlink,
        progress: Array,
        *,
        fresh: bool,
    ) -> tuple[Agent, dict[str, Any]]:
        def one(
            inputs: tuple[Agent, Experience, Array, Array, PRNGKeyArray, PyTree],
        ) -> tuple[Agent, dict[str, Any]]:
            agent, experience, index, byzantine, key, own = inputs
            if fresh:
                agent = self.federation.strategy.absorb(agent, downlink, index)
            update_context = UpdateContext(key, progress, context.of_agent(own))
            agent, learning = self.federation.work(agent, experience, update_context, byzantine)
            return agent, agent_report(experience, learning, detailed=self.federation.detailed)

        return map_in_batches(one, (agents, experience, ids, byzantine, keys, context.own), self.batch)

    def _context(self, agents: Agent, ids: Array, downlink: Downlink) -> GroupContext:
        strategy, inputs = self.federation.strategy, (agents, ids)

        def one(inputs: tuple[Agent, Array]) -> PyTree:
            agent, index = inputs
            return strategy.context(strategy.absorb(agent, downlink, index), downlink, index)

        first = one(jax.tree.map(lambda x: x[0], inputs))
        places = jax.tree.unflatten(jax.tree.structure(first), range(len(jax.tree.leaves(first))))
        shared = jax.tree.map(lambda place: is_shared(lambda x: jax.tree.leaves(one(x))[place], inputs), places)
        return GroupContext(eqx.filter(jax.vmap(one)(inputs), shared, inverse=True), eqx.filter(first, shared))

    def _begin(self, agents: Agent, ids: Array, context: GroupContext, downlink: Downlink, key: PRNGKeyArray) -> Agent:
        strategy, learner = self.federation.strategy, self.federation.learner

        def one(inputs: tuple[Agent, Array, PyTree]) -> Agent:
            agent, index, own = inputs
            agent = strategy.absorb(agent, downlink, index)
            return strategy.begin(learner, agent, context.of_agent(own), derive(agent_key(key, index), "begin"))

        return map_in_batches(one, (agents, ids, context.own), self.batch)

    def _emit(
        self, agents: Agent, residual: PyTree, ids: Array, key: PRNGKeyArray, sending: Sending
    ) -> tuple[PyTree, PyTree]:
        def one(agent: Agent, index: Array) -> tuple[PyTree, PyTree]:
            after, message = self.federation.emit(agent, agent_key(key, index), sending)
            return after.residual, message

        return jax.vmap(one)(dataclasses.replace(agents, residual=residual), ids)


def is_shared(function: Callable[[PyTree], Array], inputs: PyTree) -> bool:
    """Whether a function of one agent returns an array that does not depend on which agent's ``inputs`` it is given.

    Of inputs with leaves ``[g, ...]``; JAX refuses to return a mapped array as one that is not.
    """
    try:
        jax.eval_shape(jax.vmap(function, out_axes=None), inputs)
    except ValueError:
        return False
    return True


def take_rows(federation: Federation, tree: PyTree, ids: Array) -> PyTree:
    """The participants' rows, without a gather where everyone takes part."""
    if federation.participants == federation.agents:
        return tree
    return jax.tree.map(lambda x: x[ids], tree)


def put_rows(federation: Federation, tree: PyTree, ids: Array, rows: PyTree) -> PyTree:
    """``tree`` with the participants' rows replaced."""
    if federation.participants == federation.agents:
        return rows
    return jax.tree.map(lambda x, y: x.at[ids].set(y), tree, rows)


def written_over(old: Array, new: Array) -> Array:
    """``new``, in the place of a donated ``old``."""
    return jax.lax.dynamic_update_slice(old, new, (0,) * new.ndim)


def each_derived(keys: PRNGKeyArray, *purposes: str) -> PRNGKeyArray:
    """For keys ``[updates, m]`` those of a purpose, and of a purpose within it."""
    for purpose in purposes:
        keys = jax.vmap(jax.vmap(partial(derive, purpose=purpose)))(keys)
    return keys


def stack(trees: list[Any]) -> Any:
    """Equal pytrees as one with a new leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def joined(trees: list[Any]) -> Any:
    """Pytrees with leading axes ``[g, ...]`` as one, in their order."""
    return trees[0] if len(trees) == 1 else jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *trees)


def unstack(tree: Any, count: int) -> list[Any]:
    """The inverse of :func:`stack`."""
    return [jax.tree.map(lambda x, i=i: x[i], tree) for i in range(count)]
