"""Environments around others, which change what they say and leave the rest as it is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from fedrax.environments.base import (
    HostEnvironments,
    HostObservation,
    NativeEnvironment,
    Observation,
    Physics,
    Spaces,
    Transition,
)


class NativeWrapper(NativeEnvironment):
    """``inner`` as it is."""

    inner: NativeEnvironment

    @property
    def spaces(self) -> Spaces:  # type: ignore[override]
        """Those of ``inner``."""
        return self.inner.spaces

    @property
    def time_limit(self) -> int:  # type: ignore[override]
        """That of ``inner``."""
        return self.inner.time_limit

    @property
    def frames_per_second(self) -> int:  # type: ignore[override]
        """That of ``inner``."""
        return self.inner.frames_per_second

    def check(self, physics: Mapping[str, float]) -> None:
        """As ``inner``."""
        self.inner.check(physics)

    def draw(self, state: PyTree, physics: Mapping[str, float]) -> np.ndarray:
        """As ``inner``."""
        return self.inner.draw(state, physics)

    def physics(self) -> dict[str, float]:
        """Those of ``inner``."""
        return self.inner.physics()

    def reset(self, key: PRNGKeyArray, physics: Physics) -> tuple[PyTree, Observation]:
        """As ``inner``."""
        return self.inner.reset(key, physics)

    def step(self, state: PyTree, action: Array, key: PRNGKeyArray, physics: Physics) -> Transition:
        """As ``inner``."""
        return self.inner.step(state, action, key, physics)


class HostWrapper(HostEnvironments):
    """``inner`` as it is."""

    def __init__(self, inner: HostEnvironments) -> None:
        self.inner = inner
        self.spaces, self.count, self.time_limit = inner.spaces, inner.count, inner.time_limit

    @property
    def success(self) -> np.ndarray | None:
        """As ``inner``."""
        return self.inner.success

    def reseed(self, seeds: np.ndarray) -> None:
        """As ``inner``."""
        self.inner.reseed(seeds)

    def reset(self, chosen: np.ndarray | None = None) -> HostObservation:
        """As ``inner``."""
        return self.inner.reset(chosen)

    def step(
        self, actions: np.ndarray, active: np.ndarray | None = None
    ) -> tuple[HostObservation, np.ndarray, np.ndarray, np.ndarray]:
        """As ``inner``."""
        return self.inner.step(actions, active)

    def close(self) -> None:
        """As ``inner``."""
        self.inner.close()
