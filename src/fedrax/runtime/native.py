"""The runtime on native environments: whole rounds, for all agents and seeds, in one compiled program."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from fedrax.config import Config
from fedrax.environments.actions import TransformActions
from fedrax.environments.base import Episodes, Experience, NativeEnvironment, Observation, stack_physics
from fedrax.environments.faults import NOTHING, Fault, first_fault, with_learning
from fedrax.environments.goal_sets import held_out_of
from fedrax.environments.native_steps import Decide
from fedrax.environments.termination import EndsAtGoal
from fedrax.evaluation.pairs import AFTER, BEFORE, Pairs, around, scores
from fedrax.federation import Federation, Sending, State, Tally
from fedrax.learners.base import Agent
from fedrax.runtime import overflow
from fedrax.runtime.base import Runtime
from fedrax.runtime.collectors import EpisodeCollector, collected_copies, collected_steps, make_collector
from fedrax.runtime.compiling import jitted, quickly
from fedrax.runtime.library import Arguments, NativePrograms, Programs, constant_settings
from fedrax.runtime.mapping import AGENTS, agents_side_by_side, map_in_batches
from fedrax.runtime.memory import check_memory
from fedrax.runtime.native_evaluation import NativeEvaluation
from fedrax.runtime.native_verbs import NativeVerbs
from fedrax.runtime.programs import put_rows, take_rows
from fedrax.runtime.rounds import (
    AgentResults,
    ServerVerbs,
    agent_key,
    agent_round,
    close_round,
    server_round,
)
from fedrax.seeds import derive
from fedrax.strategies.base import Downlink, select
from fedrax.trees import strongly_typed

SEEDS = "seeds"
"""Name of the axis that several seeds are mapped over."""
AgentInputs = tuple[Agent, Array, Array, Array | None, dict[str, Array] | None, PyTree]
"""An agent before its round, its number, whether an attack governs it, whether it takes part (None: it does), its
physics, and its collector's state."""


