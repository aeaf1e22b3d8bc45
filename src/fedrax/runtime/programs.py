"""The verbs of a round as compiled programs, for runtimes that collect experience outside of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from fedrax.environments.base import Episodes, Experience
from fedrax.environments.faults import NOTHING, Fault, masked
from fedrax.federation import Cohort, Exchange, Federation, State, round_metrics
from fedrax.learners.base import Agent, UpdateContext
from fedrax.runtime.base import agent_report, tally_round
from fedrax.runtime.mapping import map_in_batches
from fedrax.seeds import derive
from fedrax.strategies.base import Downlink, ServerWork, Strategy, select
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
    """Leaves ``[g, ...]``."""
    rows: np.ndarray
    """Their places among the participants, ``int[g]``."""

    def of(self, tree: PyTree) -> PyTree:
        """Their rows of something all participants have, leaves ``[m, ...]``."""
        return jax.tree.map(lambda x: x[self.rows[0] : self.rows[-1] + 1], tree)


class Programs:
    """Compiled verbs for one seed; ``batch`` agents learn side by side, and others in another call.

    A call for each such group, rather than a loop inside of one, changes what an agent remembers in place: a loop
    would copy every agent's memory in and out.

    ``fresh`` says that agents have not absorbed the broadcast yet.

    Agents absorb it inside the mapped function, where whatever they take over from it unchanged stays one array for
    all of them: acting and learning then use one large matrix product.
    """

    def __init__(self, federation: Federation, batch: int) -> None:
        self.federation = federation
        self.batch = batch
        self.open = jax.jit(self._open)
        self.begins = type(federation.strategy).begin is not Strategy.begin
        """Whether agents learn before their local updates, from :meth:`begin`."""
        self._work_group = jax.jit(self._work, static_argnames="fresh", donate_argnums=0)
        self._begin_group = jax.jit(self._begin, donate_argnums=0)
        self._emit_group = jax.jit(self._emit)
        self._exchange_messages = jax.jit(self._exchange)
        self.refine = jax.jit(partial(federation.strategy.refine, federation.learner))
        self.finish = jax.jit(federation.strategy.finish)
        self.close = jax.jit(self._close)
        learner = federation.learner
        self._acting = jax.eval_shape(
            lambda key: learner.acting(learner.init_params(key, federation.spaces)), jax.random.key(0)
        )
        self._vector = jax.jit(lambda params: self._stack(jax.tree.map(lambda x: x[None], params))[0])
        self._agents_vectors = jax.jit(self._vectors, static_argnames="fresh")
        self._decide_agents = jax.jit(self._agents)
        self._act_server = jax.jit(self._server)
        self._stacked = jax.jit(self._stack)
        self._act_evaluated = jax.jit(self._evaluated)

    def groups(self, agents: Agent) -> list[Group]:
        """The participants, leaves ``[m, ...]``, as groups that are computed together."""
        count = jax.tree.leaves(agents)[0].shape[0]
        if count <= self.batch:
            return [Group(agents, np.arange(count))]
        rows = [np.arange(first, min(first + self.batch, count)) for first in range(0, count, self.batch)]
        return [Group(jax.tree.map(lambda x, r=each: x[r[0] : r[-1] + 1], agents), each) for each in rows]

    def begin(self, groups: list[Group], downlink: Downlink, cohort: Cohort, key: PRNGKeyArray) -> list[Group]:
        """What agents do before their local updates; they absorb the broadcast."""
        return [Group(self._begin_group(*group, downlink, cohort, key), group.rows) for group in groups]

    def decider_of_agents(
        self,
        groups: list[Group],
        downlink: Downlink,
        cohort: Cohort,
        key: PRNGKeyArray,
        *,
        fresh: bool,
    ) -> Decider:
        """``decide(observation[g, num_envs, *o], step) -> (action[g, num_envs, *a], extras)`` of the groups' agents."""
        vectors = joined([self._agents_vectors(*group, downlink, cohort.ids, fresh=fresh) for group in groups])
        rows = np.concatenate([group.rows for group in groups])
        key_data = jax.random.key_data(key)
        return lambda observation, step: jax.tree.map(
            np.asarray, self._decide_agents(vectors, rows, cohort.byzantine, key_data, observation, np.int32(step))
        )

    def work(
        self,
        groups: list[Group],
        downlink: Downlink,
        experience: Experience,
        cohort: Cohort,
        update_context: UpdateContext,
        *,
        fresh: bool,
    ) -> tuple[list[Group], list[dict[str, Any]]]:
        """One local update of all participants from their experience, leaves ``[m, ...]``; a report by group.

        The groups given are used up.
        """
        after, reports = [], []
        for group in groups:
            agents, report = self._work_group(
                *group, downlink, group.of(experience), cohort, update_context, fresh=fresh
            )
            after.append(Group(agents, group.rows))
            reports.append(report)
        return after, reports

    def work_alone(
        self,
        groups: list[Group],
        downlink: Downlink,
        experience: Experience,
        cohort: Cohort,
        update_context: UpdateContext,
        *,
        fresh: bool,
    ) -> tuple[list[Group], dict[str, Any]]:
        """As :meth:`work` for one group of the participants, where ``experience`` is theirs alone."""
        (group,) = groups
        agents, report = self._work_group(*group, downlink, experience, cohort, update_context, fresh=fresh)
        return [Group(agents, group.rows)], report

    def messages(self, groups: list[Group], cohort: Cohort, key: PRNGKeyArray, dropped: np.ndarray) -> PyTree:
        """What the groups' agents send, leaves ``[g, ...]``; zeros for those whose round is void, ``bool[g]``."""
        sent = joined([self._emit_group(*group, cohort, key) for group in groups])
        return masked(dropped, sent, jax.tree.map(jnp.zeros_like, sent)) if dropped.any() else sent

    def exchange(
        self,
        server: PyTree,
        downlink: Downlink,
        cohort: Cohort,
        messages: PyTree,
        key: PRNGKeyArray,
        round: Array,
        reference: Episodes | None = None,
    ) -> tuple[PyTree, Exchange]:
        """What the server makes of the messages."""
        return self._exchange_messages(server, downlink, cohort, messages, key, round, reference)

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

    def _open(self, state: State, key: PRNGKeyArray) -> Opened:
        downlink = self.federation.broadcast(state.server, key, state.tally.rounds)
        cohort = self.federation.cohort(key)
        return Opened(downlink, cohort, jax.tree.map(lambda x: x[cohort.ids], state.agents))

    # Acting is called in every step of an environment: with one vector of parameters and a key's bare integers as
    # arguments it is dispatched three times as fast as with pytrees and typed keys.

    def _vectors(self, agents: Agent, rows: Array, downlink: Downlink, ids: Array, *, fresh: bool) -> Array:
        if fresh:
            agents = jax.vmap(self.federation.strategy.absorb, (0, None, 0))(agents, downlink, ids[rows])
        return self._stack(agents.params)

    def _stack(self, params: PyTree) -> Array:
        """The policies as rows of what they act with."""
        return ravel_rows(jax.vmap(self.federation.learner.acting)(params))

    def _agents(
        self, vectors: Array, rows: Array, byzantine: Array, key_data: Array, observation: Array, step: Array
    ) -> tuple[Array, PyTree]:
        key = derive(jax.random.wrap_key_data(key_data), "act", step)

        def one(vector: Array, byzantine: Array, observation: Array, key: PRNGKeyArray) -> tuple[Array, PyTree]:
            return self.federation.decide(unravel_like(self._acting, vector), observation, key, byzantine)

        keys = jax.random.split(key, byzantine.shape[0])[rows]
        return jax.vmap(one)(vectors, byzantine[rows], observation, keys)

    def _server(self, vector: Array, key_data: Array, observation: Array, step: Array) -> Array:
        key = derive(jax.random.wrap_key_data(key_data), "act", step)
        return self.federation.learner.act(unravel_like(self._acting, vector), observation[0], key)[None]

    def _evaluated(self, vectors: Array, observation: Array, key_data: Array | None, step: Array) -> Array:
        count = vectors.shape[0]
        grouped = observation.reshape(count, -1, *observation.shape[1:])

        def one(vector: Array, observation: Array, key: PRNGKeyArray | None) -> Array:
            return self.federation.learner.act(unravel_like(self._acting, vector), observation, key)

        if key_data is None:
            action = jax.vmap(partial(one, key=None))(vectors, grouped)
        else:
            keys = jax.random.split(derive(jax.random.wrap_key_data(key_data), "act", step), count)
            action = jax.vmap(one)(vectors, grouped, keys)
        return action.reshape(observation.shape[0], *action.shape[2:])

    def _work(
        self,
        agents: Agent,
        rows: Array,
        downlink: Downlink,
        experience: Experience,
        cohort: Cohort,
        update_context: UpdateContext,
        *,
        fresh: bool,
    ) -> tuple[Agent, dict[str, Any]]:
        keys = jax.random.split(derive(update_context.key, "learn"), cohort.ids.shape[0])[rows]

        def one(
            inputs: tuple[Agent, Experience, Array, Array, PRNGKeyArray],
        ) -> tuple[Agent, dict[str, Any]]:
            agent, experience, index, byzantine, key = inputs
            if fresh:
                agent = self.federation.strategy.absorb(agent, downlink, index)
            agent, learning = self.federation.work(
                agent, experience, UpdateContext(key, update_context.progress), byzantine
            )
            return agent, agent_report(experience, learning)

        return map_in_batches(one, (agents, experience, cohort.ids[rows], cohort.byzantine[rows], keys), self.batch)

    def _begin(self, agents: Agent, rows: Array, downlink: Downlink, cohort: Cohort, key: PRNGKeyArray) -> Agent:
        strategy, learner = self.federation.strategy, self.federation.learner
        keys = jax.random.split(derive(key, "begin"), cohort.ids.shape[0])[rows]

        def one(inputs: tuple[Agent, Array, PRNGKeyArray]) -> Agent:
            agent, index, key = inputs
            return strategy.begin(learner, strategy.absorb(agent, downlink, index), key)

        return map_in_batches(one, (agents, cohort.ids[rows], keys), self.batch)

    def _emit(self, agents: Agent, rows: Array, cohort: Cohort, key: PRNGKeyArray) -> PyTree:
        keys = jax.random.split(derive(key, "emit"), cohort.ids.shape[0])[rows]
        return jax.vmap(partial(self.federation.strategy.emit, self.federation.learner))(agents, keys)

    def _exchange(
        self,
        server: PyTree,
        downlink: Downlink,
        cohort: Cohort,
        messages: PyTree,
        key: PRNGKeyArray,
        round: Array,
        reference: Episodes | None,
    ) -> tuple[PyTree, Exchange]:
        return self.federation.exchange(server, downlink, cohort, messages, key, round, reference)

    def _close(
        self,
        state: State,
        server: PyTree,
        agents: Agent,
        cohort: Cohort,
        exchange: Exchange,
        report: dict[str, Any],
        work: ServerWork,
        own: dict[str, Array],
        evaluation: dict[str, Array],
    ) -> tuple[State, dict[str, Any]]:
        rows = put_rows(self.federation, state.agents, cohort.ids, agents)
        output = self.federation.output(server, rows)
        return close_round(
            self.federation, state, server, rows, output, cohort, exchange, report, work, own, evaluation
        )


