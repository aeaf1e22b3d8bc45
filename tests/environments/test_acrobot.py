"""Our Acrobot against Gymnasium's, step for step."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.environments.base import Box, Discrete
from fedrax.environments.native import native_environments
from fedrax.environments.native.acrobot import Acrobot, AcrobotState

STEP = jax.jit(Acrobot().step)
STEPS = jax.jit(jax.vmap(Acrobot().step, (0, 0, None, None)))
KEY = jax.random.key(0)
ATTRIBUTES = {
    "link_length_1": "LINK_LENGTH_1",
    "link_mass_1": "LINK_MASS_1",
    "link_mass_2": "LINK_MASS_2",
    "link_com_pos_1": "LINK_COM_POS_1",
    "link_com_pos_2": "LINK_COM_POS_2",
    "link_moi": "LINK_MOI",
    "max_vel_1": "MAX_VEL_1",
    "max_vel_2": "MAX_VEL_2",
    "dt": "dt",
}


@pytest.fixture
def reference():
    environment = gymnasium.make("Acrobot-v1")
    yield environment
    environment.close()


def swing(environment, action):
    """Pumps energy into the pendulum: a random action first, then a torque along the second link's velocity."""
    return action if abs(environment.state[3]) < 0.3 else int(environment.state[3] > 0) * 2


def record(environment, steps, seed):
    """Gymnasium's states before and after each step, actions, and answers; a new episode follows each finished one."""
    rows = []
    actions = np.random.default_rng(seed)
    environment.reset(seed=seed)
    for _ in range(steps):
        before = np.array(environment.state)
        action = swing(environment, int(actions.integers(3)))
        observation, reward, terminated, *_ = environment.step(action)
        rows.append((before, np.array(environment.state), action, observation, reward, terminated))
        if terminated:
            environment.reset()
    return map(np.array, zip(*rows, strict=True))


def test_spaces_limit_and_constants_are_those_of_gymnasium(reference):
    assert native_environments["Acrobot-v1"] is Acrobot
    spaces, space = Acrobot.spaces, reference.observation_space
    assert isinstance(spaces.observation, Box)
    assert spaces.action == Discrete(3)
    np.testing.assert_allclose(np.float32(spaces.observation.low), space.low)
    np.testing.assert_allclose(np.float32(spaces.observation.high), space.high)
    assert Acrobot.time_limit == reference.spec.max_episode_steps
    physics = Acrobot().physics()
    assert set(physics) == set(ATTRIBUTES) | {"gravity", "torque"}
    for name, attribute in ATTRIBUTES.items():
        assert getattr(reference.unwrapped, attribute) == physics[name], name
    np.testing.assert_array_equal(reference.unwrapped.AVAIL_TORQUE, physics["torque"] * np.arange(-1, 2))


def test_every_step_of_swung_up_episodes_equals_gymnasiums(reference):
    before, after, actions, observations, rewards, terminated = record(reference.unwrapped, 2000, seed=0)
    assert terminated.sum() > 5
    assert set(actions) == {0, 1, 2}
    ours = STEPS(AcrobotState(*jnp.float32(before).T), jnp.asarray(actions), KEY, Acrobot().physics())
    np.testing.assert_allclose(ours.observation, observations, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(ours.reward, rewards)
    np.testing.assert_array_equal(ours.terminated, terminated)
    # The observations cannot tell an angle from one a turn further.
    assert (np.abs(after[:, :2] - before[:, :2]).max(0) > 3).all()
    settled = (np.abs(after[:, :2]) < 3.14).all(1)
    np.testing.assert_allclose(np.stack(ours.state, -1)[settled], after[settled], rtol=1e-5, atol=1e-5)


def test_an_episode_follows_gymnasiums(reference):
    observation, _ = reference.reset(seed=3)
    state = AcrobotState(*jnp.asarray(reference.unwrapped.state))
    actions = np.random.default_rng(3)
    for _ in range(60):
        action = int(actions.integers(3))
        observation, *_ = reference.step(action)
        state, ours, *_ = STEP(state, jnp.asarray(action), KEY, Acrobot().physics())
        np.testing.assert_allclose(ours, observation, atol=1e-4)


def test_changed_physics_equals_gymnasiums_changed_in_place(reference):
    changed = {
        "link_length_1": 1.3,
        "link_mass_1": 0.8,
        "link_mass_2": 1.4,
        "link_com_pos_1": 0.6,
        "link_com_pos_2": 0.4,
        "link_moi": 1.2,
        "max_vel_1": 2.0,
        "max_vel_2": 3.0,
        "dt": 0.1,
    }
    environment = reference.unwrapped
    for name, value in changed.items():
        setattr(environment, ATTRIBUTES[name], value)
    environment.AVAIL_TORQUE = [-2.0, 0.0, 2.0]
    before, _, actions, observations, _, _ = record(environment, 400, seed=1)
    # Both limits of velocity must have been met, or they would not be tested.
    assert (np.abs(observations[:, 4:]).max(0) == np.float32([2.0, 3.0])).all()
    ours = STEPS(
        AcrobotState(*jnp.float32(before).T), jnp.asarray(actions), KEY, Acrobot().physics() | changed | {"torque": 2.0}
    )
    np.testing.assert_allclose(ours.observation, observations, rtol=1e-5, atol=1e-5)


def test_gravity_alone_sets_the_frequency_of_small_swings():
    """Scaling gravity by 4 and time by 1/2 leaves a free pendulum's path as it was."""
    physics = Acrobot().physics()
    start = AcrobotState(*jnp.float32([0.3, -0.2, 0.0, 0.0]))
    fast = physics | {"gravity": 4 * physics["gravity"], "dt": physics["dt"] / 2}
    slow = STEP(start, jnp.asarray(1), KEY, physics).state
    quick = STEP(start, jnp.asarray(1), KEY, fast).state
    np.testing.assert_allclose(quick, np.array(slow) * [1, 1, 2, 2], rtol=1e-5)
    assert abs(float(slow.theta1) - 0.3) > 0.01


def test_resets_are_uniform_and_observed():
    keys = jax.random.split(jax.random.key(0), 4000)
    state, observation = jax.jit(jax.vmap(Acrobot().reset, in_axes=(0, None)))(keys, Acrobot().physics())
    angles = np.stack(state[:2], -1)
    expected = np.stack([np.cos(angles), np.sin(angles)], -1).reshape(-1, 4)
    np.testing.assert_allclose(observation, np.hstack([expected, np.stack(state[2:], -1)]), atol=1e-6)
    values = np.stack(state, -1)
    assert np.abs(values).max() <= 0.1
    np.testing.assert_allclose(values.mean(0), 0, atol=0.004)
    np.testing.assert_allclose(values.std(0), 0.2 / 12**0.5, rtol=0.03)
