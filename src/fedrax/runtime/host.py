"""Simulation on a host environment: compiled verbs around a Python loop that steps the environment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from fedrax.config import Config
from fedrax.environments.base import HostEnvironments
from fedrax.environments.host import make_host
from fedrax.environments.host_collector import HostCollector, evaluate_host
from fedrax.federation import Federation, State
from fedrax.runtime.base import Simulation
from fedrax.runtime.programs import Programs, stack, unstack
from fedrax.seeds import derive, host_seeds


class HostSimulation(Simulation):
    """One seed after the other within each round; each seed owns its environments.

    The state of a host environment cannot be saved, so every ``checkpoint.every`` rounds all of them start anew from
    seeds derived from (seed, round): a resumed run then sees what the uninterrupted one saw.
    """

    def __init__(self, config: Config, federation: Federation, time_limit: int) -> None:
        super().__init__(config, federation)
        self.training_horizon = min(config.environment.horizon or time_limit, time_limit)
        self.evaluation_horizon = min(config.evaluation.horizon or self.training_horizon, time_limit)
        self.sites = [Site(self, seed) for seed in config.all_seeds]
        self.programs = Programs(federation)

    def init(self) -> State:
        """The states before the first round."""
        return stack([jax.jit(self.federation.init)(jax.random.key(seed)) for seed in self.config.all_seeds])

    def compile(self, state: State) -> None:
        """Nothing ahead of time: array lengths follow the episodes, so programs compile when first met."""

    def advance(self, state: State, first: int) -> Iterator[tuple[State, dict[str, np.ndarray]]]:
        """Runs ``checkpoint.every`` rounds, yielding after each."""
        states = unstack(state, len(self.sites))
        for site in self.sites:
            site.reseed(first)
        for index in range(first, first + self.config.checkpoint.every):
            started = time.perf_counter()
            metrics: list[dict[str, Any] | None] = []
            for position, site in enumerate(self.sites):
                if not self.active(states[position].tally):
                    metrics.append(None)
                    continue
                states[position], measured = self._round(site, states[position], index)
                metrics.append(measured)
            known = [measured for measured in metrics if measured is not None]
            if not known:
                return
            nothing = jax.tree.map(jnp.zeros_like, known[0])
            rows = stack([nothing if measured is None else measured for measured in metrics])
            seconds = np.full(len(states), time.perf_counter() - started)
            yield stack(states), jax.tree.map(lambda x: np.asarray(x)[:, None], {**rows, "seconds": seconds})

    def evaluate(self, params: PyTree, *, episodes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Greedy returns and lengths of one policy, in fresh environments."""
        environments = self._make(episodes, self.evaluation_horizon)
        try:
            environments.reseed(host_seeds((episodes,), seed, "evaluation"))
            return evaluate_host(environments, self.programs.greedy_actor(params))
        finally:
            environments.close()

    def close(self) -> None:
        """Frees every seed's environments."""
        for site in self.sites:
            site.close()

    def _make(self, count: int, horizon: int) -> HostEnvironments:
        settings = self.config.environment
        return make_host(
            settings.id, count, backend=settings.backend, threads=settings.threads, max_episode_steps=horizon
        )

    def _round(self, site: Site, state: State, index: int) -> tuple[State, dict[str, Any]]:
        """One round of one seed."""
        programs, strategy = self.programs, self.federation.strategy
        key = derive(jax.random.key(site.seed), "round", index)
        opened = programs.open(state, key)
        downlink, roster = opened.downlink, opened.roster
        agents = opened.agents
        counts = np.full(self.federation.participants, int(downlink.episodes))
        reports = []
        for update in range(self.federation.local_updates):
            update_key = derive(key, "work", update)
            fresh = update == 0
            collected = site.agents.collect(
                programs.actor_of_agents(agents, downlink, roster.byzantine, update_key, fresh=fresh),
                counts,
                strategy.max_episodes,
                self.training_horizon,
            )
            agents, report = programs.work(agents, downlink, collected, roster.byzantine, update_key, fresh=fresh)
            reports.append(report)
        report = jax.tree.map(lambda *x: sum(x), *reports)
        server, exchange = programs.exchange(state.server, downlink, roster, agents, key)
        server, own = self._refine(site, server, derive(key, "server"))
        server, work = programs.finish(server, derive(key, "finish"))
        evaluation = self._evaluate_round(strategy.output(server), index)
        return programs.close(state, server, agents, roster, exchange, report, work, own, evaluation)

    def _refine(self, site: Site, server: PyTree, key: PRNGKeyArray) -> tuple[PyTree, dict[str, int]]:
        """The server's own steps; also its trajectories and environment steps."""
        strategy = self.federation.strategy
        episodes_so_far = steps_so_far = 0
        while site.server is not None and bool(strategy.refining(server)):
            params = strategy.policy(server)
            collected = site.server.collect(
                self.programs.actor_of_server(params, derive(key, "collect", episodes_so_far)),
                np.array([strategy.server_episodes]),
                strategy.server_episodes,
                self.training_horizon,
            )
            episodes = jax.tree.map(lambda x: x[0], collected)
            server = self.programs.refine(server, episodes)
            episodes_so_far += strategy.server_episodes
            steps_so_far += int(collected.valid.sum())
        return server, {"episodes": episodes_so_far, "steps": steps_so_far}

    def _evaluate_round(self, params: PyTree, index: int) -> dict[str, float]:
        """Evaluation in the rounds that have one, NaN in the others."""
        settings = self.config.evaluation
        if (index + 1) % settings.every:
            return {"return": float("nan"), "episode_length": float("nan")}
        returns, lengths = self.evaluate(params, episodes=settings.episodes, seed=settings.seed)
        return {"return": float(returns.mean()), "episode_length": float(lengths.mean())}


class Site:
    """One seed's environments: the agents' and the server's."""

    def __init__(self, simulation: HostSimulation, seed: int) -> None:
        federation = simulation.federation
        self.seed = seed
        copies = min(simulation.config.environment.copies, federation.strategy.max_episodes)
        horizon = simulation.training_horizon
        self.agents = HostCollector(
            simulation._make(federation.participants * copies, horizon), federation.participants, copies
        )
        own = federation.strategy.server_episodes
        self.server = HostCollector(simulation._make(own, horizon), 1, own) if own else None

    def reseed(self, index: int) -> None:
        """Starts every environment anew, as it will be at round ``index`` whoever gets there."""
        for name, collector in (("agents", self.agents), ("server", self.server)):
            if collector is not None:
                count = collector.environments.count
                collector.environments.reseed(host_seeds((count,), self.seed, name, index))

    def close(self) -> None:
        """Frees the environments."""
        for collector in (self.agents, self.server):
            if collector is not None:
                collector.environments.close()
