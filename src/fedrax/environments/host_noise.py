"""Noise on what an agent observes and does, around any environment that Gymnasium steps."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from fedrax.environments.noise import no_action_noise, no_observation_noise
from fedrax.seeds import host_seeds


class Noise(gymnasium.Wrapper):
    """Adds normal noise to every observation, the reset's included, and to every action.

    Observations get N(mean, std**2) per component, independent in each, with one mean for all; they may leave the
    bounds of their space. Actions get N(0, std**2) per component times half the width of its range, and are clipped
    to the range. The noise has a random stream of its own, derived from the seed of the reset: the environment
    within draws as it would without.

    Observation noise is that of WaimenMak/FRL (``noisy_input``, std 0.01, mean from U(-1, 1)); actions are exact there.

    Raises:
        FedraxError: observations that are whole numbers, or actions other than a bounded Box, are to get noise.
    """

    def __init__(
        self,
        environment: gymnasium.Env,
        *,
        observation_noise_mean: float = 0.0,
        observation_noise_std: float = 0.0,
        action_noise_std: float = 0.0,
    ) -> None:
        super().__init__(environment)
        self._mean, self._std, self._action_std = observation_noise_mean, observation_noise_std, action_noise_std
        self._noisy_observations = bool(observation_noise_mean or observation_noise_std)
        self._generator = np.random.default_rng()
        name = environment.spec.id if environment.spec is not None else type(environment.unwrapped).__name__
        observations, actions = self.observation_space, self.action_space
        if self._noisy_observations and not (
            isinstance(observations, gymnasium.spaces.Box) and np.issubdtype(observations.dtype, np.floating)
        ):
            raise no_observation_noise(repr(name))
        if not action_noise_std:
            return
        if not isinstance(actions, gymnasium.spaces.Box) or not actions.is_bounded():
            raise no_action_noise(repr(name), actions)
        # In double precision: a float32 space's own bounds would round the noise twice.
        self._low, self._high = actions.low.astype(float), actions.high.astype(float)
        self._real = np.issubdtype(actions.dtype, np.floating)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """A fresh episode's first observation with noise; a seed starts the noise anew as well."""
        if seed is not None:
            self._generator = np.random.default_rng(int(host_seeds((), seed, "noise")))
        observation, info = self.env.reset(seed=seed, options=options)
        return self._observed(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step of the action with noise, observed with noise."""
        if self._action_std:
            noise = self._generator.normal(0.0, self._action_std, np.shape(action))
            noisy = np.clip(action + noise * (self._high - self._low) / 2, self._low, self._high)
            action = (noisy if self._real else np.rint(noisy)).astype(self.action_space.dtype)
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._observed(observation), reward, terminated, truncated, info

    def _observed(self, observation: Any) -> Any:
        if not self._noisy_observations:
            return observation
        noise = self._generator.normal(self._mean, self._std, observation.shape)
        return (observation + noise).astype(observation.dtype)
