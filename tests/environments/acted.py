"""Gymnasium environments that refuse what their action spaces do not hold."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box


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


VALVE, MATRIX, WHOLE = (f"Fedrax{kind.__name__}-v0" for kind in (Valve, Matrix, Whole))
for name, kind in ((VALVE, Valve), (MATRIX, Matrix), (WHOLE, Whole)):
    gymnasium.register(name, kind, max_episode_steps=20)
