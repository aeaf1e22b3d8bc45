"""The verbs of a round as compiled programs, for runtimes that collect experience outside of them."""

from __future__ import annotations

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
        self.greedy = jax.jit(lambda params, observation: federation.learner.act(params, observation, None))
        self._act = jax.jit(self._act_agents, static_argnames="fresh")
        self._act_one = jax.jit(self._act_server)

    def act_agents(
        self,
        agents: Agent,
        downlink: Downlink,
        byzantine: Bool[Array, " m"],
        key: PRNGKeyArray,
        observation: np.ndarray,
        step: int,
        *,
        fresh: bool,
    ) -> np.ndarray:
        """Actions ``[m, copies, *a]`` of all agents in the ``step``-th step of a collection."""
        return np.asarray(self._act(agents, downlink, byzantine, key, observation, np.int32(step), fresh=fresh))

    def act_server(self, params: PyTree, key: PRNGKeyArray, observation: np.ndarray, step: int) -> np.ndarray:
        """Actions ``[1, copies, *a]`` of the server."""
        return np.asarray(self._act_one(params, key, observation, np.int32(step)))

    def _open(self, state: State, key: PRNGKeyArray) -> Opened:
        downlink = self.federation.strategy.broadcast(state.server, derive(key, "broadcast"))
        roster = self.federation.roster(key)
        return Opened(downlink, roster, jax.tree.map(lambda x: x[roster.ids], state.agents))

    def _act_agents(
        self,
        agents: Agent,
        downlink: Downlink,
        byzantine: Array,
        key: PRNGKeyArray,
        observation: Array,
        step: Array,
        *,
        fresh: bool,
    ) -> Array:
        keys = jax.random.split(derive(key, "act", step), byzantine.shape[0])

        def one(agent: Agent, byzantine: Array, observation: Array, key: PRNGKeyArray) -> Array:
            if fresh:
                agent = self.federation.strategy.absorb(agent, downlink)
            return self.federation.act(agent.params, observation, key, byzantine)

        return jax.vmap(one)(agents, byzantine, observation, keys)

    def _act_server(self, params: PyTree, key: PRNGKeyArray, observation: Array, step: Array) -> Array:
        return self.federation.learner.act(params, observation[0], derive(key, "act", step))[None]

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
