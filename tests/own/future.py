"""A plugin that begins as many modern files do."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium as gym
import jax.numpy as jnp
import numpy as np

from fedrax.aggregators.base import Aggregate, Aggregator, aggregators
from fedrax.registry import option


@dataclass
class Settings:
    length: float = 1.0


class Future(gym.Env):
    def __init__(self, render_mode=None):
        self.settings = Settings()
        self.observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, False, False, {}


@aggregators.register("own-scaled-mean")
class ScaledMean(Aggregator):
    """The mean, scaled."""

    scale: float = option(1.0, "factor", minimum=0)

    def check(self, agents: int) -> None:
        self.demand(agents, 1, "1")

    def __call__(self, vectors, weights, *, samples=1.0, key):
        present = weights > 0
        mean = jnp.where(present[:, None], vectors, 0.0).sum(0) / present.sum()
        return Aggregate(self.scale * mean, present, present.any(), {})


gym.register(id="OwnFuture-v0", entry_point=Future, max_episode_steps=20)
