"""Several sets of host environments as one."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from fedrax.environments.base import HostEnvironments, HostObservation, zero_observations


def joined(parts: Sequence[HostObservation]) -> HostObservation:
    """Observations, leaves ``[n, *o]``, one part's after the other."""
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *each: np.concatenate(each), *parts)


class JoinedEnvironments(HostEnvironments):
    """The copies of all ``parts``, one part after the other; parts none of whose copies is wanted stand still.

    For agents whose environments differ, and of which others take part in every round: each agent has a part.
    """

    def __init__(self, parts: Sequence[HostEnvironments]) -> None:
        self.parts = list(parts)
        self.spaces, self.time_limit = parts[0].spaces, parts[0].time_limit
        self.count = sum(part.count for part in parts)
        self._ends = np.cumsum([part.count for part in parts])[:-1]

    @property
    def success(self) -> np.ndarray | None:
        """That of all parts, False in parts that have not been stepped."""
        each = [part.success for part in self.parts]
        if all(one is None for one in each):
            return None
        return np.concatenate(
            [np.zeros(part.count, bool) if one is None else one for part, one in zip(self.parts, each, strict=True)]
        )

    def reseed(self, seeds: np.ndarray) -> None:
        """Each part's copies from their share of the seeds."""
        for part, own in zip(self.parts, np.split(seeds, self._ends), strict=True):
            part.reseed(own)

    def reset(self, chosen: np.ndarray | None = None) -> HostObservation:
        """Starts a fresh episode in every copy, or the chosen ones."""
        if chosen is None:
            return joined([part.reset() for part in self.parts])
        shares = zip(self.parts, np.split(chosen, self._ends), strict=True)
        return joined([part.reset(own) if own.any() else self._nothing(part) for part, own in shares])

    def step(
        self, actions: np.ndarray, active: np.ndarray | None = None
    ) -> tuple[HostObservation, np.ndarray, np.ndarray, np.ndarray]:
        """One step of every part in which a copy is active."""
        wanted = np.ones(self.count, bool) if active is None else active
        shares = zip(self.parts, np.split(actions, self._ends), np.split(wanted, self._ends), strict=True)
        observation, reward, terminated, truncated = zip(*(self._part(*share) for share in shares), strict=True)
        return (
            joined(observation),
            np.concatenate(reward),
            np.concatenate(terminated),
            np.concatenate(truncated),
        )

    def _part(
        self, part: HostEnvironments, actions: np.ndarray, active: np.ndarray
    ) -> tuple[HostObservation, np.ndarray, np.ndarray, np.ndarray]:
        if active.any():
            return part.step(actions, active)
        nothing = np.zeros(part.count, bool)
        return self._nothing(part), np.zeros(part.count, np.float32), nothing, nothing

    @staticmethod
    def _nothing(part: HostEnvironments) -> HostObservation:
        """The observations of a part that stands still."""
        return zero_observations(part.spaces.observation, (part.count,))

    def close(self) -> None:
        """Frees every part."""
        for part in self.parts:
            part.close()
