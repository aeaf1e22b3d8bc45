"""The runtime on host environments: compiled verbs around a Python loop that steps the environment."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from fedrax.config import Config
from fedrax.environments.actions import TransformHostActions
from fedrax.environments.base import Episodes, HostEnvironments
from fedrax.environments.crash import placed
from fedrax.environments.faults import NOTHING, Fault, first_fault, with_learning
from fedrax.environments.goal_sets import GoalSet, held_out_of, single_goals
from fedrax.environments.host import make_host
from fedrax.environments.host_collector import HostCollector, evaluate_host
from fedrax.environments.host_parameters import Parameters
from fedrax.environments.host_tasks import MixedEnvironments
from fedrax.environments.registry import Description
from fedrax.environments.tasks import Mixture, task_of
from fedrax.environments.termination import EndHostAtGoal
from fedrax.evaluation.pairs import AFTER, BEFORE, Pairs, around
from fedrax.federation import Federation, State
from fedrax.runtime.base import Runtime
from fedrax.runtime.collectors import collected_steps, host_copies
from fedrax.runtime.compiling import compile_seconds, jitted, quickly
from fedrax.runtime.draws import default_parameters, own_parameters, task_ids
from fedrax.runtime.group_verbs import GroupVerbs
from fedrax.runtime.mapping import agents_side_by_side
from fedrax.runtime.memory import check_memory
from fedrax.runtime.programs import Programs, stack, unstack
from fedrax.runtime.rounds import AgentResults, ServerVerbs, agent_round, server_round
from fedrax.runtime.seed_environments import SeedEnvironments
from fedrax.seeds import derive, host_seeds
from fedrax.strategies.base import Downlink

TOGETHER = 10_000
"""Environments of an evaluation that exist at once."""


class HostRuntime(Runtime):
    """One seed after the other within each round; each seed owns its environments.

    The state of a host environment cannot be saved, so every ``checkpoint.every`` rounds all of them start anew from
    seeds derived from (seed, round): a resumed run then sees what the uninterrupted one saw.

    ``draws`` are every site's parameters ``[draws][sites]``, which the seeds take in turn, or empty where all
    environments are the registered one. Where they differ, Gymnasium steps all of them, those of the server and of
    evaluations included, or EnvPool where all that differs are options that it has, or tasks. ``mixture`` is that of
    agents on different tasks. Without ``agents`` only the server's environments are made: the agents are elsewhere.
    """

    def __init__(
        self,
        config: Config,
        federation: Federation,
        described: Description,
        draws: Sequence[Sequence[Parameters]] = (),
        mixture: Mixture | None = None,
        *,
        agents: bool = True,
    ) -> None:
        super().__init__(config, federation)
        self.draws, self.mixture = draws, mixture
        self.training_horizon = described.horizon(config.environment.horizon)
        self.evaluation_horizon = described.horizon(config.evaluation.horizon, self.training_horizon)
        everyone = range(federation.agents)
        # Who sits a round out must find its environments as it left them.
        together = federation.participants == federation.agents and federation.chance is None
        groups = [everyone] if together else [range(agent, agent + 1) for agent in everyone]
        self.seed_environments = [
            self.environments_of(position, seed, groups if agents else [])
            for position, seed in enumerate(config.all_seeds)
        ]
        steps = collected_steps(federation, self.num_envs, self.training_horizon)
        batch = config.runtime.agents_per_batch or agents_side_by_side(federation, steps)
        self.programs = Programs(federation, batch, quick=quickly(config))

    @property
    def never_ends(self) -> str | None:
        """Environments start anew before."""
        steps = self.federation.learner.steps
        if steps is None:
            return None
        each, every = self.federation.local_updates * steps, self.config.checkpoint.every
        if each * every >= self.training_horizon:
            return None
        return (
            f"environments start anew with every checkpoint, after {each * every} steps of a copy, so that no episode "
            f"lasts its {self.training_horizon} steps; set checkpoint.every={-(-self.training_horizon // each)} or more"
        )

    def init(self, initial: PyTree = ()) -> State:
        """The states before the first round."""
        start = jitted(self.federation.init, quick=quickly(self.config))
        check_memory(self.config, self.shapes())
        seeds = enumerate(self.config.all_seeds)
        return stack([start(jax.random.key(seed), jax.tree.map(lambda x, i=i: x[i], initial)) for i, seed in seeds])

    def shapes(self) -> State:
        """Of all seeds, one after the other."""
        keys = jax.vmap(jax.random.key)(jnp.asarray(self.config.all_seeds))
        return jax.eval_shape(jax.vmap(self.federation.init), keys)

    def compile(self, state: State) -> None:
        """Nothing ahead of time: array lengths follow the episodes, so programs compile when first met."""

    def starts_at(self, rounds: Set[int]) -> bool:
        """Only where every environment starts anew: their states are not saved."""
        return all(number % self.config.checkpoint.every == 0 for number in rounds)

    def advance(self, state: State, first: int) -> Iterator[tuple[State | None, dict[str, np.ndarray]]]:
        """Runs the rounds up to where environments start anew, yielding after each."""
        states, until = unstack(state, len(self.seed_environments)), self.until(first)
        spare: PyTree | None = None
        self.reseed(first)
        for index in range(first, until):
            started, compiled = time.perf_counter(), compile_seconds()
            metrics: list[dict[str, Any] | None] = []
            for position, environments in enumerate(self.seed_environments):
                before = states[position]
                # A seed that an earlier budget ended in another round waits for its own, or has done this one.
                if not self.active(before.tally) or int(before.tally.rounds) != index:
                    metrics.append(None)
                    continue
                states[position], measured = self._round(environments, before, index, spare)
                spare = before.agents.memory
                metrics.append(measured)
            known = [measured for measured in metrics if measured is not None]
            if not known:
                continue
            nothing = jax.tree.map(jnp.zeros_like, known[0])
            rows = stack([nothing if measured is None else measured for measured in metrics])
            spent = time.perf_counter() - started - (compile_seconds() - compiled)
            seconds = np.full(len(states), max(spent, 0.0))
            more = any(self.active(each.tally) and int(each.tally.rounds) < until for each in states)
            # States in one are copies, of whole replays.
            together = None if more else stack(states)
            yield together, jax.tree.map(lambda x: np.asarray(x)[:, None], {**rows, "seconds": seconds})

    @property
    def differ(self) -> bool:
        """Whether sites' parameters were drawn."""
        return bool(self.draws)

    def evaluate_pairs(
        self,
        params: PyTree,
        pairs: Pairs,
        *,
        seed: int,
        position: int = 0,
        draws: Sequence[Parameters] | None = None,
    ) -> dict[str, np.ndarray]:
        """In fresh environments, as many at once as :data:`TOGETHER` allows."""
        table, episodes = pairs.environments, pairs.episodes
        columns = 1 if table is None else table.shape[1]
        each = columns * episodes
        states = np.tile(host_seeds((episodes,), seed, "evaluation"), columns)
        sites = self.sites_draws(position) if draws is None else draws
        tested = [held_out_of(each, self.config.environment.held_out_goals) for each in sites]
        policies = params if pairs.personal else jax.tree.map(lambda x: x[None], params)
        number = len(jax.tree.leaves(policies)[0])
        together = max(1, TOGETHER // each)
        results = []
        for first in range(0, number, together):
            group = jax.tree.map(lambda x, first=first: x[first : first + together], policies)
            count = min(together, number - first)
            own = None
            if table is not None:
                rows = table[first : first + together].ravel()
                own = [each for site in rows for each in single_goals(tested[site], episodes)]
            environments = self._make(count * each, self.evaluation_horizon, own)
            try:
                environments.reseed(np.tile(states, count))
                act = self.programs.evaluated_actor(group, self._evaluation_key(seed), agents=count)
                with placed(lambda crash: crash.of("an evaluation")):
                    results.append(evaluate_host(environments, act))
            finally:
                environments.close()
        shape = (number, columns, episodes)
        return {name: np.concatenate([part[name] for part in results]).reshape(shape) for name in results[0]}

    def _evaluate_round(
        self, params: PyTree, server: PyTree, agents: PyTree, *, index: int, position: int, key: PRNGKeyArray
    ) -> dict[str, Any]:
        """Evaluation in the rounds that have one, NaN in the others."""
        found = self.evaluation_of_round(params, index, position)
        settings, pairs = self.config.evaluation, self.aggregation_pairs
        if not settings.aggregation or (index + 1) % settings.every:
            return in_single_precision(found)
        received = self.programs.after_broadcast(server, agents, key, jnp.asarray(index + 1))
        tables = {
            when: self.evaluate_pairs(networks, pairs, seed=settings.seed, position=position)
            for when, networks in ((BEFORE, agents.params), (AFTER, received))
        }
        return in_single_precision(found | around(tables, pairs))

    def _evaluation_key(self, seed: int) -> PRNGKeyArray | None:
        """The key that evaluations sample actions with; none where they are greedy."""
        return None if self.config.evaluation.greedy else derive(jax.random.key(seed), "evaluation")

    def close(self) -> None:
        """Frees every seed's environments."""
        for environments in self.seed_environments:
            environments.close()

    def sites_draws(self, position: int) -> Sequence[Parameters]:
        """One seed's sites' parameters, by its position among the seeds; empty where all are the same."""
        return self.draws[position % len(self.draws)] if self.draws else ()

    def parameters(self, agents: Sequence[int], num_envs: int, position: int = 0) -> list[Parameters] | None:
        """Those of so many copies of each learning agent, its own or its sites'; None where all are the same.

        Raises:
            FedraxError: fewer copies than sites.
        """
        draws = self.sites_draws(position)
        if not draws:
            return None
        sites = self.federation.sites // self.federation.agents
        return [draws[agent * sites + site] for agent in agents for site in self.sites_of_envs(num_envs)]

    def environments_of(
        self, position: int, seed: int, members: Sequence[range], *, server: bool = True
    ) -> SeedEnvironments:
        """Of the seed at this position: of agents, in groups that act together, and of the server.

        Episodes start from ``seed``, which of an agent elsewhere may be its own.
        """
        federation, horizon = self.federation, self.training_horizon
        num_envs = host_copies(federation, self.num_envs)
        groups = [
            self._make(len(group) * num_envs, horizon, self.parameters(group, num_envs, position), training=True)
            for group in members
        ]
        strategy = federation.strategy
        episodes = strategy.server_episodes if server else 0
        if server and federation.aggregator.needs_server_gradient:
            episodes = max(episodes, strategy.reference_episodes)
        return SeedEnvironments(
            federation,
            members,
            groups,
            HostCollector(self._make(episodes, horizon), 1, episodes) if episodes else None,
            seed=seed,
            position=position,
            num_envs=num_envs,
            horizon=horizon,
        )

    def _make(
        self, count: int, horizon: int, parameters: Sequence[Parameters] | None = None, *, training: bool = False
    ) -> HostEnvironments:
        if self.draws and parameters is None:
            # One engine for all of a run's environments: EnvPool's numbers are not quite Gymnasium's.
            parameters = [default_parameters(self.config)[0]] * count
        if self.mixture is None:
            made = self._copies(self.config.environment.id, count, horizon, parameters)
        else:
            sites = parameters or [{}] * count

            def of_task(task: int, places: np.ndarray) -> HostEnvironments:
                return self._copies(task_ids(self.config)[task], len(places), horizon, [sites[i] for i in places])

            made = MixedEnvironments(self.mixture, [task_of(site) for site in sites], of_task)
        if training and self.config.environment.terminate_on_success:
            made = EndHostAtGoal(made)
        return TransformHostActions(made, self.federation.actions)

    def _copies(self, id: str, count: int, horizon: int, parameters: Sequence[Parameters] | None) -> HostEnvironments:
        """Of one environment."""
        settings = self.config.environment
        goals = None
        if parameters is not None:
            goals = [GoalSet.of(site) for site in parameters]
            own = own_parameters(self.config, id)
            parameters = [{name: site[name] for name in own} for site in parameters] if settings.heterogeneity else None
        return make_host(
            id,
            count,
            backend=settings.backend,
            threads=settings.threads,
            max_episode_steps=horizon,
            mission=settings.mission,
            parameters=parameters,
            kwargs=settings.kwargs,
            goals=goals,
        )

    def _round(
        self, environments: SeedEnvironments, state: State, index: int, spare: PyTree | None
    ) -> tuple[State, dict[str, Any]]:
        """One round of one seed; ``spare`` is as in :meth:`Programs.open`. What ``state`` remembers may be used up."""
        programs = self.programs
        key = derive(jax.random.key(environments.seed), "round", index)
        opened = programs.open(state, key, spare)
        downlink, cohort = opened.downlink, opened.cohort
        verbs = GroupVerbs(
            programs,
            programs.groups(opened.agents, cohort.ids, cohort.byzantine),
            downlink,
            key,
            sending=self.federation.sending(downlink, state.tally.rounds, key, state.clip),
            collect=lambda decide: environments.collect(decide, cohort, downlink),
            progress=partial(self.progress, state.tally),
            before=lambda: jax.tree.map(lambda x: x[cohort.ids], state.agents),
            selected=None if cohort.selected is None else np.asarray(cohort.selected),
        )
        agents, messages, report = agent_round(verbs)
        results = AgentResults(programs.put(state.agents, cohort.ids, agents), messages, report, cohort.selected)
        server = ServerVerbs(
            reference=partial(self._reference, environments),
            exchange=programs.exchange,
            refine=partial(self._refine, environments),
            finish=programs.finish,
            output=programs.output,
            evaluate=partial(self._evaluate_round, index=index, position=environments.position, key=key),
            close=programs.close,
        )
        return server_round(server, state, downlink, cohort, results, key)

    def reseed(self, index: int) -> None:
        """Every seed's."""
        for environments in self.seed_environments:
            environments.reseed(index)

    def reference(self, server: PyTree, downlink: Downlink, key: PRNGKeyArray) -> Episodes | None:
        """The first seed's server's own trajectories at the broadcast policy."""
        return self._reference(self.seed_environments[0], server, downlink, key)

    def _reference(
        self, environments: SeedEnvironments, server: PyTree, downlink: Downlink, key: PRNGKeyArray
    ) -> Episodes | None:
        strategy = self.federation.strategy
        if environments.server is None or not self.federation.aggregator.needs_server_gradient:
            return None
        collected = environments.server.collect(
            self.programs.actor_of_server(strategy.policy(server), key),
            np.array([strategy.reference_count(downlink)]),
            strategy.reference_episodes,
            self.training_horizon,
        )
        return jax.tree.map(lambda x: x[0], collected)

    def refine(self, server: PyTree, key: PRNGKeyArray) -> tuple[PyTree, dict[str, Any]]:
        """The first seed's server after its own steps."""
        return self._refine(self.seed_environments[0], server, key)

    def _refine(
        self, environments: SeedEnvironments, server: PyTree, key: PRNGKeyArray
    ) -> tuple[PyTree, dict[str, Any]]:
        """The server's own steps; also its trajectories and environment steps, and the fault that ended them."""
        strategy = self.federation.strategy
        episodes_so_far = steps_so_far = 0
        fault = Fault.none()
        while environments.server is not None and bool(strategy.refining(server)):
            params = strategy.policy(server)
            with placed(lambda crash: crash.of("the server")):
                collected = environments.server.collect(
                    self.programs.actor_of_server(params, derive(key, "collect", episodes_so_far)),
                    np.array([strategy.server_episodes]),
                    strategy.server_episodes,
                    self.training_horizon,
                )
            episodes = jax.tree.map(lambda x: x[0], collected)
            episodes_so_far += strategy.server_episodes
            steps_so_far += int(collected.valid.sum())
            fault = first_fault(episodes)
            if fault.kind == NOTHING:
                server, lost = self.programs.refine(server, episodes)
                fault = with_learning(fault, np.asarray(lost))
            if fault.kind != NOTHING:
                break
        return server, {"episodes": episodes_so_far, "steps": steps_so_far, "fault": fault.row}


def in_single_precision(measured: Mapping[str, Any]) -> dict[str, Any]:
    """What compiled programs are given: numbers too large for it are infinite, of which NumPy would warn."""
    with np.errstate(over="ignore"):
        return {name: np.asarray(values, np.float32) for name, values in measured.items()}