class NativeRuntime(Runtime):
    """Rounds as a scan inside one program; ``physics`` are per-agent parameters, or None for all equal.

    They are ``[draws, sites]``: the seeds take the draws in turn. Programs are taken from the ``library`` where it has
    them, and else made and put there.
    """

    compiles_ahead = True

    def __init__(
        self,
        config: Config,
        federation: Federation,
        environment: NativeEnvironment,
        physics: dict[str, Array] | None,
        library: Programs | None = None,
    ) -> None:
        super().__init__(config, federation)
        actions = federation.actions
        self.environment = environment if actions.same else TransformActions(environment, actions)
        self.draws = physics
        self.agents_draws = self._of_agents(physics)
        limit = environment.time_limit
        self.training_horizon = min(config.environment.horizon or limit, limit)
        self.evaluation_horizon = min(config.evaluation.horizon or self.training_horizon, limit)
        steps = collected_steps(federation, self.num_envs, self.training_horizon) * config.seeds
        self.batch = config.runtime.agents_per_batch or agents_side_by_side(federation, steps)
        # Agents that follow one another leave nothing to gain from seeds side by side.
        self.seeds_together = 1 if self.batch == 1 else config.seeds
        mapped = {SEEDS: self.seeds_together, AGENTS: min(self.batch, federation.participants)}
        self.axes = tuple(name for name, together in mapped.items() if together > 1)
        self.seeds = jnp.asarray(config.all_seeds)
        self.prepare(Programs() if library is None else library)
        quick = quickly(config)
        self._refined, self._referenced = jitted(self._refine, quick=quick), jitted(self._reference, quick=quick)

    def prepare(self, library: Programs) -> None:
        """Takes its programs from the library, or makes them, of the federation and the physics that it has now."""
        self._learn_from(self.federation)
        self.arguments, self._constants = self._parted()
        self.programs = library.of(self._key(), self._programs)

    def _learn_from(self, federation: Federation) -> None:
        """Makes what collects and evaluates for this federation, whose numbers may be traced."""
        self.federation = federation
        config = self.config
        training = EndsAtGoal(self.environment) if config.environment.terminate_on_success else self.environment
        self.collector = make_collector(
            federation,
            training,
            num_envs=self.num_envs,
            horizon=self.training_horizon,
            per_copy=self._per_copy,
            axis_names=self.axes,
        )
        self.evaluation = NativeEvaluation(
            self.environment, federation, greedy=config.evaluation.greedy, horizon=self.evaluation_horizon
        )

    def _parted(self) -> tuple[Arguments, Federation]:
        """What programs take as arguments, and the federation without its numbers."""
        numbers, constants = eqx.partition(self.federation, lambda leaf: isinstance(leaf, (int, float)))
        return Arguments(numbers, self.limits, self.seeds, self.draws, self.agents_draws), constants

    def _with(self, arguments: Arguments) -> NativeRuntime:
        """This runtime with its numbers, limits, seeds and physics from a program's arguments."""
        runtime = copy.copy(self)
        runtime.limits, runtime.seeds = arguments.limits, arguments.seeds
        runtime.draws, runtime.agents_draws = arguments.draws, arguments.agents_draws
        runtime._learn_from(eqx.combine(arguments.numbers, self._constants))
        return runtime

    def _key(self) -> tuple[Any, ...]:
        """What two runtimes have in common whose programs differ in their arguments alone."""
        shapes = jax.tree.map(lambda x: (jnp.shape(x), str(jnp.result_type(x))), self.arguments)
        # Arrays among the constants are no other runtime's.
        arrays = tuple(map(id, jax.tree.leaves(self._constants)))
        kinds = *_classes(self.environment), jax.tree.structure(self.federation), shapes, arrays
        return *kinds, constant_settings(self.config)

    def _programs(self) -> NativePrograms:
        """Made once for all runtimes of the same :meth:`_key`."""

        def init(initial: PyTree, arguments: Arguments) -> State:
            return self._with(arguments)._init_seeds(initial)

        def rounds(state: State, first: Array, arguments: Arguments) -> tuple[State, dict[str, Array]]:
            return self._with(arguments)._rounds(state, first)

        def evaluate(arguments: Arguments, *inputs: Any, episodes: int, personal: bool) -> dict[str, Array]:
            return self._with(arguments).evaluation.table(*inputs, episodes=episodes, personal=personal)

        compiled = partial(jitted, quick=quickly(self.config))
        return NativePrograms(
            compiled(init),
            compiled(rounds, donate_argnums=0),
            compiled(evaluate, static_argnames=("episodes", "personal")),
        )

    def init(self, initial: PyTree = ()) -> State:
        """The states before the first round."""
        check_memory(self.config, jax.eval_shape(self.programs.init, initial, self.arguments))
        return self.programs.init(initial, self.arguments)

    def shapes(self) -> State:
        """Of all seeds."""
        return jax.eval_shape(self.programs.init, (), self.arguments)

    def _init_seeds(self, initial: PyTree) -> State:
        keys = jax.vmap(jax.random.key)(self.seeds)
        return jax.vmap(self._init)(keys, jnp.arange(self.config.seeds), initial)

    def _init(self, key: PRNGKeyArray, position: Array, initial: PyTree) -> State:
        state = self.federation.init(key, initial)
        keys = jax.vmap(lambda index: derive(key, "environment", index))(jnp.arange(self.federation.agents))
        axes = None if self.draws is None else 0
        collector_states = jax.vmap(self.collector.start, (0, axes))(keys, self.drawn(self.agents_draws, position))
        return dataclasses.replace(state, environments=strongly_typed(collector_states))

    @property
    def _per_copy(self) -> bool:
        """Whether one learner's copies differ: those of a centralised learner are its sites'."""
        return self.draws is not None and self.federation.sites > self.federation.agents

    @property
    def _axes_of_seeds(self) -> tuple[str, ...]:
        """The mapped axes where there are no agents."""
        return tuple(name for name in self.axes if name == SEEDS)

    def _of_agents(self, physics: dict[str, Array] | None) -> dict[str, Array] | None:
        """The sites' parameters by learning agent, ``[draws, agents]``; of a centralised one ``[draws, 1, num_envs]``.

        Such a learner's copies are those that it steps, or its episodes of a round.
        """
        if physics is None or self.federation.sites == self.federation.agents:
            return physics
        sites = self.sites_of_envs(collected_copies(self.federation, self.num_envs))
        return jax.tree.map(lambda x: x[:, None, sites], physics)

    def drawn(self, draws: dict[str, Array] | None, position: Array | int) -> dict[str, Array] | None:
        """What the seed at ``position`` has of ``[draws, ...]``."""
        # A single draw is a constant, the same for all seeds and not mapped over them.
        number = 0 if self.config.environment.draws == 1 else position % self.config.environment.draws
        return jax.tree.map(lambda x: x[number], draws)

    def tested(self, draws: dict[str, Array] | None) -> dict[str, Array] | None:
        """Parameters as evaluations have them: at the goals held out, where there are such."""
        return None if draws is None else held_out_of(draws, self.config.environment.held_out_goals)

    def compile(self, state: State) -> None:
        """Compiles the program of ``checkpoint.every`` rounds."""
        if self.programs.compiled is None:
            self.programs.compiled = self.programs.rounds.lower(state, jnp.asarray(0), self.arguments).compile()

    def rounds(self, state: State, first: Array) -> tuple[State, dict[str, Array]]:
        """``checkpoint.every`` rounds of every seed from round ``first`` on; ``state`` is donated."""
        result: tuple[State, dict[str, Array]]
        result = (self.programs.compiled or self.programs.rounds)(state, first, self.arguments)
        return result

    def advance(self, state: State, first: int) -> Iterator[tuple[State, dict[str, np.ndarray]]]:
        """Runs ``checkpoint.every`` rounds in one call, of which those that were done before change nothing."""
        started = time.perf_counter()
        state, metrics = self.rounds(state, jnp.asarray(self.until(first) - self.rounds_per_call))
        rows = jax.tree.map(np.asarray, metrics)
        # Rounds past the budget are none: what the call took is of those that were done.
        done = max(1, int(rows["active"].sum(axis=1).max()))
        seconds = (time.perf_counter() - started) / done
        yield state, {**rows, "seconds": np.full(rows["active"].shape, seconds)}

    @property
    def differ(self) -> bool:
        """Whether there are draws of physical parameters."""
        return self.draws is not None

    def evaluate_pairs(
        self,
        params: PyTree,
        pairs: Pairs,
        *,
        seed: int,
        position: int = 0,
        draws: list[dict[str, float]] | None = None,
    ) -> dict[str, np.ndarray]:
        """One compiled call."""
        physics = self.drawn(self.draws, position)
        if draws is not None:
            physics = jax.tree.map(lambda x: x[0], stack_physics([draws]))
        physics = self.tested(physics)
        table = None if pairs.environments is None else jnp.asarray(pairs.environments)
        key = jax.random.key(seed)
        inputs = params, physics, key, table
        measured = self.programs.evaluate(self.arguments, *inputs, episodes=pairs.episodes, personal=pairs.personal)
        return {name: np.asarray(array) for name, array in measured.items()}

    def _rounds(self, state: State, first: Array) -> tuple[State, dict[str, Array]]:
        """``checkpoint.every`` rounds of every seed."""
        keys = jax.vmap(jax.random.key)(self.seeds)

        def step(state: State, index: Array) -> tuple[State, dict[str, Array]]:
            # The round's number is not mapped: all seeds are in the same round, so what happens only in some
            # rounds is a real branch.
            one = partial(self._round, index=index)
            inputs = (state, keys, jnp.arange(self.config.seeds))
            return map_in_batches(lambda inputs: one(*inputs), inputs, self.seeds_together, SEEDS)

        state, metrics = jax.lax.scan(step, state, first + jnp.arange(self.config.checkpoint.every))
        return state, jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), metrics)

    def _round(
        self, state: State, key: PRNGKeyArray, position: Array, *, index: Array
    ) -> tuple[State, dict[str, Array]]:
        """One round of one seed."""
        federation = self.federation
        key = derive(key, "round", index)
        # A seed that an earlier budget ended in another round waits for its own, or has done this one.
        active = self.active(state.tally) & (state.tally.rounds == index)

        downlink = federation.broadcast(state.server, key, state.tally.rounds)
        cohort = federation.cohort(key)
        sending = federation.sending(downlink, state.tally.rounds, key, state.clip)
        agents, collector_states, messages, report = map_in_batches(
            partial(self._agent_round, downlink=downlink, key=key, sending=sending, tally=state.tally),
            (
                take_rows(federation, state.agents, cohort.ids),
                cohort.ids,
                cohort.byzantine,
                cohort.selected,
                take_rows(federation, self.drawn(self.agents_draws, position), cohort.ids),
                take_rows(federation, state.environments, cohort.ids),
            ),
            self.batch,
        )
        results = AgentResults(
            put_rows(federation, state.agents, cohort.ids, agents), messages, report, cohort.selected
        )
        collector_states = put_rows(federation, state.environments, cohort.ids, collector_states)
        verbs = ServerVerbs(
            reference=self._reference,
            exchange=partial(overflow.exchanged, federation),
            refine=self._refine,
            finish=partial(overflow.finished, federation),
            output=federation.output,
            evaluate=partial(self._evaluate_round, position=position, index=index, key=key),
            close=partial(close_round, federation),
        )
        before, state = state, dataclasses.replace(state, environments=collector_states)
        updated, metrics = server_round(verbs, state, downlink, cohort, results, key)
        return select(active, updated, before), {**metrics, "active": active}

    def _agent_round(
        self, inputs: AgentInputs, *, downlink: Downlink, key: PRNGKeyArray, sending: Sending, tally: Tally
    ) -> tuple[Agent, PyTree, PyTree, dict[str, Any]]:
        """One agent's part of a round, of the round's key; :func:`agent_round`."""
        before, index, byzantine, selected, physics, collector_state = inputs

        def collect(decide: Decide, key: PRNGKeyArray, running: PyTree) -> tuple[Experience, PyTree]:
            return self.collector.collect(running, decide, key, physics, downlink.episodes)

        verbs = NativeVerbs(
            self.federation,
            (before, collector_state),
            index,
            byzantine,
            downlink,
            agent_key(key, index),
            selected=selected,
            sending=sending,
            collect=collect,
            restarted=self.collector.restarted,
            progress=partial(self.progress, tally),
        )
        (agent, collector_state), message, report = agent_round(verbs)
        return agent, collector_state, message, report

    def reference(self, server: PyTree, downlink: Downlink, key: PRNGKeyArray) -> Episodes | None:
        """One seed's server's own trajectories at the broadcast policy."""
        return self._referenced(server, downlink, key)

    def _reference(self, server: PyTree, downlink: Downlink, key: PRNGKeyArray) -> Episodes | None:
        learner, strategy = self.federation.learner, self.federation.strategy
        if not self.federation.aggregator.needs_server_gradient:
            return None
        params = learner.acting(strategy.policy(server))
        return self._collect_server(params, key, strategy.reference_count(downlink), strategy.reference_episodes)

    def refine(self, server: PyTree, key: PRNGKeyArray) -> tuple[PyTree, dict[str, Any]]:
        """One seed's server after its own steps."""
        return self._refined(server, key)

    def _refine(self, server: PyTree, key: PRNGKeyArray) -> tuple[PyTree, dict[str, Array]]:
        """The server's own steps; also its trajectories and environment steps, and the fault that ended them."""
        federation, strategy = self.federation, self.federation.strategy
        zero, sound = jnp.asarray(0), Fault.none()
        if strategy.server_episodes == 0:
            return server, {"episodes": zero, "steps": zero, "fault": sound.row}

        def body(carry: tuple[PyTree, Array, Array, Fault]) -> tuple[PyTree, Array, Array, Fault]:
            server, episodes_so_far, steps_so_far, _ = carry
            episodes = self._collect_server(
                strategy.policy(server),
                derive(key, "collect", episodes_so_far),
                jnp.asarray(strategy.server_episodes),
                strategy.server_episodes,
            )
            fault = first_fault(episodes)
            refined, lost = overflow.refined(federation, server, episodes)
            server = select(fault.kind == NOTHING, refined, server)
            fault = with_learning(fault, lost)
            return server, episodes_so_far + strategy.server_episodes, steps_so_far + episodes.steps, fault

        def wanted(carry: tuple[PyTree, Array, Array, Fault]) -> Array:
            server, _, _, fault = carry
            return strategy.refining(server) & (fault.kind == NOTHING)

        server, episodes, steps, fault = jax.lax.while_loop(wanted, body, (server, zero, zero, sound))
        return server, {"episodes": episodes, "steps": steps, "fault": fault.row}

    def _collect_server(self, params: PyTree, key: PRNGKeyArray, count: Array, most: int) -> Episodes:
        """``count`` of the server's own episodes, of at most ``most``, with a policy of these parameters."""

        def decide(observation: Observation, key: PRNGKeyArray) -> tuple[Array, tuple[()]]:
            return self.federation.learner.act(params, observation, key), ()

        collector = EpisodeCollector(self.environment, self.training_horizon, most, axis_names=self._axes_of_seeds)
        return collector.collect((), decide, key, None, count)[0]

    def _evaluate_round(
        self, params: PyTree, server: PyTree, agents: PyTree, *, position: Array, index: Array, key: PRNGKeyArray
    ) -> dict[str, Array]:
        """Evaluation in the rounds that have one, NaN in the others."""
        settings = self.config.evaluation
        pairs, around_pairs = self.pairs(settings.episodes, settings.seed), self.aggregation_pairs

        def table(params: PyTree, pairs: Pairs) -> dict[str, Array]:
            return self.evaluation.table(
                params,
                self.drawn(self.tested(self.draws), position),
                jax.random.key(settings.seed),
                None if pairs.environments is None else jnp.asarray(pairs.environments),
                episodes=pairs.episodes,
                personal=pairs.personal,
                axis_names=self._axes_of_seeds,
            )

        def measured() -> dict[str, Array]:
            found: dict[str, Array] = scores(table(params, pairs), pairs, mean=jnp.mean, least=jnp.min)
            if settings.aggregation:
                received = self.federation.after_broadcast(server, agents, key, index + 1)
                tables = {BEFORE: table(agents.params, around_pairs), AFTER: table(received, around_pairs)}
                found |= around(tables, around_pairs, mean=jnp.mean, least=jnp.min)
            return found

        if settings.every == 1:
            return measured()
        missing = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), jax.eval_shape(measured))
        return jax.lax.cond((index + 1) % settings.every == 0, measured, lambda: missing)


def _classes(part: Any) -> Iterator[type]:
    """The classes of an environment and of those in it: a name may have been given to another class since."""
    if isinstance(part, NativeEnvironment):
        yield type(part)
        part = tuple(vars(part).values())
    if isinstance(part, (tuple, list)):
        for each in part:
            yield from _classes(each)
