"""Noise on observations and actions of host environments."""

import gymnasium
import numpy as np
import pytest

from fedrax.environments.host import make_host, make_single
from fedrax.environments.host_noise import Noise
from fedrax.environments.host_parameters import host_defaults, with_noise
from fedrax.errors import FedraxError

from probe import PROBE


class Mirror(gymnasium.Env):
    """Observes five zeros; keeps what it was told to do."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (5,), np.float32)
    action_space = gymnasium.spaces.Box(np.array([-1, 0], np.float32), np.array([1, 8], np.float32))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.done = []
        return np.zeros(5, np.float32), {}

    def step(self, action):
        self.done.append(action)
        return np.zeros(5, np.float32), 0.0, False, False, {}


def rolled(seed, steps=2000, **noise):
    environment = Noise(Mirror(), **noise)
    first, _ = environment.reset(seed=seed)
    action = np.array([0.0, 4.0], np.float32)
    later = [environment.step(action)[0] for _ in range(steps)]
    return np.array([first, *later]), np.array(environment.unwrapped.done)


def test_observation_noise_has_its_mean_and_spread_from_the_reset_on():
    seen, done = rolled(0, observation_noise_mean=-0.5, observation_noise_std=0.2)
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen.mean(0), -0.5, atol=0.02)
    np.testing.assert_allclose(np.cov(seen.T), 0.04 * np.eye(5), atol=0.005)
    assert (seen[0] != 0).all()
    np.testing.assert_array_equal(done, [[0.0, 4.0]] * len(done))


def test_without_spread_every_observation_is_off_by_the_mean():
    seen, _ = rolled(0, steps=5, observation_noise_mean=0.25)
    np.testing.assert_array_equal(seen, np.full((6, 5), 0.25, np.float32))


def test_action_noise_is_in_half_ranges_and_clipped():
    seen, done = rolled(0, action_noise_std=0.5)
    np.testing.assert_array_equal(seen, np.zeros_like(seen))
    assert done.dtype == np.float32
    inside = (done > [-1, 0]) & (done < [1, 8])
    # Two standard deviations on either side of the middle are within bounds.
    np.testing.assert_allclose(inside.mean(0), 0.9545, atol=0.02)
    np.testing.assert_array_equal(done.min(0), [-1, 0])
    np.testing.assert_array_equal(done.max(0), [1, 8])
    # Clipped to two deviations, a standard normal's variance is 0.9205.
    np.testing.assert_allclose(done.std(0), np.sqrt(0.9205) * 0.5 * np.array([1.0, 4.0]), rtol=0.04)
    np.testing.assert_allclose(np.corrcoef(done.T)[0, 1], 0, atol=0.06)


def test_noise_comes_from_the_seed_and_leaves_the_environments_own_draws_alone():
    noise = {"observation_noise_std": 0.1, "action_noise_std": 0.1}
    for once, again in zip(rolled(3, 20, **noise), rolled(3, 20, **noise), strict=True):
        np.testing.assert_array_equal(once, again)
    assert not np.array_equal(rolled(3, 20, **noise)[0], rolled(4, 20, **noise)[0])
    parameters = {**host_defaults("CartPole-v1"), "observation_noise_mean": 1.0}
    exact, noisy = (make_single("CartPole-v1", 500, parameters=each) for each in (None, parameters))
    for seed in (5, None, None):
        off = noisy.reset(seed=seed)[0] - exact.reset(seed=seed)[0]
        np.testing.assert_allclose(off, 1.0, atol=1e-6)


def test_a_second_episode_has_other_noise_than_the_first():
    environment = Noise(Mirror(), observation_noise_std=1.0)
    first, _ = environment.reset(seed=1)
    second, _ = environment.reset()
    assert not np.array_equal(first, second)


def test_environments_without_noise_are_not_wrapped():
    environment = Mirror()
    assert with_noise(environment, host_defaults("CartPole-v1")) is environment


def test_copies_differ_within_one_vector_environment():
    means = [0.0, 2.0, 0.0]
    parameters = [{**host_defaults("CartPole-v1"), "observation_noise_mean": mean} for mean in means]
    environments = make_host("CartPole-v1", 3, backend="auto", parameters=parameters)
    environments.reseed(np.array([9, 9, 9]))
    first = environments.reset()
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_allclose(first[1] - first[0], 2.0, atol=1e-6)
    observation, *_ = environments.step(np.zeros(3, np.int32))
    np.testing.assert_allclose(observation[1] - observation[0], 2.0, atol=1e-6)
    environments.close()


def test_noise_that_cannot_be_added_is_refused():
    with pytest.raises(
        FedraxError,
        match="it needs continuous actions between finite bounds, and 'Fedrax",
    ):
        make_single(PROBE, 50, parameters={**host_defaults(PROBE), "action_noise_std": 0.1})
    whole = gymnasium.wrappers.TransformObservation(
        Mirror(), lambda seen: seen.astype(np.uint8), gymnasium.spaces.Box(0, 255, (5,), np.uint8)
    )
    with pytest.raises(
        FedraxError, match=r"observation_noise_\* need observations that are real numbers in one array, and those of"
    ):
        Noise(whole, observation_noise_std=0.1)
    with pytest.raises(FedraxError, match=r"'envpool' cannot vary 'CartPole-v1'.*set environment.backend=gymnasium"):
        make_host("CartPole-v1", 1, backend="envpool", parameters=[host_defaults("CartPole-v1")])
