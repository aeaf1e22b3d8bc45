"""A Gymnasium environment whose every number is known."""

import gymnasium
import numpy as np

PROBE = "FedraxProbe-v0"
LONGEST = 6


class Probe(gymnasium.Env):
    """Episodes of 1 to 6 steps with reward 1; observed are step and length, drawn at the reset."""

    observation_space = gymnasium.spaces.Box(0, LONGEST, (2,), np.float64)
    action_space = gymnasium.spaces.Discrete(2, start=5)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.now, self.length = 0, int(self.np_random.integers(1, LONGEST + 1))
        return np.array([self.now, self.length], float), {}

    def step(self, action):
        assert action in (5, 6)
        self.now += 1
        return np.array([self.now, self.length], float), 1.0, self.now >= self.length, False, {}


def register(id, max_episode_steps, **spaces):
    """Registers the probe, with other spaces where they are given."""
    gymnasium.register(id, type("Variant", (Probe,), spaces), max_episode_steps=max_episode_steps)


register(PROBE, 50)
