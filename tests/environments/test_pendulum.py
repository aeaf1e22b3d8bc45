"""Our Pendulum against Gymnasium's, step for step."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.environments.base import Box
from fedrax.environments.native import native_environments
from fedrax.environments.native.pendulum import Pendulum, PendulumState
from fedrax.errors import FedraxError

STEP = jax.jit(Pendulum().step)
STEPS = jax.jit(jax.vmap(Pendulum().step, (0, 0, None, None)))
KEY = jax.random.key(0)


@pytest.fixture
def reference():
    environment = gymnasium.make("Pendulum-v1")
    yield environment
    environment.close()


def record(environment, steps, seed):
    """Gymnasium's states before and after each step, actions (some beyond their bounds) and answers."""
    rows = []
    generator = np.random.default_rng(seed)
    environment.reset(seed=seed)
    for _ in range(steps):
        # Pushing along the velocity reaches the limit of speed, random torques the rest.
        push = np.sign(environment.state[1]) if generator.random() < 0.7 else 0.0
        action = np.float32([push + generator.uniform(-2.5, 2.5)])
        before = np.array(environment.state)
        observation, reward, *_ = environment.step(action)
        rows.append((before, np.array(environment.state), action, observation, reward))
    return map(np.array, zip(*rows, strict=True))


def test_spaces_limit_and_constants_are_those_of_gymnasium(reference):
    assert native_environments["Pendulum-v1"] is Pendulum
    spaces = Pendulum.spaces
    for ours, theirs in ((spaces.observation, reference.observation_space), (spaces.action, reference.action_space)):
        assert isinstance(ours, Box)
        assert ours.shape == theirs.shape
        np.testing.assert_array_equal(np.float32(ours.low), theirs.low)
        np.testing.assert_array_equal(np.float32(ours.high), theirs.high)
    assert Pendulum.time_limit == reference.spec.max_episode_steps
    assert Pendulum.frames_per_second == reference.metadata["render_fps"]
    for name, value in Pendulum().physics().items():
        if name != "clip_after_angle":
            assert getattr(reference.unwrapped, name) == value, name


def test_every_step_equals_gymnasiums(reference):
    before, after, actions, observations, rewards = record(reference.unwrapped, 1500, seed=0)
    assert (np.abs(after[:, 1]) == 8).sum() > 5, "the limit of speed must have been met"
    assert np.abs(before[:, 0]).max() > np.pi, "and whole turns"
    assert np.abs(actions).max() > 2
    ours = STEPS(PendulumState(*jnp.float32(before).T), jnp.asarray(actions), KEY, Pendulum().physics())
    np.testing.assert_allclose(ours.observation, observations, atol=3e-5)
    np.testing.assert_allclose(np.stack(ours.state, -1), after, rtol=1e-6, atol=3e-6)
    np.testing.assert_allclose(ours.reward, rewards, rtol=1e-5, atol=1e-4)
    assert not ours.terminated.any()


def test_an_episode_follows_gymnasiums(reference):
    observation, _ = reference.reset(seed=3)
    state = PendulumState(*jnp.float32(reference.unwrapped.state))
    actions = np.random.default_rng(3)
    for step in range(200):
        action = np.float32(actions.uniform(-2, 2, 1))
        observation, reward, _, truncated, _ = reference.step(action)
        state, ours, ours_reward, *_ = STEP(state, action, KEY, Pendulum().physics())
        np.testing.assert_allclose(ours, observation, atol=1e-3)
        np.testing.assert_allclose(ours_reward, reward, atol=2e-3)
        assert truncated == (step == 199)


def test_changed_physics_equals_gymnasiums_changed_in_place(reference):
    changed = {"l": 0.7, "m": 1.8, "g": 8.0, "dt": 0.04, "max_speed": 5.0, "max_torque": 1.0}
    for name, value in changed.items():
        setattr(reference.unwrapped, name, value)
    before, after, actions, _, rewards = record(reference.unwrapped, 400, seed=1)
    assert (np.abs(after[:, 1]) == 5).any()
    ours = STEPS(PendulumState(*jnp.float32(before).T), jnp.asarray(actions), KEY, Pendulum().physics() | changed)
    np.testing.assert_allclose(np.stack(ours.state, -1), after, rtol=1e-6, atol=3e-6)
    np.testing.assert_allclose(ours.reward, rewards, rtol=1e-5, atol=1e-4)


def test_the_older_rule_moves_the_angle_before_the_velocity_is_clipped():
    """From theta = pi/2 the acceleration is 15 + 3 u; at 7.9 rad/s and u = 2, 0.05 s lead to 8.95 rad/s."""
    start, action = PendulumState(jnp.float32(np.pi / 2), jnp.float32(7.9)), jnp.float32([2.0])
    new = STEP(start, action, KEY, Pendulum().physics()).state
    old = STEP(start, action, KEY, Pendulum().physics() | {"clip_after_angle": 1.0}).state
    np.testing.assert_allclose(new, [np.pi / 2 + 8 * 0.05, 8], rtol=1e-6)
    np.testing.assert_allclose(old, [np.pi / 2 + 8.95 * 0.05, 8], rtol=1e-6)


def test_resets_are_uniform_and_observed():
    keys = jax.random.split(jax.random.key(0), 4000)
    state, observation = jax.jit(jax.vmap(Pendulum().reset, in_axes=(0, None)))(keys, Pendulum().physics())
    theta, speed = np.array(state)
    np.testing.assert_allclose(observation, np.stack([np.cos(theta), np.sin(theta), speed], -1), atol=1e-6)
    for values, limit in ((theta, np.pi), (speed, 1.0)):
        assert np.abs(values).max() <= np.float32(limit)
        assert abs(values.mean()) < 0.04 * limit
        np.testing.assert_allclose(values.std(), 2 * limit / 12**0.5, rtol=0.03)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("l", 0.0, "l = 0 is not allowed: it must be above 0"),
        ("m", -1.0, "m = -1 is not allowed: it must be above 0"),
        ("clip_after_angle", 0.5, "clip_after_angle = 0.5 is not allowed: give 0 (Gymnasium) or 1"),
    ],
)
def test_impossible_physics_is_refused(name, value, message):
    with pytest.raises(FedraxError) as error:
        Pendulum().check(Pendulum().physics() | {name: value})
    assert message in str(error.value)
    Pendulum().check(Pendulum().physics() | {"clip_after_angle": 1.0})
