"""Host environments of several tasks that step together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np

from fedrax.environments.base import HostEnvironments, HostObservation, zero_observations
from fedrax.environments.crash import crash_among
from fedrax.environments.tasks import Mixture


class MixedEnvironments(HostEnvironments):
    """Copies of the tasks of a mixture; those of one task step together, wherever they stand among all."""

    def __init__(
        self, mixture: Mixture, tasks: Sequence[int], make: Callable[[int, np.ndarray], HostEnvironments]
    ) -> None:
        """Args:
        mixture: of all tasks.
        tasks: each copy's.
        make: from a task and the numbers of its copies to the copies.
        """
        self.mixture, self.spaces, self.count = mixture, mixture.spaces, len(tasks)
        self._places = {task: np.flatnonzero(np.asarray(tasks) == task) for task in sorted(set(tasks))}
        self._parts = {task: make(task, places) for task, places in self._places.items()}
        self.time_limit = min(part.time_limit for part in self._parts.values())

    @property
    def success(self) -> np.ndarray | None:
        """That of all tasks, False in those that say nothing, or have not been stepped."""
        each = {task: part.success for task, part in self._parts.items()}
        if all(one is None for one in each.values()):
            return None
        together = np.zeros(self.count, bool)
        for task, places in self._places.items():
            own = each[task]
            if own is not None:
                together[places] = own
        return together

    def reseed(self, seeds: np.ndarray) -> None:
        """Each copy from its own seed."""
        for task, places in self._places.items():
            self._parts[task].reseed(seeds[places])

    def reset(self, chosen: np.ndarray | None = None) -> HostObservation:
        """Starts a fresh episode in every copy, or the chosen ones."""
        together = zero_observations(self.spaces.observation, (self.count,))
        for task, places in self._places.items():
            own = None if chosen is None else chosen[places]
            if own is None or own.any():
                with crash_among(self, places):
                    self._put(together, task, self._parts[task].reset(own))
        return together

    def step(
        self, actions: np.ndarray, active: np.ndarray | None = None
    ) -> tuple[HostObservation, np.ndarray, np.ndarray, np.ndarray]:
        """One step of every task of which a copy is active."""
        together = zero_observations(self.spaces.observation, (self.count,))
        reward = np.zeros(self.count, np.float32)
        terminated, truncated = np.zeros(self.count, bool), np.zeros(self.count, bool)
        for task, places in self._places.items():
            own = None if active is None else active[places]
            if own is not None and not own.any():
                continue
            with crash_among(self, places):
                observation, *rest = self._parts[task].step(actions[places], own)
            self._put(together, task, observation)
            for whole, part in zip((reward, terminated, truncated), rest, strict=True):
                whole[places] = part
        return together, reward, terminated, truncated

    def close(self) -> None:
        """Frees all copies."""
        for part in self._parts.values():
            part.close()

    def _put(self, together: HostObservation, task: int, observation: HostObservation) -> None:
        """Writes a task's rows among all."""

        def put(whole: np.ndarray, part: np.ndarray) -> None:
            whole[self._places[task]] = part

        jax.tree.map(put, together, self.mixture.seen(task, observation))
