"""Consecutive steps of many agents from host environments, whose episodes run on between collections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from fedrax.environments.base import HostEnvironments, Steps
from fedrax.environments.faults import finite


class HostStepCollector:
    """Steps groups of environments: one for all agents where they always act together, else one for each agent.

    An environment can only be stepped whole, and an agent that sits a round out must find its episodes as it left
    them. Within a group agent k owns copies ``k*c .. (k+1)*c - 1``, ``c = copies_per_agent``.
    """

    def __init__(self, groups: Sequence[HostEnvironments], copies_per_agent: int) -> None:
        if any(group.count % copies_per_agent for group in groups):
            raise ValueError(f"every group of environments needs a multiple of {copies_per_agent} copies")
        self.groups = [_Group(environments) for environments in groups]
        self.copies = copies_per_agent

    def restart(self) -> None:
        """Forgets the running episodes; call it after the environments were reseeded."""
        for group in self.groups:
            group.observation = None

    def restart_agents(self, rows: np.ndarray, ids: np.ndarray | None = None) -> None:
        """Starts fresh episodes for those of the agents that act, ``bool[m]``; ``ids`` as in :meth:`collect`."""
        chosen = self.groups if ids is None else [self.groups[index] for index in ids]
        copies = np.repeat(rows, self.copies)
        ends = np.cumsum([group.environments.count for group in chosen])[:-1]
        for group, own in zip(chosen, np.split(copies, ends), strict=True):
            if own.any():
                group.restart(own)

    def collect(
        self, decide: Callable[[np.ndarray, int], tuple[np.ndarray, PyTree]], steps: int, ids: np.ndarray | None = None
    ) -> Steps:
        """``steps`` steps of every copy, from where the last ones stopped.

        Args:
            decide: ``decide(observation[agents, copies, *o], step) -> (action[agents, copies, *a], notes)``, called
                with step 0, 1, ..., ``steps`` of this collection; notes ``[agents, copies, ...]``.
            steps: T of the result.
            ids: which groups act, ``int[m]``; unset, all. The others stand still.

        Returns:
            Steps of numpy arrays with leading axis ``[agents]``, those of the groups that act.
        """
        chosen = self.groups if ids is None else [self.groups[index] for index in ids]
        observations, rows = [_joined([group.seen() for group in chosen])], []
        notes = []
        ends = np.cumsum([group.environments.count for group in chosen])[:-1]
        for step in range(steps):
            action, noted = decide(self._grouped(observations[-1]), step)
            notes.append(noted)
            action = action.reshape(-1, *action.shape[2:])
            parts = [group.step(part) for group, part in zip(chosen, np.split(action, ends), strict=True)]
            observation, *results = (_joined(list(part)) for part in zip(*parts, strict=True))
            observations.append(observation)
            rows.append((action, *results))
        notes.append(decide(self._grouped(observations[-1]), steps)[1])
        observation, *others = (self._by_agent(part) for part in (observations, *zip(*rows, strict=True)))
        leaves: Any = (observation, jax.tree.map(lambda *each: np.stack(each, 1), *notes), *others)
        return Steps(*leaves)

    def _grouped(self, rows: np.ndarray) -> np.ndarray:
        """Rows ``[agents * copies, ...]`` as ``[agents, copies, ...]``, to act on."""
        return finite(rows).reshape(-1, self.copies, *rows.shape[1:])

    def _by_agent(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Rows ``[T][agents * copies, ...]`` as ``[agents, T, copies, ...]``."""
        whole = np.stack(rows)
        return whole.reshape(len(rows), -1, self.copies, *whole.shape[2:]).swapaxes(0, 1)


class _Group:
    """Environments that are stepped together, and where their episodes stand."""

    def __init__(self, environments: HostEnvironments) -> None:
        self.environments = environments
        self.observation: np.ndarray | None = None

    def seen(self) -> np.ndarray:
        """The current observations, of fresh episodes after a restart."""
        if self.observation is None:
            self.observation = self.environments.reset()
            self.over = np.zeros(self.environments.count, bool)
            self.returned = np.zeros(self.environments.count, np.float32)
        return self.observation

    def restart(self, copies: np.ndarray) -> None:
        """Fresh episodes in some of the copies, ``bool[copies]``."""
        fresh = self.environments.reset(copies)
        self.observation = self.seen().copy()
        self.observation[copies] = fresh[copies]
        self.over[copies] = False
        self.returned[copies] = 0

    def step(self, action: np.ndarray) -> tuple[np.ndarray, ...]:
        """The next observations, and the rows of :class:`Steps` from ``reward`` on."""
        self.observation, reward, terminated, truncated = self.environments.step(action)
        valid = ~self.over
        terminated, truncated = terminated & valid, truncated & valid & ~terminated
        reward = np.where(valid, reward, np.float32(0))
        self.returned = np.where(valid, self.returned + reward, np.float32(0))
        self.over = terminated | truncated
        returned = np.where(self.over, self.returned, np.float32(0))
        return self.observation, reward, valid, terminated, truncated, returned


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
