"""Vectors as integers: unbiased, within their levels, and their sum as near as is said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.privacy.clip import clipped
from fedrax.privacy.secure_sum.quantise import quantised, restored


@pytest.mark.parametrize("bits", [8, 20, 30])
def test_values_on_a_level_are_exact(bits):
    levels = 2 ** (bits - 1)
    vector = jnp.array([-2.0, -1.0, 0.0, 0.5, 2.0])
    found = quantised(vector, 2.0, bits, jax.random.key(0))
    np.testing.assert_array_equal(found, np.array([-1, -0.5, 0, 0.25, 1]) * levels)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(restored(found, 2.0, bits), vector)


def test_what_is_between_two_levels_is_either_and_its_mean_exact():
    found = np.asarray(quantised(jnp.full(20_000, 0.3), 1.0, 8, jax.random.key(1)))
    assert set(found) == {38, 39}, "0.3 is 38.4 levels of 128"
    # Five standard deviations.
    assert abs(found.mean() - 38.4) < 5 * 0.49 / 20_000**0.5


def test_near_the_largest_level_rounding_is_unbiased_too():
    """float32 has few digits left there: adding a uniform number to the level would round up."""
    vector = jnp.full(50_000, (2**21 - 0.75) / 2**21)
    found = np.asarray(quantised(vector, 1.0, 22, jax.random.key(2)), np.int64) - 2**21
    assert set(found) == {-1, 0}
    assert abs(found.mean() + 0.75) < 5 * 0.44 / 50_000**0.5


def test_what_lies_outside_is_brought_to_the_bounds():
    vector = jnp.array([jnp.inf, -jnp.inf, jnp.nan, 1.5, -7.0])
    np.testing.assert_array_equal(quantised(vector, 1.0, 8, jax.random.key(0)), [128, -128, 0, 128, -128])


def test_the_sum_of_a_thousand_agents_is_the_plain_sum():
    """Within 1e-4 of C n, and where vectors add up rather than cancel, of the sum's own norm."""
    count, length, clip, bits = 1000, 400, 0.5, 20
    key = jax.random.key(3)
    raw = jax.random.normal(key, (count, length)) + 0.1
    vectors = jax.vmap(lambda vector: clipped(vector, clip))(raw)
    rows = jax.vmap(lambda vector, each: quantised(vector, clip, bits, each))(vectors, jax.random.split(key, count))
    total = np.asarray(rows).sum(0, dtype=np.int32)
    plain = np.asarray(vectors, np.float64).sum(0)
    error = np.asarray(restored(jnp.asarray(total), clip, bits), np.float64) - plain
    assert np.abs(error).max() < 2.0 ** -(bits - 1) * clip * count
    assert np.linalg.norm(error) < 1e-4 * clip * count
    assert np.linalg.norm(error) < 1e-4 * np.linalg.norm(plain)
