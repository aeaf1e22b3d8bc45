"""A valve that is best 80 % open: one action in [0, 100], whose range a learner must reach."""

import gymnasium as gym
import numpy as np


class Valve(gym.Env):
    """The reward is minus the distance of the opening from 80, in hundredths; nothing is observed but the time."""

    metadata = {"render_modes": []}
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Box(np.float32(0), np.float32(100), (1,), np.float32)

    def __init__(self, render_mode=None):
        self.time = 0

    def reset(self, seed=None, options=None):
        """Starts at time 0."""
        super().reset(seed=seed)
        self.time = 0
        return self._observation(), {}

    def step(self, action):
        """An episode is ended by its time limit alone."""
        self.time += 1
        return self._observation(), -abs(float(np.ravel(action)[0]) - 80) / 100, False, False, {}

    def _observation(self):
        return np.array([np.cos(self.time), np.sin(self.time)], np.float32)


gym.register(id="Valve-v0", entry_point="valve:Valve", max_episode_steps=20)
