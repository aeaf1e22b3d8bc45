"""Whole episodes of many agents from a host environment.

Each agent owns some copies and a queue of episodes to run. A copy that finishes one takes its agent's next,
and every episode started is run to its end and kept: keeping whichever finish first would favour short ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fedrax.environments.base import Episodes, HostEnvironments, HostObservation
from fedrax.environments.faults import finite
from fedrax.environments.success import SuccessCount

LENGTH_STEP = 64
"""Returned episodes are padded to a multiple of this, so that what consumes them is seldom compiled anew."""


class HostCollector:
    """Collects for agents of ``c = num_envs`` copies each; agent k owns copies k*c .. (k+1)*c - 1."""

    def __init__(self, environments: HostEnvironments, agents: int, num_envs: int) -> None:
        if environments.count != agents * num_envs:
            raise ValueError(f"{agents} agents of {num_envs} copies need as many environments")
        self.environments = environments
        self.agents = agents
        self.num_envs = num_envs

    def collect(
        self,
        act: Callable[[HostObservation, int], np.ndarray],
        counts: np.ndarray,
        max_count: int,
        horizon: int,
    ) -> Episodes:
        """Runs exactly ``counts[k]`` episodes of each agent k.

        Starts from a reset of every copy, so that no episode began under an earlier policy. Copies whose
        agent's queue is empty are stepped along and ignored.

        Args:
            act: ``act(observation[agents, num_envs, *o], step) -> action[agents, num_envs, *a]``, called with
                step 0, 1, ... of this collection.
            counts: ``int[agents]``, each at most ``max_count``, and not all 0.
            max_count: B of the result; episodes from ``counts[k]`` on are padding.
            horizon: most steps of an episode, which must be the environments' own time limit (``make_host``'s
                ``max_episode_steps``): only they can start the episode that follows a truncated one.

        Returns:
            Episodes of numpy arrays with leading axis ``[agents]``. T is the longest episode's length,
            rounded up to a multiple of ``LENGTH_STEP``, or to ``horizon``. Padding is 0.
        """
        limit = self.environments.time_limit
        if limit != horizon:
            raise ValueError(f"the environments end episodes after {limit} steps, not {horizon}")
        queue = _Queue(np.asarray(counts), self.num_envs, max_count)
        observations, actions, rewards = [], [], []
        successes: list[np.ndarray | None] = []
        observation = self.environments.reset()
        step = 0
        while queue.running:
            action = act(self._grouped(observation), step)
            action = action.reshape(-1, *action.shape[2:])
            observations.append(observation)
            actions.append(action)
            observation, reward, terminated, truncated = self.environments.step(action, queue.busy)
            rewards.append(reward)
            successes.append(self.environments.success)
            step += 1
            over = terminated | truncated
            if over.any():
                queue.finish(over, terminated, step)
        longest = int(queue.length.max())
        index, valid = queue.locate(min(-(-longest // LENGTH_STEP) * LENGTH_STEP, horizon))

        def gather(*rows: np.ndarray) -> np.ndarray:
            stream = np.concatenate(rows)
            episodes = stream[index]
            episodes[~valid] = 0
            return episodes

        success = None
        if any(each is not None for each in successes):
            nothing = np.zeros(self.environments.count, bool)
            success = gather(*(nothing if each is None else each for each in successes)).any(1)
        columns = (jax.tree.map(gather, *rows) for rows in (observations, actions, rewards))
        leaves: Any = (*columns, valid, queue.terminated, success)
        return Episodes(*leaves)

    def _grouped(self, observation: HostObservation) -> HostObservation:
        """Leaves ``[agents * num_envs, ...]`` as ``[agents, num_envs, ...]``, to act on."""
        return jax.tree.map(lambda x: x.reshape(self.agents, self.num_envs, *x.shape[1:]), finite(observation))


def evaluate_host(
    environments: HostEnvironments, act: Callable[[HostObservation, int], np.ndarray]
) -> dict[str, np.ndarray]:
    """One episode in each copy, from a reset of all, as named arrays ``[num_envs]``.

    ``return`` is undiscounted (float64), ``length`` in steps (int64); success as in
    :mod:`fedrax.environments.success` where the environment says so. Nothing is stored.
    ``act(observation[num_envs, *o], step) -> action[num_envs, *a]``.
    """
    observation = environments.reset()
    returns = np.zeros(environments.count)
    lengths = np.zeros(environments.count, np.int64)
    alive = np.ones(environments.count, bool)
    success = SuccessCount(environments.count)
    step = 0
    while alive.any():
        observation, reward, terminated, truncated = environments.step(act(finite(observation), step), alive)
        step += 1
        returns[alive] += reward[alive]
        lengths += alive
        success.add(environments.success, alive)
        alive &= ~(terminated | truncated)
    return {"return": returns, "length": lengths, **success.arrays(lengths)}


class _Queue:
    """Which copy runs which of its agent's episodes, and where in the stream of steps each episode lies."""

    def __init__(self, counts: np.ndarray, num_envs: int, max_count: int) -> None:
        agents = len(counts)
        if counts.max() > max_count or counts.max() < 1:
            raise ValueError(f"counts {counts.tolist()} must be between 0 and {max_count}, and not all 0")
        self.counts = counts
        self.num_envs = num_envs
        self.left = int(counts.sum())
        first = np.broadcast_to(np.arange(num_envs), (agents, num_envs))
        self.episode = np.where(first < counts[:, None], first, -1)
        """Index of the episode that each copy runs, -1 for an idle copy; ``[agents, num_envs]``."""
        self.upcoming = np.minimum(counts, num_envs)
        self.begin = np.zeros((agents, max_count), np.int64)
        self.copy = np.broadcast_to(np.arange(max_count) % num_envs, (agents, max_count)).copy()
        self.length = np.zeros((agents, max_count), np.int64)
        self.terminated = np.zeros((agents, max_count), bool)

    @property
    def running(self) -> bool:
        """Whether an episode that was asked for is not over."""
        return self.left > 0

    @property
    def busy(self) -> np.ndarray:
        """Which copies run an episode that was asked for, ``bool[agents * num_envs]``."""
        return (self.episode >= 0).ravel()

    def finish(self, over: np.ndarray, terminated: np.ndarray, step: int) -> None:
        """Copies ``over[agents * num_envs]`` ended their episodes after ``step`` steps: gives them new ones."""
        agent, copy = np.nonzero(over.reshape(self.episode.shape) & (self.episode >= 0))
        done = self.episode[agent, copy]
        self.length[agent, done] = step - self.begin[agent, done]
        self.terminated[agent, done] = terminated.reshape(self.episode.shape)[agent, copy]
        self.left -= len(agent)

        # nonzero sorts by agent, so a copy's rank among its agent's is its distance from the first of them.
        following = self.upcoming[agent] + np.arange(len(agent)) - np.searchsorted(agent, agent)
        more = following < self.counts[agent]
        self.episode[agent, copy] = np.where(more, following, -1)
        agent, copy, following = agent[more], copy[more], following[more]
        # The coming step resets these copies; the episode begins with the one after it.
        self.begin[agent, following] = step + 1
        self.copy[agent, following] = copy
        self.upcoming += np.bincount(agent, minlength=len(self.upcoming))

    def locate(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Row of the stream ``[steps * num_envs]`` for ``[agents, T, B]``, and where there is one (else 0)."""
        time = np.arange(steps)[:, None]
        valid = time < self.length[:, None]
        owned = np.arange(len(self.counts))[:, None] * self.num_envs + self.copy
        row = (self.begin[:, None] + time) * self.episode.size + owned[:, None]
        return np.where(valid, row, 0), valid
