"""A task of one's own: push a mass on a line to 0 and keep it there."""

import gymnasium as gym
import numpy as np


class PointMass(gym.Env):
    """The force is between -2 and 5, the reward minus the distance to 0; `mass` is what may differ between agents."""

    metadata = {"render_modes": []}

    def __init__(self, mass=1.0, render_mode=None):
        self.mass = mass
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gym.spaces.Box(np.float32(-2), np.float32(5), (1,), np.float32)

    def reset(self, seed=None, options=None):
        """Starts anywhere in [-1, 1], at a speed in [-1, 1]."""
        super().reset(seed=seed)
        self.position, self.speed = self.np_random.uniform(-1, 1, 2)
        return self._observation(), {}

    def step(self, action):
        """Ends when the mass is lost, more than 10 away."""
        force = float(np.clip(np.ravel(action)[0], -2, 5))
        self.speed += 0.1 * force / self.mass
        self.position += 0.1 * self.speed
        distance = abs(self.position)
        return self._observation(), -distance, distance > 10, False, {"is_success": distance < 0.05}

    def _observation(self):
        return np.array([self.position, self.speed], np.float32)


gym.register(id="PointMass-v0", entry_point="point_mass:PointMass", max_episode_steps=100)
