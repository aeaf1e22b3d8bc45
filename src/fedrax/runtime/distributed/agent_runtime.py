"""One agent's half of a round: what it does between receiving a broadcast and sending its message.

The functions are the simulation's, and keys are derived from (round, agent, purpose) as they are there; what they are
derived from is the node's own secret, or the run's seed, which makes the numbers the simulation's too.
"""

from __future__ import annotations

import abc
import dataclasses
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from fedrax.config import Config
from fedrax.environments.crash import placed
from fedrax.environments.faults import Fault
from fedrax.environments.goal_sets import held_out_of, single_goals
from fedrax.environments.host_collector import evaluate_host
from fedrax.federation import Cohort, Federation, Sending, Tally
from fedrax.learners.base import Agent, UpdateContext
from fedrax.message import Period, every_time
from fedrax.runtime.base import Runtime
from fedrax.runtime.collectors import empty_experience
from fedrax.runtime.compiling import jitted, quickly
from fedrax.runtime.distributed.checks import Counts, possible_counts
from fedrax.runtime.distributed.randomness import Randomness, fresh_key
from fedrax.runtime.group_verbs import GroupVerbs
from fedrax.runtime.host import HostRuntime
from fedrax.runtime.make import make_runtime
from fedrax.runtime.native import NativeRuntime
from fedrax.runtime.rounds import agent_report, agent_round, summed_reports
from fedrax.seeds import derive, host_seeds
from fedrax.strategies.base import Downlink, Strategy


class Order(NamedTuple):
    """What an agent is told, beside the broadcast, to do its part of a round: nothing of who else takes part."""

    byzantine: Array
    """Whether an attack governs it (simulated attacks only), bool."""
    tally: Tally
    """How far the run is."""
    clip: PyTree = ()
    """As :attr:`State.clip`."""


def order_shapes(federation: Federation) -> Order:
    """An order as bare shapes."""
    number, clip = jnp.asarray(0), federation.protection.first_clip
    return jax.eval_shape(lambda: Order(jnp.asarray(False), Tally(number, number, number, number, number), clip))


class AgentSnapshot(eqx.Module):
    """An agent between two rounds."""

    agent: Agent
    collector_state: PyTree
    """Of its native environments; () for others."""


class Done(NamedTuple):
    """What comes of a round at the agent."""

    snapshot: AgentSnapshot
    message: PyTree
    report: dict[str, Any]
    """Also its fault, int32 ``[4]``: where there is one, the snapshot is that of before, and the message zeros."""


class AgentRuntime(abc.ABC):
    """The agent at ``index``, in its own environments."""

    runtime: Runtime
    """Of a simulation, whose programs for one agent these are."""

    def __init__(self, config: Config, federation: Federation, index: int, randomness: Randomness) -> None:
        self.config = config
        self.federation = federation
        self.index = index
        self.key, self.seed = randomness

    def noise_share(self, episodes: int) -> float:
        """The deviation of the noise on its integers in a secure sum, asked for so many episodes."""
        return float(self.federation.protection.share_of_noise(episodes))

    def counts(self, episodes: int) -> Counts:
        """What the agent can have collected in a round, asked for so many episodes."""
        horizon = self.runtime.training_horizon
        return possible_counts(self.federation, self.config.environment.num_envs, horizon, episodes)

    @property
    def noise_key(self) -> PRNGKeyArray | None:
        """What the noise on the next message is drawn from; None: as in the simulation, from the round's key."""
        noisy = self.federation.protection.noise > 0 and self.federation.protection.model != "central"
        return fresh_key() if noisy and not self.config.runtime.shared_seeds else None

    @abc.abstractmethod
    def start(self) -> AgentSnapshot:
        """The agent before its first round."""

    @abc.abstractmethod
    def work(self, snapshot: AgentSnapshot, downlink: PyTree, order: Order, round: int) -> Done:
        """The agent's part of a round; ``snapshot`` is donated."""

    @abc.abstractmethod
    def evaluate(self, params: PyTree, *, episodes: int, seed: int) -> dict[str, np.ndarray]:
        """Named arrays ``[episodes]`` of a policy in the agent's environment, as :attr:`Evaluation.table`."""

    def fresh(self) -> Agent:
        """The agent's first networks: those that the configuration yields, which the server may know."""
        return self.federation.fresh(jax.random.key(self.config.seed), jnp.asarray(self.index))

    def sending(self, downlink: Downlink, order: Order, round: Array | int, secret: PRNGKeyArray | None) -> Sending:
        """What the round's message depends on beside the agent; what all share in compression is no secret."""
        key = derive(jax.random.key(self.config.seed), "round", round)
        return self.federation.sending(downlink, order.tally.rounds, key, order.clip, secret)

    def own_policy(self, snapshot: AgentSnapshot) -> PyTree:
        """The networks the agent has."""
        return snapshot.agent.params

    def close(self) -> None:  # noqa: B027  (native environments need no freeing)
        """Frees environments."""


