"""Simulation on a native environment: whole rounds, for all agents and seeds, in one compiled program."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from fedrax.config import Config
from fedrax.environments.base import Episodes, NativeEnvironment
from fedrax.environments.native_collector import Act, collect_episodes, greedy_returns
from fedrax.federation import Federation, State
from fedrax.learners.base import Agent
from fedrax.runtime.base import Simulation, agent_report
from fedrax.runtime.mapping import AGENTS, map_agents
from fedrax.runtime.programs import close_round, take_rows
from fedrax.seeds import derive
from fedrax.strategies.base import Downlink, select

SEEDS = "seeds"
"""Name of the axis that several seeds are mapped over."""


class NativeSimulation(Simulation):
    """Rounds as a scan inside one program; ``physics`` are per-agent parameters ``[agents]``, or None for all equal."""

    def __init__(
        self,
        config: Config,
        federation: Federation,
        environment: NativeEnvironment,
        physics: dict[str, Array] | None,
    ) -> None:
        super().__init__(config, federation)
        self.environment = environment
        self.physics = physics
        limit = environment.time_limit
        self.training_horizon = min(config.environment.horizon or limit, limit)
        self.evaluation_horizon = min(config.evaluation.horizon or self.training_horizon, limit)
        self.batch = config.runtime.agents_per_batch or agents_side_by_side(
            federation.strategy.max_episodes * self.training_horizon, config.seeds
        )
        self.rounds: Callable[[State, Array], tuple[State, dict[str, Array]]]
        self.rounds = self._jitted = jax.jit(self._rounds, donate_argnums=0)
        self._evaluate = jax.jit(self._evaluation, static_argnames="episodes")

    def init(self) -> State:
        """The states before the first round."""
        keys = jax.vmap(jax.random.key)(jnp.asarray(self.config.all_seeds))
        return jax.jit(jax.vmap(self.federation.init))(keys)

    def compile(self, state: State) -> None:
        """Compiles the program of ``checkpoint.every`` rounds."""
        self.rounds = self._jitted.lower(state, jnp.asarray(0)).compile()

    def advance(self, state: State, first: int) -> Iterator[tuple[State, dict[str, np.ndarray]]]:
        """Runs ``checkpoint.every`` rounds in one call."""
        started = time.perf_counter()
        state, metrics = self.rounds(state, jnp.asarray(first))
        rows = jax.tree.map(np.asarray, metrics)
        seconds = (time.perf_counter() - started) / self.config.checkpoint.every
        yield state, {**rows, "seconds": np.full(rows["active"].shape, seconds)}

    def evaluate(self, params: PyTree, *, episodes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Greedy returns and lengths of one policy."""
        returns, lengths = self._evaluate(params, jax.random.key(seed), episodes=episodes)
        return np.asarray(returns), np.asarray(lengths)

    def _rounds(self, state: State, first: Array) -> tuple[State, dict[str, Array]]:
        """``checkpoint.every`` rounds of every seed."""
        keys = jax.vmap(jax.random.key)(jnp.asarray(self.config.all_seeds))

        def step(state: State, index: Array) -> tuple[State, dict[str, Array]]:
            # The round's number is not mapped: all seeds are in the same round, so what happens only in some
            # rounds is a real branch.
            return jax.vmap(partial(self._round, index=index), axis_name=SEEDS)(state, keys)

        state, metrics = jax.lax.scan(step, state, first + jnp.arange(self.config.checkpoint.every))
        return state, jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), metrics)

    def _round(self, state: State, key: PRNGKeyArray, *, index: Array) -> tuple[State, dict[str, Array]]:
        """One round of one seed."""
        federation, strategy = self.federation, self.federation.strategy
        key = derive(key, "round", index)
        active = self.active(state.tally)

        downlink = strategy.broadcast(state.server, derive(key, "broadcast"))
        roster = federation.roster(key)
        agents, messages, report = map_agents(
            partial(self._agent_round, downlink=downlink, key=key),
            (
                take_rows(federation, state.agents, roster.ids),
                roster.ids,
                roster.byzantine,
                take_rows(federation, self.physics, roster.ids),
            ),
            self.batch,
        )
        server, exchange = federation.exchange(state.server, downlink, roster, messages, key)
        server, own_episodes, own_steps = self._refine(server, derive(key, "server"))
        server, work = strategy.finish(server, derive(key, "finish"))
        evaluation = self._evaluate_round(strategy.output(server), index)
        own = {"episodes": own_episodes, "steps": own_steps}
        updated, metrics = close_round(
            federation, state, server, agents, roster, exchange, report, work, own, evaluation
        )
        return select(active, updated, state), {**metrics, "active": active}

    def _agent_round(
        self,
        inputs: tuple[Agent, Array, Array, dict[str, Array] | None],
        *,
        downlink: Downlink,
        key: PRNGKeyArray,
    ) -> tuple[Agent, PyTree, dict[str, Array]]:
        """One agent's part of a round: absorb, work, emit."""
        agent, index, byzantine, physics = inputs
        federation, strategy = self.federation, self.federation.strategy
        key = derive(key, "work", index)
        agent = strategy.absorb(agent, downlink)

        def update(agent: Agent, key: PRNGKeyArray) -> tuple[Agent, dict[str, Array]]:
            episodes = self._collect(
                lambda observation, k: federation.act(agent.params, observation, k, byzantine),
                derive(key, "collect"),
                physics,
                count=downlink.episodes,
                most=strategy.max_episodes,
            )
            agent, _ = federation.work(agent, episodes, derive(key, "poison"), byzantine)
            return agent, agent_report(episodes)

        if federation.local_updates == 1:
            agent, report = update(agent, key)
        else:
            agent, reports = jax.lax.scan(update, agent, jax.random.split(key, federation.local_updates))
            report = jax.tree.map(lambda x: x.sum(0), reports)
        return agent, strategy.emit(agent), report

    def _refine(self, server: PyTree, key: PRNGKeyArray) -> tuple[PyTree, Array, Array]:
        """The server's own steps; also its trajectories and environment steps."""
        federation, strategy = self.federation, self.federation.strategy
        if strategy.server_episodes == 0:
            return server, jnp.asarray(0), jnp.asarray(0)

        def body(carry: tuple[PyTree, Array, Array]) -> tuple[PyTree, Array, Array]:
            server, episodes_so_far, steps_so_far = carry
            params = strategy.policy(server)
            episodes = self._collect(
                lambda observation, k: federation.learner.act(params, observation, k),
                derive(key, "collect", episodes_so_far),
                None,
                count=jnp.asarray(strategy.server_episodes),
                most=strategy.server_episodes,
                axis_names=(SEEDS,),
            )
            server = strategy.refine(federation.learner, server, episodes)
            return server, episodes_so_far + strategy.server_episodes, steps_so_far + episodes.steps

        zero = jnp.asarray(0)
        return jax.lax.while_loop(lambda carry: strategy.refining(carry[0]), body, (server, zero, zero))

    def _collect(
        self,
        act: Act,
        key: PRNGKeyArray,
        physics: dict[str, Array] | None,
        *,
        count: Array,
        most: int,
        axis_names: tuple[str, ...] = (SEEDS, AGENTS),
    ) -> Episodes:
        return collect_episodes(
            self.environment,
            self.environment.physics() if physics is None else physics,
            act,
            key,
            count=count,
            max_count=most,
            horizon=self.training_horizon,
            axis_names=axis_names,
        )

    def _evaluate_round(self, params: PyTree, index: Array) -> dict[str, Array]:
        """Evaluation in the rounds that have one, NaN in the others."""
        settings = self.config.evaluation

        def measure() -> dict[str, Array]:
            returns, lengths = self._evaluation(
                params, jax.random.key(settings.seed), episodes=settings.episodes, axis_names=(SEEDS,)
            )
            return {"return": returns.mean(), "episode_length": lengths.mean(dtype=jnp.float32)}

        if settings.every == 1:
            return measure()
        missing = {"return": jnp.asarray(jnp.nan), "episode_length": jnp.asarray(jnp.nan)}
        return jax.lax.cond((index + 1) % settings.every == 0, measure, lambda: missing)

    def _evaluation(
        self, params: PyTree, key: PRNGKeyArray, *, episodes: int, axis_names: tuple[str, ...] = ()
    ) -> tuple[Array, Array]:
        return greedy_returns(
            self.environment,
            self.environment.physics(),
            lambda observation, _: self.federation.learner.act(params, observation, None),
            key,
            episodes=episodes,
            horizon=self.evaluation_horizon,
            axis_names=axis_names,
        )


def agents_side_by_side(steps_per_agent: int, seeds: int) -> int:
    """How many agents to compute together: enough to fill a processor, few enough that the episodes stay small.

    About four million steps of episodes at once, some hundred megabytes for small observations.
    """
    return max(1, 4_000_000 // (steps_per_agent * seeds))
