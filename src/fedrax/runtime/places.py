"""Arrays of those who take part in a round, and of all its places, where the number of the former varies."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from fedrax.environments.base import HostObservation
from fedrax.federation import Cohort
from fedrax.runtime.programs import Decider


class Places(NamedTuple):
    """Which of a round's places are taken."""

    rows: np.ndarray
    """By those who take part, ``int[k]``."""
    number: int
    """How many there are."""

    @staticmethod
    def of(cohort: Cohort) -> Places | None:
        """None where everyone takes part."""
        return None if cohort.selected is None else Places(np.flatnonzero(cohort.selected), cohort.ids.shape[0])

    def spread(self, tree: PyTree) -> PyTree:
        """Arrays ``[k, ...]`` as ``[number, ...]``, with zeros in the other places."""

        def one(x: np.ndarray) -> np.ndarray:
            whole = np.zeros((self.number, *x.shape[1:]), x.dtype)
            whole[self.rows] = x
            return whole

        return jax.tree.map(one, tree)

    def decider(self, decide: Decider) -> Decider:
        """What decides for all places as what decides for those who take part."""

        def taken(observation: HostObservation, step: int) -> tuple[np.ndarray, PyTree]:
            action, extras = decide(self.spread(observation), step)
            return action[self.rows], jax.tree.map(lambda x: x[self.rows], extras)

        return taken
