"""Noise on observations and actions, around environments that know nothing of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrax.config import resolve
from fedrax.environments.base import Box, NativeEnvironment, Spaces, Transition
from fedrax.environments.native import native_environments
from fedrax.environments.native.cartpole import CartPole
from fedrax.environments.native.pendulum import Pendulum
from fedrax.environments.native_noise import Noisy, with_noise
from fedrax.environments.noise import NOISE
from fedrax.errors import FedraxError
from fedrax.runtime.draws import make_environment, physics_draws, unseen_draws

KEYS = jax.random.split(jax.random.key(1), 4000)


class Echo(NativeEnvironment):
    """Pays the first number of the action it was given."""

    spaces = Spaces(Box((2,), (-1.0, -1.0), (1.0, 1.0)), Box((2,), (-1.0, 0.0), (1.0, 10.0)))
    time_limit = 7

    def physics(self):
        return {"offset": 0.0}

    def reset(self, key, physics):
        return jnp.zeros(2), jnp.zeros(2)

    def step(self, state, action, key, physics):
        return Transition(action, action, action[0], action[0] > 2)


def steps(names, action, **physics):
    environment = with_noise(Echo(), names)
    table = environment.physics() | physics
    return jax.vmap(environment.step, (None, None, 0, None))(jnp.zeros(2), jnp.float32(action), KEYS, table)


def config(*overrides, id="Pendulum-v1", agents=3):
    return resolve({}, [f"environment={id}", f"federation.agents={agents}", "budget.rounds=1", *overrides])


def test_an_environment_without_noise_is_not_wrapped():
    environment = Echo()
    assert with_noise(environment, ["offset"]) is environment
    for overrides in (
        [],
        ["environment.heterogeneity.l=[1.0, 1.1, 1.2]"],
        ["environment.heterogeneity.distribution=fedtd3"],
    ):
        assert type(make_environment(config(*overrides))) is Pendulum
        assert not NOISE.keys() & {name for physics in physics_draws(config(*overrides)) for name in physics}


@pytest.mark.parametrize(
    "id",
    [
        "Acrobot-v1",
        "CartPole-v1",
        "ContinuousCartPole-v0",
        "MiniGrid-SimpleCrossingS9N1-v0",
        "MountainCarContinuous-v0",
        "Pendulum-v1",
    ],
)
def test_native_environments_can_be_observed_with_noise(id):
    plain = native_environments[id]()
    noisy = with_noise(plain, ["observation_noise_std"])
    assert (noisy.spaces, noisy.time_limit, noisy.frames_per_second) == (
        plain.spaces,
        plain.time_limit,
        plain.frames_per_second,
    )
    physics = noisy.physics() | {"observation_noise_mean": 0.5, "observation_noise_std": 0.1}
    (state, seen), (inner_state, observation) = (jax.jit(kind.reset)(KEYS[0], physics) for kind in (noisy, plain))
    jax.tree.map(np.testing.assert_array_equal, state, inner_state)
    noise = np.asarray(seen - observation)
    assert noise.shape == plain.spaces.observation.shape
    assert np.unique(noise).size > 1
    assert np.abs(noise - 0.5).max() < 0.6
    np.testing.assert_array_equal(noisy.draw(state, physics), plain.draw(inner_state, physics))


def test_observation_noise_has_one_mean_and_independent_deviations():
    after = steps(["observation_noise_mean"], [0.3, 4.0], observation_noise_mean=-0.7, observation_noise_std=0.2)
    noise = np.asarray(after.observation) - np.float32([0.3, 4.0])
    np.testing.assert_allclose(noise.mean(0), -0.7, atol=0.015)
    np.testing.assert_allclose(noise.std(0), 0.2, rtol=0.04)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.06
    np.testing.assert_allclose(after.state, np.tile(np.float32([0.3, 4.0]), (len(KEYS), 1)))
    np.testing.assert_allclose(after.reward, 0.3)


def test_action_noise_is_a_share_of_half_the_range():
    after = steps(["action_noise_std"], [0.0, 5.0], action_noise_std=0.1)
    np.testing.assert_allclose(after.state.mean(0), [0, 5], atol=0.03)
    np.testing.assert_allclose(after.state.std(0), [0.1, 0.5], rtol=0.04)
    np.testing.assert_array_equal(after.observation, after.state)
    np.testing.assert_array_equal(after.reward, after.state[:, 0])


def test_noisy_actions_are_clipped():
    after = steps(["action_noise_std"], [0.9, 0.1], action_noise_std=1.0)
    np.testing.assert_array_equal(after.state.min(0), [-1, 0])
    np.testing.assert_array_equal(after.state.max(0), [1, 10])
    np.testing.assert_array_equal(steps(["action_noise_std"], [3.0, -2.0]).state[0], [1, 0])
    # Without noise on actions, nothing touches them.
    np.testing.assert_array_equal(steps(["observation_noise_std"], [3.0, -2.0]).state[0], [3, -2])


def test_noise_on_actions_and_on_observations_differ():
    after = steps(list(NOISE), [0.0, 5.0], observation_noise_std=0.1, action_noise_std=0.1)
    seen = np.asarray(after.observation - after.state)
    assert abs(np.corrcoef(seen[:, 0], after.state[:, 0])[0, 1]) < 0.06


@given(seed=st.integers(0, 2**31 - 1), action=st.integers(0, 1))
@settings(max_examples=20)
def test_noise_of_strength_0_changes_no_number(seed, action):
    plain, noisy, key = CartPole(), with_noise(CartPole(), ["observation_noise_std"]), jax.random.key(seed)
    state, observation = plain.reset(key, plain.physics())
    np.testing.assert_array_equal(noisy.reset(key, noisy.physics())[1], observation)
    ours = noisy.step(state, jnp.asarray(action), key, noisy.physics())
    jax.tree.map(np.testing.assert_array_equal, ours, plain.step(state, jnp.asarray(action), key, plain.physics()))


def test_the_table_gives_every_agent_its_noise():
    settings = config(
        "environment.heterogeneity.observation_noise_mean=[0.1, 0.2, 0.3]",
        "environment.heterogeneity.action_noise_std={distribution='uniform', low=0.1, high=0.2}",
    )
    environment, draws = make_environment(settings), physics_draws(settings)
    assert isinstance(environment, Noisy)
    assert [physics.keys() for physics in draws] == [environment.physics().keys()] * 3
    assert [physics["observation_noise_mean"] for physics in draws] == [0.1, 0.2, 0.3]
    assert {physics["observation_noise_std"] for physics in draws} == {0.0}
    assert len({physics["action_noise_std"] for physics in draws}) == 3
    unseen = config("environment.heterogeneity.action_noise_std={distribution='uniform', low=0.1, high=0.2}")
    assert all(0.1 <= physics["action_noise_std"] < 0.2 for physics in unseen_draws(unseen, 2))


@pytest.mark.parametrize(
    ("overrides", "id", "message"),
    [
        (
            ["observation_noise_sdt=0.1"],
            "Pendulum-v1",
            "(did you mean 'observation_noise_std'?); allowed: action_noise_std, ",
        ),
        (["observation_noise_std=-0.1"], "CartPole-v1", "a standard deviation is at least 0"),
        (["action_noise_std=-0.1"], "Pendulum-v1", "a standard deviation is at least 0"),
        (["action_noise_std=0.1"], "CartPole-v1", "needs continuous actions between finite bounds, and CartPole has"),
        (["observation_noise_std=0.1", "l=0"], "Pendulum-v1", "l = 0 is not allowed: it must be above 0"),
    ],
)
def test_mistakes_are_one_line(overrides, id, message):
    settings = config(*(f"environment.heterogeneity.{text}" for text in overrides), id=id)
    with pytest.raises(FedraxError) as error:
        physics_draws(settings)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_unbounded_actions_have_no_noise():
    class Unbounded(Echo):
        spaces = Spaces(Echo.spaces.observation, Box((1,), (-jnp.inf,), (jnp.inf,)))

    with pytest.raises(FedraxError, match="finite bounds, and Unbounded has"):
        with_noise(Unbounded(), ["action_noise_std"])
