"""An environment in a file of its own, registered the way Gymnasium documents it."""

import gymnasium as gym
import numpy as np


class Corridor(gym.Env):
    metadata = {"render_modes": []}

    def __init__(self, render_mode=None):
        self.observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.x = 0.0
        return np.array([self.x], np.float32), {}

    def step(self, action):
        self.x += 0.1 if action else -0.1
        return np.array([self.x], np.float32), float(self.x), abs(self.x) >= 1, False, {}


gym.register(id="OwnCorridor-v0", entry_point="corridor:Corridor", max_episode_steps=20)
