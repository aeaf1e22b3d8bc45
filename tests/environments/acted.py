"""Gymnasium environments that refuse what their spaces do not hold, and one that is seen in pictures."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class Valve(gymnasium.Env):
    """One action in [0, 100], of which 80 is best: rewards ``-|a - 80| / 100``."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = Box(-1, 1, (2,), np.float32)
    action_space = Box(np.float32(0), np.float32(100), (1,), np.float32)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def seen(self):
        return np.array([np.cos(self.now), np.sin(self.now)], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.now = 0
        return self.seen(), {}

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.now += 1
        return self.seen(), -abs(float(np.ravel(action)[0]) - 80.0) / 100, False, False, {}

    def render(self):
        return np.zeros((16, 16, 3), np.uint8)


class Matrix(Valve):
    """Actions of shape (2, 2) in double precision, each row with bounds of its own."""

    action_space = Box(np.array([[-1.0, -1.0], [0.1, 0.1]]), np.array([[1.0, 1.0], [0.3, 0.7]]), dtype=np.float64)


class Whole(Valve):
    """Whole numbers, some of them below 0."""

    action_space = Box(-3, 100, (2,), np.int16)


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


VALVE, MATRIX, WHOLE, PICTURE, POINT_AT = (
    f"Fedrax{kind.__name__}-v0" for kind in (Valve, Matrix, Whole, Picture, PointAt)
)
for name, kind in ((VALVE, Valve), (MATRIX, Matrix), (WHOLE, Whole), (PICTURE, Picture), (POINT_AT, PointAt)):
    gymnasium.register(name, kind, max_episode_steps=20)
