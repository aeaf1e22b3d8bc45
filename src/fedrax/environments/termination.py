"""Training episodes that end where the goal is reached (``environment.terminate_on_success``)."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from fedrax.environments.base import HostEnvironments, HostObservation, Physics, Transition
from fedrax.environments.wrappers import HostWrapper, NativeWrapper
from fedrax.errors import FedraxError


class EndsAtGoal(NativeWrapper):
    """``inner``, whose episodes end in success.

    Raises:
        FedraxError: it knows no success.
    """

    def step(self, state: PyTree, action: Array, key: PRNGKeyArray, physics: Physics) -> Transition:
        """One step of ``inner``, terminal also where it is a success."""
        after = self.inner.step(state, action, key, physics)
        if after.success is None:
            raise no_success()
        return after._replace(terminated=after.terminated | after.success)


class EndHostAtGoal(HostWrapper):
    """``inner``, whose episodes end in success: the next step starts a new one."""

    def __init__(self, inner: HostEnvironments) -> None:
        super().__init__(inner)
        self._ended = np.zeros(inner.count, bool)

    def reset(self, chosen: np.ndarray | None = None) -> HostObservation:
        """Starts a fresh episode in every copy, or the chosen ones."""
        self._ended = np.zeros(self.count, bool) if chosen is None else self._ended & ~chosen
        return self.inner.reset(chosen)

    def step(
        self, actions: np.ndarray, active: np.ndarray | None = None
    ) -> tuple[HostObservation, np.ndarray, np.ndarray, np.ndarray]:
        """One step of ``inner``, or a reset of what had ended in success.

        Raises:
            FedraxError: the environment knows no success.
        """
        wanted = np.ones(self.count, bool) if active is None else active
        starting, going = self._ended & wanted, wanted & ~self._ended
        observation, reward, terminated, truncated = self.inner.step(actions, None if going.all() else going)
        success = self.inner.success
        if success is None and going.any():
            raise no_success()
        if success is not None:
            terminated = terminated | (success & going)
            # What ends by itself starts anew by itself.
            self._ended = (self._ended & ~starting) | (success & going & ~truncated)
        if starting.any():
            fresh = self.inner.reset(starting)
            observation = jax.tree.map(
                lambda x, y: np.where(starting.reshape(-1, *[1] * (x.ndim - 1)), y, x), observation, fresh
            )
            reward, terminated, truncated = (
                np.where(starting, np.zeros_like(each), each) for each in (reward, terminated, truncated)
            )
        return observation, reward, terminated, truncated


def no_success() -> FedraxError:
    """The error for an environment that does not say when it succeeds."""
    return FedraxError(
        "environment.terminate_on_success needs an environment that says when it succeeds (is_success or success in "
        "its info), which this one does not; set environment.terminate_on_success=false"
    )
