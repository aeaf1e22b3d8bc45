"""Small environments that return what is not finite, or raise. Gymnasium's count their steps over the whole process."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from fedrax.environments.base import Box, Discrete, NativeEnvironment, Spaces, Transition


class Sound(gymnasium.Env):
    """Ten steps of reward 1."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)
    count = 0

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.luck = 0, self.np_random.uniform()
        return self.observation(), {}

    def observation(self):
        return np.array([np.cos(self.time), np.sin(self.time)], np.float32)

    def reward(self):
        return 1.0

    def step(self, action):
        assert action in (0, 1), action
        self.time += 1
        type(self).count += 1
        return self.observation(), self.reward(), False, False, {}


class OnceNan(Sound):
    """A single NaN reward, in the process's 41st step."""

    def reward(self):
        return float("nan") if self.count == 41 else 1.0


class NanReward(Sound):
    """NaN in every episode."""

    def reward(self):
        return float("nan") if self.time == 3 else 1.0


class Seldom(Sound):
    """NaN in a third of the episodes, as their seeds have it."""

    def reward(self):
        return float("nan") if self.luck < 1 / 3 and self.time == 4 else 1.0


class Stuck(Sound):
    """One copy's observation is NaN from the process's 20th step on, until that copy is reset."""

    def observation(self):
        broken = self.time and (getattr(self, "broken", False) or self.count == 20)
        self.broken = bool(broken)
        return np.full(2, np.nan if broken else 0.5, np.float32)


class Endless(Sound):
    """Rewards without bound."""

    def reward(self):
        return float("inf")


class Fortune(Sound):
    """Finite rewards, whose sum over an episode is infinite."""

    def reward(self):
        return 1e38


class Rich(Sound):
    """A single finite reward, in the process's 41st step, whose square is infinite."""

    def reward(self):
        return 1e38 if self.count == 41 else 1.0


class RichBox(Rich):
    """The same with a real action."""

    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def step(self, action):
        assert action in self.action_space, action
        return super().step(0)


class Crash(Sound):
    """Raises in one step of the process."""

    fatal = 0

    def reward(self):
        if self.count == self.fatal:
            raise ZeroDivisionError("the pump\nran dry")
        return 1.0


for kind in (Sound, OnceNan, NanReward, Seldom, Endless, Fortune, Rich, RichBox, Crash):
    gymnasium.register(f"Test{kind.__name__}-v0", entry_point=kind, max_episode_steps=10)
gymnasium.register("TestStuck-v0", entry_point=Stuck, max_episode_steps=1000)


class Flaky(NativeEnvironment):
    """Never ends. With the chance ``broken`` an episode's observations are NaN from its third step on; reward 1."""

    spaces = Spaces(Box((4,), (-9.0,) * 4, (9.0,) * 4), Discrete(2))
    time_limit = 200
    default: float = 0.0

    def physics(self):
        return {"broken": self.default}

    def reset(self, key, physics):
        state = jnp.array([0.0, jax.random.uniform(key)])
        return state, self._observation(state, physics)

    def _observation(self, state, physics):
        bad = (state[1] < physics["broken"]) & (state[0] >= 3)
        return jnp.where(bad, jnp.nan, jnp.array([0.1, 0.2, 0.3, 0.1]) + 0.01 * state[0])

    def step(self, state, action, key, physics):
        state = state + jnp.array([1.0, 0.0])
        return Transition(state, self._observation(state, physics), jnp.float32(1.0), jnp.asarray(False))


class Lavish(Flaky):
    """Observations are finite; instead the third step of an episode pays 1e38, whose square is infinite."""

    def _observation(self, state, physics):
        return jnp.array([0.1, 0.2, 0.3, 0.1]) + 0.01 * state[0]

    def step(self, state, action, key, physics):
        after = super().step(state, action, key, physics)
        lavish = (after.state[1] < physics["broken"]) & (after.state[0] == 3)
        return after._replace(reward=jnp.where(lavish, 1e38, 1.0))
