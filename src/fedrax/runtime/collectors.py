"""Where agents' experience comes from, one local update at a time.

Learners take whole episodes, or steps of episodes that run on from one collection to the next. Which of the two is
asked here alone; a runtime knows a collector.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from fedrax.environments.base import (
    Episodes,
    Experience,
    HostEnvironments,
    HostObservation,
    NativeEnvironment,
    Steps,
    zero_observations,
)
from fedrax.environments.host_collector import HostCollector
from fedrax.environments.host_joined import JoinedEnvironments
from fedrax.environments.host_steps import HostStepCollector
from fedrax.environments.native_collector import collect_episodes
from fedrax.environments.native_steps import Decide, collect_steps, restarted, start_steps
from fedrax.federation import Federation
from fedrax.learners.base import Agent

Physics = dict[str, Any] | None
"""An agent's parameters by name; None, the environment's own."""
HostDecider = Callable[[HostObservation, int], tuple[np.ndarray, PyTree]]
"""``decide(observation[agents, num_envs, *o], step) -> (action[agents, num_envs, *a], extras)``."""


class Collector(Protocol):
    """Collects for ONE agent in pure JAX, to be mapped over agents and seeds.

    Its state is part of the agent's side of the federation, and is saved with it.
    """

    def start(self, key: PRNGKeyArray, physics: Physics) -> PyTree:
        """The state before the first collection."""

    def collect(
        self, state: Any, decide: Decide, key: PRNGKeyArray, physics: Physics, episodes: Array | int
    ) -> tuple[Experience, Any]:
        """The experience of one local update, and the state after it.

        ``episodes`` is how many the broadcast asks for, where whole ones are collected.
        """

    def restarted(self, state: Any) -> Any:
        """The state with every running episode given up: the next collection starts new ones."""


@dataclasses.dataclass(frozen=True)
class EpisodeCollector:
    """Whole episodes, each from a reset: nothing is kept between collections."""

    environment: NativeEnvironment
    horizon: int
    most: int
    """Episodes of a collection, padding included."""
    per_copy: bool = False
    """Whether each has physical parameters of its own."""
    axis_names: tuple[str, ...] = ()
    """As of :func:`collect_episodes`."""

    def start(self, key: PRNGKeyArray, physics: Physics) -> tuple[()]:
        """Nothing."""
        return ()

    def collect(
        self, state: tuple[()], decide: Decide, key: PRNGKeyArray, physics: Physics, episodes: Array | int
    ) -> tuple[Episodes, tuple[()]]:
        """As many as asked for."""
        collected = collect_episodes(
            self.environment,
            self.environment.physics() if physics is None else physics,
            lambda observation, k: decide(observation, k)[0],
            key,
            count=episodes,
            max_count=self.most,
            horizon=self.horizon,
            per_copy=self.per_copy,
            axis_names=self.axis_names,
        )
        return collected, ()

    def restarted(self, state: tuple[()]) -> tuple[()]:
        """Nothing runs on."""
        return state


@dataclasses.dataclass(frozen=True)
class StepCollector:
    """A fixed number of steps of each copy, from where the last ones stopped."""

    environment: NativeEnvironment
    horizon: int
    steps: int
    num_envs: int
    per_copy: bool = False
    """Whether each copy has physical parameters of its own."""

    def start(self, key: PRNGKeyArray, physics: Physics) -> Any:
        """Fresh episodes."""
        table = self.environment.physics() if physics is None else physics
        return start_steps(self.environment, table, key, num_envs=self.num_envs, per_copy=self.per_copy)

    def collect(
        self, state: Any, decide: Decide, key: PRNGKeyArray, physics: Physics, episodes: Array | int
    ) -> tuple[Steps, Any]:
        """Always as many."""
        return collect_steps(
            self.environment,
            self.environment.physics() if physics is None else physics,
            decide,
            key,
            state,
            steps=self.steps,
            horizon=self.horizon,
            per_copy=self.per_copy,
        )

    def restarted(self, state: Any) -> Any:
        """As :func:`restarted`."""
        return restarted(state)


class HostAgentsCollector(Protocol):
    """Collects for many agents side by side from environments that Python steps, and that keep their own state."""

    def collect(self, decide: HostDecider, ids: np.ndarray | None, episodes: int) -> Experience:
        """The experience of one local update in NumPy arrays, leaves ``[agents, ...]``.

        ``ids`` are the groups of environments whose agents act, ``int[m]``; None, all. ``episodes`` is how many the
        broadcast asks for, where whole ones are collected.
        """

    def restart(self) -> None:
        """Forgets the running episodes; call it after the environments were reseeded."""

    def restart_agents(self, rows: np.ndarray, ids: np.ndarray | None) -> None:
        """Starts fresh episodes for those of the agents that act, ``bool[m]``."""


class HostEpisodes:
    """Whole episodes, each collection from a reset of every copy."""

    def __init__(self, groups: Sequence[HostEnvironments], num_envs: int, most: int, horizon: int) -> None:
        self.groups, self.num_envs, self.most, self.horizon = list(groups), num_envs, most, horizon

    def collect(self, decide: HostDecider, ids: np.ndarray | None, episodes: int) -> Episodes:
        """As many of each agent as asked for."""
        acting = self.groups[0] if ids is None else JoinedEnvironments([self.groups[index] for index in ids])
        agents = acting.count // self.num_envs

        def act(observation: HostObservation, step: int) -> np.ndarray:
            return decide(observation, step)[0]

        collector = HostCollector(acting, agents, self.num_envs)
        return collector.collect(act, np.full(agents, episodes), self.most, self.horizon)

    def restart(self) -> None:
        """Nothing runs on."""

    def restart_agents(self, rows: np.ndarray, ids: np.ndarray | None) -> None:
        """Nothing runs on."""


class HostSteps:
    """A fixed number of steps of each copy, from where the last ones stopped."""

    def __init__(self, groups: Sequence[HostEnvironments], num_envs: int, steps: int) -> None:
        self.collector, self.steps = HostStepCollector(groups, num_envs), steps

    def collect(self, decide: HostDecider, ids: np.ndarray | None, episodes: int) -> Steps:
        """Always as many."""
        return self.collector.collect(decide, self.steps, ids)

    def restart(self) -> None:
        """All of them."""
        self.collector.restart()

    def restart_agents(self, rows: np.ndarray, ids: np.ndarray | None) -> None:
        """Those of some agents."""
        self.collector.restart_agents(rows, ids)


def collected_copies(federation: Federation, num_envs: int) -> int:
    """How many copies of its environment one agent's collection comes from: one for each episode, where whole ones."""
    return federation.strategy.max_episodes if federation.learner.episodic else num_envs


