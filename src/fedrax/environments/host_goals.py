"""Host environments that start at goals of an agent's own, by the seeds of their resets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import jax
import numpy as np

from fedrax.environments.base import HostEnvironments, HostObservation, Spaces, zero_observations
from fedrax.environments.crash import crash_among
from fedrax.environments.goal_sets import GoalCycle, GoalSet


class SeededResets(gymnasium.Wrapper):
    """A copy by Gymnasium, each of whose resets has the seed of one of its goals."""

    def __init__(self, environment: gymnasium.Env, goals: GoalSet) -> None:
        super().__init__(environment)
        self._cycle = GoalCycle(goals)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """At the next goal; a seed says in which order they come."""
        if seed is not None:
            self._cycle.reseed(seed)
        return self.env.reset(seed=next(self._cycle), options=options)


class SeededPools(HostEnvironments):
    """Copies that an engine can only seed when it makes them, as EnvPool does: a reset makes those copies anew.

    Copies that are reset together are one pool, and stay in it until their own next reset. So where all episodes have
    the same length, there is one pool, made anew for each of them (some 20 ms for a copy of Meta-World).
    """

    def __init__(
        self, goals: Sequence[GoalSet], spaces: Spaces, time_limit: int, make: Callable[[int], HostEnvironments]
    ) -> None:
        """Args:
        goals: of each copy.
        spaces: of each copy.
        time_limit: of each copy.
        make: from a number of copies to these, which their first reset starts.
        """
        self.spaces, self.count, self.time_limit = spaces, len(goals), time_limit
        self._cycles = [GoalCycle(each) for each in goals]
        self._make = make
        self._pools: dict[int, tuple[HostEnvironments, np.ndarray]] = {}
        """Pools and which copies theirs were, by number."""
        self._made = 0
        self._pool_of = np.full(self.count, -1)
        self._over = np.zeros(self.count, bool)
        """Copies whose next step is a reset."""
        self._success: np.ndarray | None = None

    @property
    def success(self) -> np.ndarray | None:
        """As the pools say."""
        return self._success

    def reseed(self, seeds: np.ndarray) -> None:
        """The order of every copy's goals from its seed."""
        for cycle, seed in zip(self._cycles, seeds, strict=True):
            cycle.reseed(int(seed))

    def reset(self, chosen: np.ndarray | None = None) -> HostObservation:
        """Makes a pool of every copy, or the chosen ones."""
        places = np.arange(self.count) if chosen is None else np.flatnonzero(chosen)
        pool = self._make(len(places))
        self._pools[self._made] = (pool, places)
        self._pool_of[places], self._over[places] = self._made, False
        self._made += 1
        for number in [number for number in self._pools if not (self._pool_of == number).any()]:
            self._pools.pop(number)[0].close()
        pool.reseed(np.array([next(self._cycles[place]) for place in places]))
        together = zero_observations(self.spaces.observation, (self.count,))
        with crash_among(self, places):
            _put(together, places, pool.reset())
        return together

    def step(
        self, actions: np.ndarray, active: np.ndarray | None = None
    ) -> tuple[HostObservation, np.ndarray, np.ndarray, np.ndarray]:
        """One step of the active copies; a reset of those that were over."""
        active = np.ones(self.count, bool) if active is None else active
        starting = active & self._over
        together = zero_observations(self.spaces.observation, (self.count,))
        reward = np.zeros(self.count, np.float32)
        terminated, truncated, success = (np.zeros(self.count, bool) for _ in range(3))
        for number, (pool, places) in self._pools.items():
            own = (self._pool_of[places] == number) & active[places] & ~starting[places]
            if not own.any():
                continue
            with crash_among(self, places):
                observation, *rest = pool.step(actions[places], own)
            _put(together, places[own], jax.tree.map(lambda x, own=own: x[own], observation))
            for whole, part in zip((reward, terminated, truncated), rest, strict=True):
                whole[places[own]] = part[own]
            if pool.success is not None:
                success[places[own]] = pool.success[own]
                self._success = success
        if self._success is not None:
            self._success = success
        self._over[active] = (terminated | truncated)[active]
        if starting.any():
            fresh = self.reset(starting)
            _put(together, np.flatnonzero(starting), jax.tree.map(lambda x: x[starting], fresh))
        return together, reward, terminated, truncated

    def close(self) -> None:
        """Frees all pools."""
        for pool, _ in self._pools.values():
            pool.close()
        self._pools = {}
        self._pool_of[:] = -1


def _put(together: HostObservation, places: np.ndarray, observation: HostObservation) -> None:
    """Writes the rows of some copies among all."""

    def put(whole: np.ndarray, part: np.ndarray) -> None:
        whole[places] = part

    jax.tree.map(put, together, observation)