def close_round(
    federation: Federation,
    state: State,
    server: PyTree,
    agents: PyTree,
    output: PyTree,
    cohort: Cohort,
    exchange: Exchange,
    report: dict[str, Any],
    work: ServerWork,
    own: dict[str, Array],
    evaluation: dict[str, Array],
    *,
    reported: Array | None = None,
) -> tuple[State, dict[str, Array]]:
    """The state after a round and the round's metrics.

    ``agents`` are all agents after the round (nothing where they are in other processes) and ``output`` what is handed
    out; ``report`` holds ``[m]`` episodes, steps, return sums, learning metrics and faults (``[m, 4]``, the rows of
    :class:`Fault`) of the participants, zeros for those who have not ``reported``; ``own`` the server's episodes,
    steps and fault, and how many episodes were for the rule (:func:`with_reference`); ``evaluation`` the return and
    episode length (NaN in rounds without).
    """
    steps = report["steps"].sum() + own["steps"]
    tally = tally_round(
        federation,
        state.tally,
        agent_episodes=report["episodes"].sum(),
        counted=work.counted + own["reference"],
        steps=steps,
        agent_steps=report["steps"].sum(),
    )
    faults = Fault.of_row(report["fault"])
    honest = ~cohort.byzantine & (faults.kind == NOTHING)
    if reported is not None:
        honest &= reported
    better = jnp.isfinite(evaluation["return"]) & (evaluation["return"] > state.best_return)
    updated = State(
        server=server,
        agents=agents,
        tally=tally,
        best=select(better, output, state.best),
        best_return=jnp.where(better, evaluation["return"], state.best_return),
        environments=state.environments,
    )
    returns = report["return_sum"] / report["episodes"]
    learning = jax.tree.map(lambda x: jnp.where(honest, x, 0).sum() / honest.sum(), report["learning"])
    strategy = federation.strategy
    local_steps = federation.local_updates * strategy.local_gradient_steps(federation.learner)
    local_steps += strategy.round_gradient_steps(federation.learner)
    metrics = {
        "active": jnp.asarray(True),
        **evaluation,
        "train_return": jnp.where(honest, report["return_sum"], 0).sum()
        / jnp.where(honest, report["episodes"], 0).sum(),
        "trajectories": tally.trajectories - state.tally.trajectories,
        "agent_trajectories": report["episodes"].sum(),
        "server_trajectories": own["episodes"],
        "agent_steps": report["steps"].sum(),
        "server_steps": own["steps"],
        "gradient_steps": work.gradient_steps + local_steps,
        "excluded": jnp.zeros(federation.agents, bool).at[cohort.ids].set(exchange.excluded),
        "dropped": jnp.zeros((federation.agents, len(Fault._fields)), jnp.int32).at[cohort.ids].set(report["fault"]),
        "server_dropped": own["fault"],
        **learning,
        **round_metrics(cohort, exchange, rejects=federation.aggregator.rejects),
    }
    if federation.personal:
        nothing = jnp.full(federation.agents, jnp.nan)
        metrics["agent_train_returns"] = nothing.at[cohort.ids].set(jnp.where(faults.kind == NOTHING, returns, jnp.nan))
    return updated, metrics


def heard(cohort: Cohort, report: dict[str, Any]) -> Cohort:
    """The cohort in which those whose round is void count as absent."""
    return cohort._replace(answers=cohort.answers & (Fault.of_row(report["fault"]).kind == NOTHING))


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


def stack(trees: list[Any]) -> Any:
    """Equal pytrees as one with a new leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def joined(trees: list[Any]) -> Any:
    """Pytrees with leading axes ``[g, ...]`` as one, in their order."""
    return trees[0] if len(trees) == 1 else jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *trees)


def unstack(tree: Any, count: int) -> list[Any]:
    """The inverse of :func:`stack`."""
    return [jax.tree.map(lambda x, i=i: x[i], tree) for i in range(count)]