class NativeAgentRuntime(AgentRuntime):
    """In environments in JAX: the simulation's own program of one agent's round."""

    runtime: NativeRuntime

    def __init__(self, config: Config, runtime: NativeRuntime, index: int, randomness: Randomness) -> None:
        super().__init__(config, runtime.federation, index, randomness)
        self.runtime = runtime
        self.physics = jax.tree.map(lambda x: x[index], runtime.drawn(runtime.agents_draws, 0))
        self.tested = runtime.tested(self.physics)
        compiled = partial(jitted, quick=quickly(config))
        self._work = compiled(self._round, donate_argnums=0)
        self._evaluate = compiled(partial(runtime.evaluation.episodes, axis_names=()), static_argnames="episodes")

    def start(self) -> AgentSnapshot:
        """The agent, and its environments' first states."""
        return jitted(self._start)()

    def _start(self) -> AgentSnapshot:
        agent = self.fresh()
        key = derive(self.key, "environment", self.index)
        return AgentSnapshot(agent, self.runtime.collector.start(key, self.physics))

    def work(self, snapshot: AgentSnapshot, downlink: PyTree, order: Order, round: int) -> Done:
        """One compiled call."""
        return self._work(snapshot, downlink, order, jnp.asarray(round), self.noise_key)

    def _round(
        self, snapshot: AgentSnapshot, downlink: PyTree, order: Order, round: Array, secret: PRNGKeyArray | None
    ) -> Done:
        inputs = (
            snapshot.agent,
            jnp.asarray(self.index),
            order.byzantine,
            None,
            self.physics,
            snapshot.collector_state,
        )
        key = derive(self.key, "round", round)
        agent, collector_state, message, report = self.runtime._agent_round(
            inputs, downlink=downlink, key=key, tally=order.tally, sending=self.sending(downlink, order, round, secret)
        )
        return Done(AgentSnapshot(agent, collector_state), message, report)

    def evaluate(self, params: PyTree, *, episodes: int, seed: int) -> dict[str, np.ndarray]:
        """In the agent's own physics."""
        measured = self._evaluate(params, self.tested, jax.random.key(seed), episodes=episodes)
        return {name: np.asarray(array) for name, array in measured.items()}


