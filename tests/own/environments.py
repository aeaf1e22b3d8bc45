"""Environments as users write them: with arguments, without a time limit, without a picture."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Base(gym.Env):
    """Observes two numbers; reward 1 in every step, without an end."""

    metadata = {"render_modes": []}
    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 1.0, False, False, {}


class Args(Base):
    """Needs a constructor argument, which it observes."""

    def __init__(self, level, size=3, hint="", render_mode=None):
        super().__init__(render_mode)
        if level == 13:
            raise ValueError("there is no\nlevel 13")
        self.level, self.size, self.hint = level, size, hint
        self.observation_space = spaces.Box(-1, 1, (size - 1,), np.float32)

    def reset(self, seed=None, options=None):
        return np.zeros(self.size - 1, np.float32), {}

    def step(self, action):
        return np.zeros(self.size - 1, np.float32), float(self.level), False, False, {}


class PointMass(gym.Env):
    """Push a mass on a line to 0 within 100 steps."""

    metadata = {"render_modes": []}
    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(np.float32(-2), np.float32(5), (1,), np.float32)

    def __init__(self, mass=1.0, render_mode=None):
        self.mass = mass

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.v = self.np_random.uniform(-1, 1, 2)
        return np.array([self.x, self.v], np.float32), {}

    def step(self, action):
        force = float(np.clip(np.asarray(action).ravel()[0], -2, 5))
        self.v += 0.1 * force / self.mass
        self.x += 0.1 * self.v
        return np.array([self.x, self.v], np.float32), -abs(self.x), abs(self.x) > 10, False, {}


class Passing(PointMass):
    """Takes its arguments on to the class that it inherits from."""

    def __init__(self, wind=0.0, **kwargs):
        super().__init__(**kwargs)
        self.wind = wind


gym.register("OwnArgs-v0", entry_point=Args, max_episode_steps=10)
gym.register("OwnNoLimit-v0", entry_point=Base)
gym.register("OwnPointMass-v0", entry_point=PointMass, max_episode_steps=100)
gym.register("OwnPassing-v0", entry_point=Passing, max_episode_steps=100, kwargs={"wind": 2.0})
