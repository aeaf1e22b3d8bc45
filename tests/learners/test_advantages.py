"""Generalised advantages against their definition, and at the ends of episodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrax.environments.base import Steps
from fedrax.learners.advantages import generalised_advantages


def steps_of(reward, terminated, truncated):
    """One copy whose episodes end where said; the step after an end is no experience."""
    over = terminated | truncated
    valid = np.ones(len(reward), bool)
    for t in range(1, len(reward)):
        valid[t] = not (over[t - 1] and valid[t - 1])
    terminated, truncated = terminated & valid, truncated & valid & ~terminated
    rows = [jnp.asarray(x)[:, None] for x in (reward * valid, valid, terminated, truncated)]
    count = len(reward)
    zeros = jnp.zeros((count, 1))
    return Steps(jnp.zeros((count + 1, 1, 1)), (), zeros, rows[0], rows[1], rows[2], rows[3], zeros)


def by_definition(steps, values, discount, gae_lambda):
    """The sum of discounted temporal-difference errors up to the episode's end or the collection's."""
    reward, valid, terminated, over = (
        np.asarray(x)[:, 0] for x in (steps.reward, steps.valid, steps.terminated, steps.over)
    )
    result = np.zeros(len(reward))
    for t in range(len(reward)):
        factor = 1.0
        for k in range(t, len(reward) if valid[t] else t):
            following = 0.0 if terminated[k] else values[k + 1]
            result[t] += factor * (reward[k] + discount * following - values[k])
            factor *= discount * gae_lambda
            if over[k]:
                break
    return result


@pytest.mark.training
@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.floats(-2, 2), st.sampled_from(["on", "on", "terminated", "truncated"])), min_size=1, max_size=12
    ),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(0, 2**16),
)
def test_equal_to_the_definition(rows, discount, gae_lambda, seed):
    reward = np.array([row[0] for row in rows], np.float32)
    ends = np.array([row[1] for row in rows])
    steps = steps_of(reward, ends == "terminated", ends == "truncated")
    values = np.random.default_rng(seed).normal(size=len(rows) + 1).astype(np.float32)
    ours = generalised_advantages(steps, jnp.asarray(values)[:, None], discount=discount, gae_lambda=gae_lambda)
    np.testing.assert_allclose(ours[:, 0], by_definition(steps, values, discount, gae_lambda), atol=1e-4)


def test_a_time_limit_counts_the_last_observations_value_and_a_terminal_state_does_not():
    values = jnp.array([[1.0], [10.0], [100.0]])
    limit = steps_of(np.array([0.5, 0.0]), np.array([False, False]), np.array([True, False]))
    end = steps_of(np.array([0.5, 0.0]), np.array([True, False]), np.array([False, False]))
    at_limit = generalised_advantages(limit, values, discount=0.9, gae_lambda=0.95)
    at_end = generalised_advantages(end, values, discount=0.9, gae_lambda=0.95)
    np.testing.assert_allclose(at_limit[:, 0], [0.5 + 0.9 * 10.0 - 1.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(at_end[:, 0], [0.5 - 1.0, 0.0], rtol=1e-6)


def test_lambda_of_one_is_the_return_less_the_value():
    reward = np.array([1.0, 2.0, 3.0], np.float32)
    steps = steps_of(reward, np.array([False, False, True]), np.zeros(3, bool))
    values = jax.random.normal(jax.random.key(0), (4, 1))
    ours = generalised_advantages(steps, values, discount=1.0, gae_lambda=1.0)
    np.testing.assert_allclose(ours[:, 0], np.array([6.0, 5.0, 3.0]) - values[:3, 0], rtol=1e-5)