class HostAgentRuntime(AgentRuntime):
    """In environments that Python steps.

    They start anew every ``checkpoint.every`` rounds, as the simulation's do, and whenever the agent's process does.
    """

    runtime: HostRuntime

    def __init__(self, config: Config, runtime: HostRuntime, index: int, randomness: Randomness) -> None:
        super().__init__(config, runtime.federation, index, randomness)
        self.runtime, self.programs = runtime, runtime.programs
        self.environments = runtime.environments_of(0, self.seed, [range(index, index + 1)], server=False)
        self.seeded: int | None = None
        """The round that the environments' seeds are of."""

    def start(self) -> AgentSnapshot:
        """The agent; its environments' states cannot be kept."""
        return AgentSnapshot(jitted(self.fresh)(), ())

    def work(self, snapshot: AgentSnapshot, downlink: PyTree, order: Order, round: int) -> Done:
        """As :meth:`HostRuntime._round` for one agent."""
        first = round - round % self.config.checkpoint.every
        if self.seeded != first:
            self.environments.reseed(first)
            self.seeded = first

        def before() -> Agent:
            return jax.tree.map(lambda x: x[None], snapshot.agent)

        alone = Cohort(jnp.asarray([self.index]), jnp.asarray(order.byzantine)[None], jnp.ones(1, bool))
        verbs = GroupVerbs(
            self.programs,
            self.programs.groups(before(), alone.ids, alone.byzantine),
            downlink,
            derive(self.key, "round", round),
            sending=self.sending(downlink, order, round, self.noise_key),
            collect=lambda decide: self.environments.collect(decide, alone, downlink),
            progress=partial(self.runtime.progress, order.tally),
            before=before,
        )
        agents, message, report = jax.tree.map(lambda x: x[0], agent_round(verbs))
        return Done(AgentSnapshot(agents, ()), message, report)

    def evaluate(self, params: PyTree, *, episodes: int, seed: int) -> dict[str, np.ndarray]:
        """In fresh instances of the agent's environment."""
        runtime = self.runtime
        draws = runtime.sites_draws(0)
        held_out = runtime.config.environment.held_out_goals
        parameters = single_goals(held_out_of(draws[self.index], held_out), episodes) if draws else None
        environments = runtime._make(episodes, runtime.evaluation_horizon, parameters)
        try:
            environments.reseed(host_seeds((episodes,), seed, "evaluation"))
            act = self.programs.evaluated_actor(params, runtime._evaluation_key(seed), agents=None)
            with placed(lambda crash: crash.of(f"an evaluation of agent {self.index}")):
                return evaluate_host(environments, act)
        finally:
            environments.close()

    def close(self) -> None:
        """Frees the environments."""
        self.environments.close()
        self.runtime.close()


def make_agent_runtime(config: Config, index: int, randomness: Randomness) -> AgentRuntime:
    """The runtime of the agent at ``index`` in the federation that ``config`` describes.

    Raises:
        FedraxError: a configuration that cannot run, in one line.
    """
    alone = config.model_copy(update={"runtime": config.runtime.model_copy(update={"agents_per_batch": 1})})
    runtime = make_runtime(alone, agents=False)
    if isinstance(runtime, NativeRuntime):
        return NativeAgentRuntime(alone, runtime, index, randomness)
    assert isinstance(runtime, HostRuntime)
    return HostAgentRuntime(alone, runtime, index, randomness)


def travel_period(config: Config, strategy: Strategy) -> Period:
    """How often each array of messages and broadcasts travels: always, where rounds overlap."""
    return every_time if config.runtime.flower.staleness else strategy.period


def report_shapes(federation: Federation, num_envs: int) -> dict[str, Any]:
    """What an agent reports beside its message, as bare shapes."""
    learner, strategy = federation.learner, federation.strategy

    def report() -> dict[str, Any]:
        key = jax.random.key(0)
        agent = dataclasses.replace(federation.fresh(key, jnp.asarray(0)), residual=())
        downlink = strategy.broadcast(federation.init(key).server, key)
        agent = strategy.absorb(agent, downlink, jnp.asarray(0))
        context = strategy.context(agent, downlink, jnp.asarray(0))
        agent = strategy.begin(learner, agent, context, key)
        experience = empty_experience(federation, agent, num_envs)
        _, learning = strategy.work(learner, agent, experience, UpdateContext(key, jnp.asarray(0.0), context))
        report = agent_report(experience, learning, detailed=federation.detailed)
        updates = federation.local_updates
        reports = jax.tree.map(lambda x: jnp.broadcast_to(x, (updates, *jnp.shape(x))), report)
        return summed_reports(reports) | {"fault": Fault.none().row}

    return jax.eval_shape(report)
