"""Consecutive steps of many agents from host environments, whose episodes run on between collections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from fedrax.environments.base import HostEnvironments, HostObservation, Steps
from fedrax.environments.faults import finite
from fedrax.environments.host_joined import joined


class HostStepCollector:
    """Steps groups of environments: one for all agents where they always act together, else one for each agent.

    An environment can only be stepped whole, and an agent that sits a round out must find its episodes as it left
    them. Within a group agent k owns copies ``k*c .. (k+1)*c - 1``, ``c = num_envs``.
    """

    def __init__(self, groups: Sequence[HostEnvironments], num_envs: int) -> None:
        if any(group.count % num_envs for group in groups):
            raise ValueError(f"every group of environments needs a multiple of {num_envs} copies")
        self.groups = [_Group(environments) for environments in groups]
        self.num_envs = num_envs

    def restart(self) -> None:
        """Forgets the running episodes; call it after the environments were reseeded.

        And whether they tell of success, which a process that goes on from a checkpoint does not know either.
        """
        for group in self.groups:
            group.observation, group.tells = None, False

    def restart_agents(self, rows: np.ndarray, ids: np.ndarray | None = None) -> None:
        """Starts fresh episodes for those of the agents that act, ``bool[m]``; ``ids`` as in :meth:`collect`."""
        chosen = self.groups if ids is None else [self.groups[index] for index in ids]
        restarting = np.repeat(rows, self.num_envs)
        ends = np.cumsum([group.environments.count for group in chosen])[:-1]
        for group, own in zip(chosen, np.split(restarting, ends), strict=True):
            if own.any():
                group.restart(own)

    def collect(
        self,
        decide: Callable[[HostObservation, int], tuple[np.ndarray, PyTree]],
        steps: int,
        ids: np.ndarray | None = None,
    ) -> Steps:
        """``steps`` steps of every copy, from where the last ones stopped.

        Args:
            decide: ``decide(observation[agents, num_envs, *o], step) -> (action[agents, num_envs, *a], extras)``,
                called with step 0, 1, ..., ``steps`` of this collection; extras ``[agents, num_envs, ...]``.
            steps: T of the result.
            ids: which groups act, ``int[m]``; unset, all. The others stand still.

        Returns:
            Steps of numpy arrays with leading axis ``[agents]``, those of the groups that act.
        """
        chosen = self.groups if ids is None else [self.groups[index] for index in ids]
        observations, rows = [joined([group.seen() for group in chosen])], []
        extras = []
        ends = np.cumsum([group.environments.count for group in chosen])[:-1]
        for step in range(steps):
            action, extra = decide(self._grouped(observations[-1]), step)
            extras.append(extra)
            action = action.reshape(-1, *action.shape[2:])
            parts = [group.step(part) for group, part in zip(chosen, np.split(action, ends), strict=True)]
            observation, *results = (joined(part) for part in zip(*parts, strict=True))
            observations.append(observation)
            rows.append((action, *results))
        extras.append(decide(self._grouped(observations[-1]), steps)[1])
        observation, *others = (self._by_agent(part) for part in (observations, *zip(*rows, strict=True)))
        *others, success = others
        if not any(group.tells for group in chosen):
            success = None
        leaves: Any = (observation, jax.tree.map(lambda *each: np.stack(each, 1), *extras), *others, success)
        return Steps(*leaves)

    def _grouped(self, rows: HostObservation) -> HostObservation:
        """Leaves ``[agents * num_envs, ...]`` as ``[agents, num_envs, ...]``, to act on."""
        return jax.tree.map(lambda x: x.reshape(-1, self.num_envs, *x.shape[1:]), finite(rows))

    def _by_agent(self, rows: Sequence[Any]) -> Any:
        """Leaves ``[T][agents * num_envs, ...]`` as ``[agents, T, num_envs, ...]``."""

        def one(*each: np.ndarray) -> np.ndarray:
            whole = np.stack(each)
            return whole.reshape(len(each), -1, self.num_envs, *whole.shape[2:]).swapaxes(0, 1)

        return jax.tree.map(one, *rows)


class _Group:
    """Environments that are stepped together, and where their episodes stand."""

    def __init__(self, environments: HostEnvironments) -> None:
        self.environments = environments
        self.observation: HostObservation | None = None
        self.tells = False
        """Whether the environments have said since the restart if a goal was reached."""

    def seen(self) -> HostObservation:
        """The current observations, of fresh episodes after a restart."""
        if self.observation is None:
            self.observation = self.environments.reset()
            self.over = np.zeros(self.environments.count, bool)
            self.returned = np.zeros(self.environments.count, np.float32)
            self.reached = np.zeros(self.environments.count, bool)
        return self.observation

    def restart(self, chosen: np.ndarray) -> None:
        """Fresh episodes in the chosen environments, ``bool[count]``."""
        fresh = self.environments.reset(chosen)

        def put(old: np.ndarray, new: np.ndarray) -> np.ndarray:
            return np.where(chosen.reshape(-1, *[1] * (old.ndim - 1)), new, old)

        self.observation = jax.tree.map(put, self.seen(), fresh)
        self.over[chosen] = False
        self.returned[chosen] = 0
        self.reached[chosen] = False

    def step(self, action: np.ndarray) -> tuple[HostObservation, ...]:
        """The next observations, and the rows of :class:`Steps` from ``reward`` on."""
        self.observation, reward, terminated, truncated = self.environments.step(action)
        success = self.environments.success
        self.tells |= success is not None
        valid = ~self.over
        terminated, truncated = terminated & valid, truncated & valid & ~terminated
        reward = np.where(valid, reward, np.float32(0))
        with np.errstate(over="ignore"):  # Found, named and dropped where it is learned from.
            self.returned = np.where(valid, self.returned + reward, np.float32(0))
        self.reached = valid & (self.reached if success is None else self.reached | success)
        self.over = terminated | truncated
        returned = np.where(self.over, self.returned, np.float32(0))
        return self.observation, reward, valid, terminated, truncated, returned, self.over & self.reached
