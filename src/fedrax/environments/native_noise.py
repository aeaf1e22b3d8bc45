"""Noise on what an agent sees and does, around any native environment.

Noise is heterogeneity like any other: its strengths are physical parameters with fixed names, which the table may set
for every native environment. An environment whose table names none of them is not wrapped, so that its program and its
random numbers stay what they were.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from fedrax.environments.base import Box, NativeEnvironment, Physics, Transition
from fedrax.environments.noise import (
    ACTION_NOISE,
    NOISE,
    OBSERVATION_NOISE,
    check_noise,
    no_action_noise,
    no_observation_noise,
)
from fedrax.environments.wrappers import NativeWrapper
from fedrax.seeds import derive


def with_noise(environment: NativeEnvironment, names: Collection[str]) -> NativeEnvironment:
    """``environment`` with the noise whose parameters are among ``names``; itself where none are.

    Raises:
        FedraxError: noise on observations that are no Box, or on actions that are discrete or not bounded.
    """
    observations = any(name in names for name in OBSERVATION_NOISE)
    actions = any(name in names for name in ACTION_NOISE)
    if not observations and not actions:
        return environment
    if observations and not isinstance(environment.spaces.observation, Box):
        raise no_observation_noise(type(environment).__name__)
    if actions:
        space = environment.spaces.action
        if not isinstance(space, Box) or not np.isfinite([space.low, space.high]).all():
            raise no_action_noise(type(environment).__name__, space)
    return Noisy(environment, observations, actions)


class Noisy(NativeWrapper):
    """``inner`` with noise (Mai et al., 2024, for the observations).

    Every observation, a reset's too, gets a draw of N(``observation_noise_mean``, ``observation_noise_std``^2) for each
    of its numbers; the mean is the same for all of them. Every action gets a draw of N(0, ``action_noise_std``^2) times
    half the range of the component, and is clipped to its bounds. States, rewards and ends are those of ``inner``, to
    which the noisy action is the action. Under the same key ``inner`` draws the same numbers as without noise.
    """

    observations: bool = eqx.field(static=True)
    """Whether observations are noisy."""
    actions: bool = eqx.field(static=True)
    """Whether actions are noisy."""

    def check(self, physics: Mapping[str, float]) -> None:
        """Raises :class:`FedraxError` for a negative deviation, and what ``inner`` refuses."""
        check_noise(physics)
        self.inner.check(physics)

    def physics(self) -> dict[str, float]:
        """The parameters of ``inner``, then those of the noise; deviations in the units of what they are added to."""
        return {**self.inner.physics(), **{name: NOISE[name] for name in self._names}}

    def reset(self, key: PRNGKeyArray, physics: Physics) -> tuple[PyTree, Array]:
        """A fresh state of ``inner``, and its observation with noise."""
        state, observation = self.inner.reset(key, physics)
        return state, self._seen(observation, key, physics)

    def step(self, state: PyTree, action: Array, key: PRNGKeyArray, physics: Physics) -> Transition:
        """One step of ``inner`` by the noisy action, and its observation with noise."""
        if self.actions:
            action = self._done(action, key, physics)
        after = self.inner.step(state, action, key, physics)
        return after._replace(observation=self._seen(after.observation, key, physics))

    @property
    def _names(self) -> tuple[str, ...]:
        return OBSERVATION_NOISE * self.observations + ACTION_NOISE * self.actions

    def _seen(self, observation: Any, key: PRNGKeyArray, physics: Physics) -> Any:
        if not self.observations:
            return observation
        draw = jax.random.normal(derive(key, "observation noise"), observation.shape)
        return observation + physics["observation_noise_mean"] + physics["observation_noise_std"] * draw

    def _done(self, action: Array, key: PRNGKeyArray, physics: Physics) -> Array:
        space: Any = self.spaces.action
        low, high = (jnp.asarray(bound, action.dtype).reshape(space.shape) for bound in (space.low, space.high))
        draw = jax.random.normal(derive(key, "action noise"), action.shape)
        return jnp.clip(action + physics["action_noise_std"] * (high - low) / 2 * draw, low, high)
