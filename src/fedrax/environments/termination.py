"""Training episodes that end where the goal is reached (``environment.terminate_on_success``)."""

from __future__ import annotations

from functools import partial

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
        self._succeeded = np.zeros(inner.count, bool)
        """Which copies' episodes have ended in success: the inner environment would go on."""
        self._over = np.zeros(inner.count, bool)
        """Which have ended by themselves: the inner environment starts anew, and tells the success of that start."""

    def reset(self, chosen: np.ndarray | None = None) -> HostObservation:
        """Starts a fresh episode in every copy, or the chosen ones."""
        kept = np.zeros(self.count, bool) if chosen is None else ~chosen
        self._succeeded, self._over = self._succeeded & kept, self._over & kept
        return self.inner.reset(chosen)

    def step(
        self, actions: np.ndarray, active: np.ndarray | None = None
    ) -> tuple[HostObservation, np.ndarray, np.ndarray, np.ndarray]:
        """One step of ``inner``, or a reset of what had ended in success.

        Raises:
            FedraxError: the environment knows no success.
        """
        wanted = np.ones(self.count, bool) if active is None else active
        starting, going = wanted & self._succeeded, wanted & ~self._succeeded
        nothing = np.zeros(self.count, bool)
        if not going.any():  # EnvPool waits for ever for a step of no copy.
            return self.reset(starting), np.zeros(self.count, np.float32), nothing, nothing
        observation, reward, terminated, truncated = self.inner.step(actions, None if going.all() else going)
        stepped = going & ~self._over
        if self.inner.success is None and stepped.any():
            raise no_success()
        success = nothing if self.inner.success is None else self.inner.success & stepped
        over = (terminated | truncated) & going
        self._over = np.where(going, over, self._over)
        self._succeeded = np.where(going, success & ~over, self._succeeded)
        terminated = terminated | success
        if starting.any():
            observation = jax.tree.map(partial(_chosen, starting), self.reset(starting), observation)
            reward, terminated, truncated = np.where(starting, 0, reward), terminated & ~starting, truncated & ~starting
        return observation, reward.astype(np.float32), terminated, truncated


def _chosen(rows: np.ndarray, new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """``new`` in the chosen rows, ``bool[count]``, ``old`` in the others."""
    return np.where(rows.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def no_success() -> FedraxError:
    """The error for an environment that does not say when it succeeds."""
    return FedraxError(
        "environment.terminate_on_success needs an environment that says when it succeeds (is_success or success in "
        "its info), which this one does not; set environment.terminate_on_success=false"
    )
