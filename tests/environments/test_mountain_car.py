"""Our continuous MountainCar against Gymnasium's, step for step."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.environments.base import Box
from fedrax.environments.native import native_environments
from fedrax.environments.native.mountain_car import MountainCarContinuous, MountainCarState

STEP = jax.jit(MountainCarContinuous().step)
STEPS = jax.jit(jax.vmap(MountainCarContinuous().step, (0, 0, None, None)))
KEY = jax.random.key(0)
PHYSICS = MountainCarContinuous().physics()


@pytest.fixture
def reference():
    environment = gymnasium.make("MountainCarContinuous-v0")
    yield environment
    environment.close()


def record(environment, steps, seed):
    """Gymnasium's states before and after each step, actions and answers; a new episode follows each finished one."""
    rows = []
    generator = np.random.default_rng(seed)
    environment.reset(seed=seed)
    for _ in range(steps):
        # Pushing along the velocity climbs both hills; some actions are beyond their bounds.
        push = np.sign(environment.state[1]) * (generator.random() < 0.9)
        action = np.float32([push + generator.uniform(-0.3, 0.3)])
        before = np.float32(environment.state)
        # A reset leaves float64, which one step from the state we are given must not see.
        environment.state = before
        observation, reward, terminated, *_ = environment.step(action)
        rows.append((before, action, observation, reward, terminated))
        if terminated:
            environment.reset()
    return map(np.array, zip(*rows, strict=True))


def assert_equal(ours, observations, rewards, terminated):
    np.testing.assert_allclose(ours.observation, observations, rtol=1e-5, atol=3e-7)
    np.testing.assert_array_equal(ours.observation, np.stack(ours.state, -1))
    np.testing.assert_allclose(ours.reward, rewards, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(ours.terminated, terminated)


def test_spaces_limit_and_constants_are_those_of_gymnasium(reference):
    assert native_environments["MountainCarContinuous-v0"] is MountainCarContinuous
    spaces = MountainCarContinuous.spaces
    for ours, theirs in ((spaces.observation, reference.observation_space), (spaces.action, reference.action_space)):
        assert isinstance(ours, Box)
        assert ours.shape == theirs.shape
        np.testing.assert_array_equal(np.float32(ours.low), theirs.low)
        np.testing.assert_array_equal(np.float32(ours.high), theirs.high)
    assert MountainCarContinuous.time_limit == reference.spec.max_episode_steps == 999
    assert MountainCarContinuous.frames_per_second == reference.metadata["render_fps"]
    for name, value in PHYSICS.items():
        if name != "gravity":
            assert getattr(reference.unwrapped, name) == value, name


def test_every_step_of_climbing_episodes_equals_gymnasiums(reference):
    before, actions, observations, rewards, terminated = record(reference.unwrapped, 2000, seed=0)
    assert terminated.sum() > 5
    assert np.abs(actions).max() > 1
    assert (observations[:, 0] == np.float32(-1.2)).any(), "the wall must have been met"
    assert_equal(STEPS(MountainCarState(*before.T), actions, KEY, PHYSICS), observations, rewards, terminated)


def test_a_whole_episode_equals_gymnasiums(reference):
    observation, _ = reference.reset(seed=5)
    state = MountainCarState(*jnp.asarray(observation))
    total, ours_total, terminated = 0.0, 0.0, False
    for _ in range(999):
        action = np.float32([np.sign(observation[1]) or 1.0])
        observation, reward, terminated, *_ = reference.step(action)
        state, ours, ours_reward, ours_terminated, _ = STEP(state, action, KEY, PHYSICS)
        np.testing.assert_allclose(ours, observation, atol=1e-4)
        total, ours_total = total + reward, ours_total + float(ours_reward)
        assert bool(ours_terminated) == terminated
        if terminated:
            break
    assert terminated
    assert ours_total == pytest.approx(total, abs=1e-3)


def test_changed_physics_equals_gymnasiums_changed_in_place(reference):
    changed = {
        "power": 0.003,
        "max_speed": 0.04,
        "min_position": -1.0,
        "max_position": 0.3,
        "goal_position": 0.2,
        "goal_velocity": 0.01,
    }
    for name, value in changed.items():
        setattr(reference.unwrapped, name, value)
    before, actions, observations, rewards, terminated = record(reference.unwrapped, 1000, seed=1)
    assert terminated.any()
    assert (np.abs(observations[:, 1]) == np.float32(0.04)).any()
    ours = STEPS(MountainCarState(*before.T), actions, KEY, PHYSICS | changed)
    assert_equal(ours, observations, rewards, terminated)


def test_gravity_pulls_along_the_slope():
    start = MountainCarState(jnp.float32(0.0), jnp.float32(0.0))
    after = STEP(start, jnp.zeros(1), KEY, PHYSICS | {"gravity": 0.01})
    np.testing.assert_allclose(after.observation, [-0.01, -0.01], rtol=1e-6)


def test_the_goal_pays_100_less_the_action():
    start = MountainCarState(jnp.float32(0.44), jnp.float32(0.03))
    after = STEP(start, jnp.float32([0.5]), KEY, PHYSICS)
    assert after.terminated
    assert float(after.reward) == pytest.approx(100 - 0.1 * 0.25)


def test_resets_are_uniform_and_at_rest():
    keys = jax.random.split(jax.random.key(0), 4000)
    state, observation = jax.jit(jax.vmap(MountainCarContinuous().reset, in_axes=(0, None)))(keys, PHYSICS)
    np.testing.assert_array_equal(observation, np.stack(state, -1))
    assert not observation[:, 1].any()
    position = np.array(observation[:, 0])
    assert position.min() >= np.float32(-0.6)
    assert position.max() <= np.float32(-0.4)
    np.testing.assert_allclose(position.mean(), -0.5, atol=0.003)
    np.testing.assert_allclose(position.std(), 0.2 / 12**0.5, rtol=0.03)
