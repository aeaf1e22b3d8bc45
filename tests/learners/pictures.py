"""Gymnasium environments that are seen in small pictures."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class Picture(gymnasium.Env):
    """12 x 12 pixels of three colours, of which one half is bright; reward 1 for the action that names it."""

    observation_space = Box(0, 255, (12, 12, 3), np.uint8)
    action_space = Discrete(2)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def seen(self):
        self.bright = int(self.np_random.integers(2))
        picture = self.np_random.integers(0, 40, (12, 12, 3), np.uint8)
        picture[:, 6 * self.bright : 6 * self.bright + 6] += 180
        return picture

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.seen(), {}

    def step(self, action):
        reward = self.reward(action)
        return self.seen(), reward, False, False, {}

    def reward(self, action):
        return float(action == self.bright)


class PointAt(Picture):
    """The same by a number in [-1, 1], from the left to the right; pictures with the channels first."""

    observation_space = Box(0, 255, (3, 12, 12), np.uint8)
    action_space = Box(-1, 1, (1,), np.float32)

    def seen(self):
        return super().seen().transpose(2, 0, 1)

    def reward(self, action):
        return 1.0 - abs(float(action[0]) - (2 * self.bright - 1))


PICTURE, POINT_AT = "FedraxPicture-v0", "FedraxPointAt-v0"
gymnasium.register(PICTURE, Picture, max_episode_steps=20)
gymnasium.register(POINT_AT, PointAt, max_episode_steps=20)
