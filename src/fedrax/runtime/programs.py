"""The verbs of a round as compiled programs, for runtimes that collect experience outside of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray, PyTree

from fedrax.environments.base import Episodes
from fedrax.federation import Exchange, Federation, Roster, State, round_metrics
from fedrax.learners.base import Agent
from fedrax.runtime.base import agent_report, tally_round
from fedrax.seeds import derive
from fedrax.strategies.base import Downlink, ServerWork, select
from fedrax.trees import ravel_rows, unravel_like

Actor = Callable[[np.ndarray, int], np.ndarray]
"""Actions for a batch of observations in the given step of a collection."""


class Opened(NamedTuple):
    """A round after the broadcast."""

    downlink: Downlink
    roster: Roster
    agents: Agent
    """The participants' states before they absorb the broadcast, leaves ``[m, ...]``."""


class Programs:
    """Compiled verbs for one seed. ``fresh`` says that agents have not absorbed the broadcast yet.

    Agents absorb it inside the mapped function, where whatever they take over from it unchanged stays one array for
    all of them: acting and learning then use one large matrix product.
    """

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self.open = jax.jit(self._open)
        self.work = jax.jit(self._work, static_argnames="fresh")
        self.exchange = jax.jit(self._exchange)
        self.refine = jax.jit(partial(federation.strategy.refine, federation.learner))
        self.finish = jax.jit(federation.strategy.finish)
        self.close = jax.jit(self._close)
        self._params = jax.eval_shape(
            partial(federation.learner.init_params, spaces=federation.spaces), jax.random.key(0)
        )
        self._vector = jax.jit(lambda params: ravel_rows(jax.tree.map(lambda x: x[None], params))[0])
        self._agents_vectors = jax.jit(self._vectors, static_argnames="fresh")
        self._act_agents = jax.jit(self._agents)
        self._act_server = jax.jit(self._server)
        self._act_greedily = jax.jit(self._greedy)

    def actor_of_agents(
        self,
        agents: Agent,
        downlink: Downlink,
        byzantine: Bool[Array, " m"],
        key: PRNGKeyArray,
        *,
        fresh: bool,
    ) -> Actor:
        """``act(observation[m, copies, *o], step) -> action[m, copies, *a]`` of all agents."""
        vectors = self._agents_vectors(agents, downlink, fresh=fresh)
        key_data = jax.random.key_data(key)
        return lambda observation, step: np.asarray(
            self._act_agents(vectors, byzantine, key_data, observation, np.int32(step))
        )

    def actor_of_server(self, params: PyTree, key: PRNGKeyArray) -> Actor:
        """``act(observation[1, copies, *o], step) -> action[1, copies, *a]`` of the server."""
        vector = self._vector(params)
        key_data = jax.random.key_data(key)
        return lambda observation, step: np.asarray(self._act_server(vector, key_data, observation, np.int32(step)))

    def greedy_actor(self, params: PyTree) -> Callable[[np.ndarray], np.ndarray]:
        """``act(observation[copies, *o]) -> action[copies, *a]`` of one policy without exploration."""
        vector = self._vector(params)
        return lambda observation: np.asarray(self._act_greedily(vector, observation))

    def _open(self, state: State, key: PRNGKeyArray) -> Opened:
        downlink = self.federation.strategy.broadcast(state.server, derive(key, "broadcast"))
        roster = self.federation.roster(key)
        return Opened(downlink, roster, jax.tree.map(lambda x: x[roster.ids], state.agents))

    # Acting is called in every step of an environment: with one vector of parameters and a key's bare integers as
    # arguments it is dispatched three times as fast as with pytrees and typed keys.

    def _vectors(self, agents: Agent, downlink: Downlink, *, fresh: bool) -> Array:
        if fresh:
            agents = jax.vmap(self.federation.strategy.absorb, (0, None))(agents, downlink)
        return ravel_rows(agents.params)

    def _agents(self, vectors: Array, byzantine: Array, key_data: Array, observation: Array, step: Array) -> Array:
        key = derive(jax.random.wrap_key_data(key_data), "act", step)

        def one(vector: Array, byzantine: Array, observation: Array, key: PRNGKeyArray) -> Array:
            return self.federation.act(unravel_like(self._params, vector), observation, key, byzantine)

        return jax.vmap(one)(vectors, byzantine, observation, jax.random.split(key, byzantine.shape[0]))

    def _server(self, vector: Array, key_data: Array, observation: Array, step: Array) -> Array:
        key = derive(jax.random.wrap_key_data(key_data), "act", step)
        return self.federation.learner.act(unravel_like(self._params, vector), observation[0], key)[None]

    def _greedy(self, vector: Array, observation: Array) -> Array:
        return self.federation.learner.act(unravel_like(self._params, vector), observation, None)

    def _work(
        self,
        agents: Agent,
        downlink: Downlink,
        episodes: Episodes,
        byzantine: Array,
        key: PRNGKeyArray,
        *,
        fresh: bool,
    ) -> tuple[Agent, dict[str, Array]]:
        keys = jax.random.split(derive(key, "poison"), byzantine.shape[0])

        def one(
            agent: Agent, episodes: Episodes, byzantine: Array, key: PRNGKeyArray
        ) -> tuple[Agent, dict[str, Array]]:
            if fresh:
                agent = self.federation.strategy.absorb(agent, downlink)
            agent, _ = self.federation.work(agent, episodes, key, byzantine)
            return agent, agent_report(episodes)

        return jax.vmap(one)(agents, episodes, byzantine, keys)

    def _exchange(
        self, server: PyTree, downlink: Downlink, roster: Roster, agents: Agent, key: PRNGKeyArray
    ) -> tuple[PyTree, Exchange]:
        messages = jax.vmap(self.federation.strategy.emit)(agents)
        return self.federation.exchange(server, downlink, roster, messages, key)

    def _close(
        self,
        state: State,
        server: PyTree,
        agents: Agent,
        roster: Roster,
        exchange: Exchange,
        report: dict[str, Array],
        work: ServerWork,
        own: dict[str, Array],
        evaluation: dict[str, Array],
    ) -> tuple[State, dict[str, Any]]:
        return close_round(self.federation, state, server, agents, roster, exchange, report, work, own, evaluation)


