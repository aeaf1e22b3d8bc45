"""Our CartPole against Gymnasium's, step for step."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.environments.base import Box, Discrete
from fedrax.environments.native import native_environments
from fedrax.environments.native.cartpole import CartPole, CartPoleState
from fedrax.errors import FedraxError

STEP = jax.jit(CartPole().step)


@pytest.fixture(scope="module")
def reference():
    environment = gymnasium.make("CartPole-v1")
    yield environment
    environment.close()


def test_it_is_registered_under_its_gymnasium_id():
    assert native_environments["CartPole-v1"] is CartPole
    with pytest.raises(FedraxError, match="did you mean 'CartPole-v1'"):
        native_environments["CartPole-v2"]


def test_spaces_limit_and_constants_are_those_of_gymnasium(reference):
    spaces, space = CartPole.spaces, reference.observation_space
    assert isinstance(spaces.observation, Box)
    assert spaces.action == Discrete(2)
    np.testing.assert_allclose(np.float32(spaces.observation.low), space.low)
    np.testing.assert_allclose(np.float32(spaces.observation.high), space.high)
    assert CartPole.time_limit == reference.spec.max_episode_steps
    for name, value in CartPole().physics().items():
        assert getattr(reference.unwrapped, name) == value, name


@pytest.mark.parametrize("seed", range(8))
def test_random_episodes_equal_gymnasiums_up_to_rounding(reference, seed):
    physics = CartPole().physics()
    observation, _ = reference.reset(seed=seed)
    state = CartPoleState(*jnp.asarray(observation))
    actions = np.random.default_rng(seed)
    terminated = False
    while not terminated:
        action = int(actions.integers(2))
        observation, reward, terminated, _, _ = reference.step(action)
        ours = STEP(state, jnp.asarray(action), jax.random.key(0), physics)
        np.testing.assert_allclose(ours.observation, observation, rtol=1e-5, atol=2e-6)
        assert float(ours.reward) == reward
        assert bool(ours.terminated) == terminated
        state = ours.state


def test_every_step_of_a_balanced_episode_equals_gymnasiums(reference):
    physics = CartPole().physics()
    before, _ = reference.reset(seed=0)
    for step in range(500):
        x, x_dot, theta, theta_dot = before
        action = int(theta + 0.5 * theta_dot + 0.02 * x + 0.05 * x_dot > 0)
        after, _, terminated, truncated, _ = reference.step(action)
        ours = STEP(CartPoleState(*jnp.asarray(before)), jnp.asarray(action), jax.random.key(0), physics)
        np.testing.assert_allclose(ours.observation, after, rtol=1e-5, atol=1e-6)
        assert not terminated
        assert not ours.terminated
        assert truncated == (step == 499)
        before = after


def test_changed_physics_equals_gymnasiums_changed_in_place():
    changed = {"gravity": 7.0, "masscart": 1.5, "masspole": 0.3, "length": 0.8, "force_mag": 6.0, "tau": 0.01}
    physics = CartPole().physics() | changed
    environment = gymnasium.make("CartPole-v1").unwrapped
    for name, value in changed.items():
        setattr(environment, name, value)
    environment.total_mass = environment.masspole + environment.masscart
    environment.polemass_length = environment.masspole * environment.length
    observation, _ = environment.reset(seed=1)
    state = CartPoleState(*jnp.asarray(observation))
    for action in (0, 1, 1, 0, 1, 1, 1, 0):
        observation, *_ = environment.step(action)
        ours = STEP(state, jnp.asarray(action), jax.random.key(0), physics)
        np.testing.assert_allclose(ours.observation, observation, rtol=1e-5, atol=1e-6)
        state = ours.state


@pytest.mark.parametrize(
    ("state", "terminated"),
    [
        ((2.39, 0.0, 0.0, 0.0), False),
        ((2.39, 1.0, 0.0, 0.0), True),
        ((-2.39, -1.0, 0.0, 0.0), True),
        ((0.0, 0.0, 0.2, 0.0), False),
        ((0.0, 0.0, 0.2, 1.0), True),
        ((0.0, 0.0, -0.2, -1.0), True),
    ],
)
def test_an_episode_ends_at_the_thresholds(state, terminated):
    start = CartPoleState(*map(jnp.float32, state))
    after = STEP(start, jnp.asarray(1), jax.random.key(0), CartPole().physics())
    assert bool(after.terminated) == terminated
    np.testing.assert_array_equal(after.observation, jnp.stack(after.state))


def test_resets_are_uniform_and_observed():
    keys = jax.random.split(jax.random.key(0), 4000)
    state, observation = jax.vmap(CartPole().reset, in_axes=(0, None))(keys, CartPole().physics())
    np.testing.assert_array_equal(observation, jnp.stack(state, -1))
    assert np.abs(observation).max() <= 0.05
    np.testing.assert_allclose(observation.mean(0), 0, atol=0.002)
    np.testing.assert_allclose(observation.std(0), 0.1 / 12**0.5, rtol=0.03)
