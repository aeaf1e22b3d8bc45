"""The continuous CartPole: CartPole's dynamics under another force, known by its own id everywhere."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.cli import main
from fedrax.environments.base import Box
from fedrax.environments.native import native_environments
from fedrax.environments.native.cartpole import CartPole, CartPoleState
from fedrax.environments.native.continuous_cartpole import ContinuousCartPole
from fedrax.environments.registry import describe_environment
from fedrax.errors import FedraxError

ID = "ContinuousCartPole-v0"
STEP = jax.jit(ContinuousCartPole().step)
KEY = jax.random.key(0)
PHYSICS = ContinuousCartPole().physics()


def test_it_is_registered_and_described():
    assert native_environments[ID] is ContinuousCartPole
    described = describe_environment(ID)
    assert described.native
    assert described.time_limit == 300
    assert described.spaces.action == Box((1,), (-1.0,), (1.0,))
    assert described.spaces.observation == CartPole.spaces.observation
    assert CartPole().physics() | {"force_mag": 30.0} == PHYSICS


def test_it_exists_in_jax_only():
    with pytest.raises(FedraxError, match=f"{ID!r} exists in JAX only; set environment.native=true"):
        describe_environment(ID, native=False)
    with pytest.raises(FedraxError, match=f"did you mean {ID!r}"):
        describe_environment("ContinuousCartPole-v1")


def test_the_command_line_knows_it(capsys):
    assert main(["describe", ID]) == 0
    shown = capsys.readouterr().out
    assert "environment.heterogeneity.force_mag = 30.0" in shown
    assert "action_noise_std" in shown
    assert "time limit   300 steps" in shown
    assert main(["list"]) == 0
    assert ID in capsys.readouterr().out


@pytest.mark.parametrize("action", [-1.0, -0.3, 0.0, 0.7, 1.0])
def test_an_action_is_a_share_of_the_force(action):
    """Gymnasium's CartPole under the same force, step for step until it falls."""
    environment = gymnasium.make("CartPole-v1").unwrapped
    environment.force_mag = 30 * abs(action)
    observation, _ = environment.reset(seed=2)
    state = CartPoleState(*jnp.asarray(observation))
    terminated = False
    while not terminated:
        observation, reward, terminated, *_ = environment.step(int(action > 0))
        state, ours, ours_reward, ours_terminated, _ = STEP(state, jnp.float32([action]), KEY, PHYSICS)
        np.testing.assert_allclose(ours, observation, rtol=1e-4, atol=1e-5)
        assert float(ours_reward) == reward == 1.0
        assert bool(ours_terminated) == terminated


def test_actions_beyond_their_bounds_are_the_bounds():
    start = CartPoleState(*jnp.float32([0.1, 0.0, 0.02, 0.1]))
    for action, bound in ((5.0, 1.0), (-5.0, -1.0)):
        beyond, at = (STEP(start, jnp.float32([a]), KEY, PHYSICS).observation for a in (action, bound))
        np.testing.assert_array_equal(beyond, at)
    assert not np.array_equal(*(STEP(start, jnp.float32([a]), KEY, PHYSICS).observation for a in (1.0, 0.9)))


def test_it_starts_as_cartpole_does():
    ours, cartpole = (kind().reset(KEY, kind().physics()) for kind in (ContinuousCartPole, CartPole))
    np.testing.assert_array_equal(ours[1], cartpole[1])
