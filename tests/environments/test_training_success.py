"""Whether training episodes reached their goals is known of every episode that ends, however it is collected."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.environments.base import Box, Discrete, NativeEnvironment, Spaces, Transition
from fedrax.environments.host import make_host
from fedrax.environments.host_collector import HostCollector
from fedrax.environments.host_steps import HostStepCollector
from fedrax.environments.native_collector import collect_episodes
from fedrax.environments.native_steps import collect_steps, start_steps
from fedrax.environments.termination import EndHostAtGoal

TOUCHES = "FedraxTouches-v0"
MUTE = "FedraxMute-v0"


class Touches(NativeEnvironment):
    """Episodes of three steps; the goal is reached in step ``touch`` alone."""

    spaces = Spaces(Box((1,), (0.0,), (9.0,)), Discrete(2))
    time_limit = 50

    def physics(self):
        return {"touch": 2.0}

    def reset(self, key, physics):
        return jnp.zeros(1), jnp.zeros(1)

    def step(self, state, action, key, physics):
        state = state + 1
        return Transition(state, state, jnp.asarray(1.0), state[0] >= 3, state[0] == physics["touch"])


class HostTouches(gymnasium.Env):
    """The same; copies seeded with 0, 1, 2 and 3 reach the goal in these steps, 0 never, and resets say they did."""

    observation_space = gymnasium.spaces.Box(0, 9, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    tells = True

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.touch = self.touch if seed is None else seed
        self.now = 0
        return np.zeros(1, np.float32), {"is_success": True} if self.tells else {}

    def step(self, action):
        self.now += 1
        info = {"is_success": self.now == self.touch} if self.tells else {}
        return np.full(1, self.now, np.float32), 1.0, self.now >= 3, False, info


class Mute(HostTouches):
    tells = False


@pytest.fixture(autouse=True)
def registered():
    for name, kind in ((TOUCHES, HostTouches), (MUTE, Mute)):
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=kind, max_episode_steps=50)


def native_steps(touch, parts):
    """Collections of so many steps, one after the other."""
    environment, table = Touches(), {"touch": touch}
    state = start_steps(environment, table, jax.random.key(0), num_envs=1, per_copy=False)
    collected = []
    for steps in parts:
        experience, state = collect_steps(
            environment,
            table,
            lambda observation, key: (observation[:, 0].astype(int), ()),
            jax.random.key(1),
            state,
            steps=steps,
            horizon=50,
        )
        collected.append(np.asarray(experience.success)[:, 0])
    return np.concatenate(collected).tolist()


NO, YES = [False] * 4, [False, False, True, False]
"""By step of an episode, and of the step that starts the next."""


@pytest.mark.training
@pytest.mark.parametrize("parts", [(12,), (2, 1, 3, 6), (1,) * 12])
@pytest.mark.parametrize(("touch", "expected"), [(1.0, YES), (2.0, YES), (3.0, YES), (4.0, NO)])
def test_an_episodes_last_step_tells_its_success_in_whichever_collection_it_was(parts, touch, expected):
    assert native_steps(touch, parts) == expected * 3


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("parts", [(12,), (2, 1, 3, 6)])
def test_the_same_on_the_host(groups, parts):
    environments = [make_host(TOUCHES, 4 // groups, backend="gymnasium") for _ in range(groups)]
    for number, group in enumerate(environments):
        group.reseed(np.arange(group.count) + number * group.count)
    collector = HostStepCollector(environments, 2)
    # Gymnasium resets from the environment's own stream, so that a copy keeps its first seed's step.
    collected = [collector.collect(still, steps).success for steps in parts]
    success = np.concatenate(collected, 1)
    assert success.shape == (2, 12, 2)
    np.testing.assert_array_equal(success[0, :, 0], NO * 3)
    for agent, copy in ((0, 1), (1, 0), (1, 1)):
        np.testing.assert_array_equal(success[agent, :, copy], YES * 3)
    collector.restart_agents(np.array([True, True]), None if groups == 1 else np.arange(2))
    assert not collector.collect(still, 2).success.any(), "episodes that were given up"
    for group in environments:
        group.close()


def still(observation, step):
    return np.zeros(observation.shape[:2], np.int32), ()


def test_episodes_that_end_at_their_goals_end_in_success():
    environments = EndHostAtGoal(make_host(TOUCHES, 4, backend="gymnasium"))
    environments.reseed(np.arange(4))
    steps = HostStepCollector([environments], 4).collect(still, 8)
    environments.close()
    assert np.flatnonzero(steps.success[0, :, 1]).tolist() == [0, 2, 4, 6]
    assert np.flatnonzero(steps.success[0, :, 2]).tolist() == [1, 4, 7]
    np.testing.assert_array_equal(steps.success[0, :, 1:], steps.terminated[0, :, 1:])
    assert not steps.success[0, :, 0].any()


def test_whole_episodes_on_the_host():
    environments = make_host(TOUCHES, 4, backend="gymnasium")
    environments.reseed(np.arange(4))
    collector = HostCollector(environments, 2, 2)

    def act(observation, step):
        return np.zeros(observation.shape[:2], np.int32)

    episodes = collector.collect(act, np.array([3, 2]), 4, 50)
    environments.close()
    assert episodes.success.tolist() == [[False, True, False, False], [True, True, False, False]]


@pytest.mark.parametrize("whole", [True, False])
def test_an_environment_that_does_not_say_has_no_success(whole):
    environments = make_host(MUTE, 1, backend="gymnasium")
    environments.reseed(np.zeros(1, np.int64))
    if whole:
        collector = HostCollector(environments, 1, 1)
        experience = collector.collect(lambda seen, step: np.zeros(seen.shape[:2], np.int32), np.ones(1, int), 1, 50)
    else:
        experience = HostStepCollector([environments], 1).collect(still, 5)
    environments.close()
    assert experience.success is None


@pytest.mark.parametrize(("touch", "reached"), [(1.0, True), (3.0, True), (4.0, False)])
def test_whole_episodes_in_jax(touch, reached):
    episodes = collect_episodes(
        Touches(),
        {"touch": touch},
        lambda observation, key: observation[:, 0].astype(int),
        jax.random.key(0),
        count=2,
        max_count=3,
        horizon=5,
    )
    assert episodes.success.tolist() == [reached, reached, False]