def collected_steps(federation: Federation, num_envs: int, horizon: int) -> int:
    """The most environment steps of one agent's collection."""
    return collected_copies(federation, num_envs) * (federation.learner.steps or horizon)


def make_collector(
    federation: Federation,
    environment: NativeEnvironment,
    *,
    num_envs: int,
    horizon: int,
    per_copy: bool,
    axis_names: tuple[str, ...],
) -> Collector:
    """What the federation's learner learns from in an environment in JAX."""
    steps = federation.learner.steps
    if steps is None:
        return EpisodeCollector(environment, horizon, federation.strategy.max_episodes, per_copy, axis_names)
    return StepCollector(environment, horizon, steps, num_envs, per_copy)


def make_host_collector(
    federation: Federation, groups: Sequence[HostEnvironments], *, num_envs: int, horizon: int
) -> HostAgentsCollector:
    """The same in groups of environments that Python steps, ``num_envs`` (:func:`host_copies`) of each agent."""
    steps = federation.learner.steps
    if steps is None:
        return HostEpisodes(groups, num_envs, federation.strategy.max_episodes, horizon)
    return HostSteps(groups, num_envs, steps)


def host_copies(federation: Federation, num_envs: int) -> int:
    """How many copies of an environment that Python steps one agent has: no more than it collects episodes."""
    return min(num_envs, collected_copies(federation, num_envs))


def empty_experience(federation: Federation, agent: Agent, num_envs: int) -> Experience:
    """Experience of one agent's collection in the right shapes, and no content."""
    learner, space = federation.learner, federation.spaces
    steps, key = learner.steps, jax.random.key(0)
    if steps is None:
        count = federation.strategy.max_episodes
        observation = jax.tree.map(jnp.asarray, zero_observations(space.observation, (1, count)))
        action = learner.act(learner.acting(agent.params), jax.tree.map(lambda x: x[0], observation), key)[None]
        no = jnp.zeros((1, count), bool)
        return Episodes(observation, action, jnp.zeros((1, count)), no, no[0])
    observation = jax.tree.map(jnp.asarray, zero_observations(space.observation, (steps + 1, num_envs)))
    first = jax.tree.map(lambda x: x[0], observation)
    action, extras = learner.decide(learner.acting(agent.params), first, key)
    actions = jnp.broadcast_to(action, (steps, *action.shape))
    extra = jax.tree.map(lambda x: jnp.broadcast_to(x, (steps + 1, *x.shape)), extras)
    no, zero = jnp.zeros((steps, num_envs), bool), jnp.zeros((steps, num_envs))
    return Steps(observation, extra, actions, zero, no, no, no, zero)