def close_round(
    federation: Federation,
    state: State,
    server: PyTree,
    agents: Agent,
    roster: Roster,
    exchange: Exchange,
    report: dict[str, Array],
    work: ServerWork,
    own: dict[str, Array],
    evaluation: dict[str, Array],
) -> tuple[State, dict[str, Array]]:
    """The state after a round and the round's metrics.

    ``report`` holds ``[m]`` episodes, steps and return sums of the participants; ``own`` the server's episodes and
    steps; ``evaluation`` the greedy return and episode length (NaN in rounds without).
    """
    steps = report["steps"].sum() + own["steps"]
    tally = tally_round(
        state.tally,
        agent_episodes=report["episodes"].sum(),
        counted=work.counted,
        steps=steps,
        participants=federation.participants,
    )
    honest = ~roster.byzantine
    output = federation.strategy.output(server)
    better = evaluation["return"] > state.best_return
    updated = State(
        server=server,
        agents=put_rows(federation, state.agents, roster.ids, agents),
        tally=tally,
        best=select(better, output, state.best),
        best_return=jnp.where(better, evaluation["return"], state.best_return),
    )
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
        "gradient_steps": work.gradient_steps,
        "excluded": jnp.zeros(federation.agents, bool).at[roster.ids].set(exchange.excluded),
        **round_metrics(roster, exchange),
    }
    return updated, metrics


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


def unstack(tree: Any, count: int) -> list[Any]:
    """The inverse of :func:`stack`."""
    return [jax.tree.map(lambda x, i=i: x[i], tree) for i in range(count)]
