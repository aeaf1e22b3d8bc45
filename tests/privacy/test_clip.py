"""Clipping: the bound holds for all float32 vectors, and nothing shorter is changed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedrax.privacy.clip import clipped, or_zeros

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
UPDATES = arrays(np.float32, (3, 4), elements=FLOATS)
clip_rows = jax.jit(jax.vmap(lambda x, y, bound: clipped({"x": x, "y": y}, bound)))
clip_vector = jax.jit(clipped)
clip_layers = jax.jit(lambda update, bound: clipped({"x": update[0], "y": update[1:]}, bound, by_layer=True))


def exact(update):
    """The norm in double precision."""
    return np.sqrt(sum(np.square(np.asarray(x), dtype=np.float64).sum() for x in jax.tree.leaves(update)))


@settings(max_examples=300)
@given(UPDATES, st.floats(1e-6, 1e6))
def test_no_layers_are_longer_than_the_bound(update, bound):
    bound = np.float32(bound)
    assert exact(clip_layers(update, bound)) <= bound


def test_nothing_is_longer_than_the_bound():
    """10,000 vectors of all magnitudes that float32 has, and bounds."""
    draws = np.random.default_rng(0)
    x, y = (np.float32(draws.normal(size=(10_000, n)) * 10.0 ** draws.uniform(-37, 37, (10_000, 1))) for n in (5, 40))
    bounds = np.float32(10.0 ** draws.uniform(-6, 6, 10_000))
    after = clip_rows(x, y, bounds)
    lengths = np.sqrt(sum(np.square(np.asarray(each), dtype=np.float64).sum(1) for each in after.values()))
    assert (lengths <= bounds).all()
    assert (lengths > 0.999 * bounds).any()


@pytest.mark.parametrize("size", [1, 7, 100_000, 2_000_000])
def test_the_bound_holds_for_many_numbers_too(size):
    update = {"w": jax.random.normal(jax.random.key(size), (size,)) * 1e3}
    after = clipped(update, 1.0)
    assert 0.999 < exact(after) <= 1.0


def test_a_known_vector():
    after = clipped({"a": jnp.array([3.0, 0.0]), "b": jnp.array([[4.0]])}, 1.0)
    np.testing.assert_allclose(after["a"], [0.6, 0.0], rtol=1e-5)
    np.testing.assert_allclose(after["b"], [[0.8]], rtol=1e-5)


def test_each_layer_gets_an_equal_share():
    after = clipped({"a": jnp.array([3.0, 0.0]), "b": jnp.array([0.1])}, 1.0, by_layer=True)
    np.testing.assert_allclose(after["a"], [np.sqrt(0.5), 0.0], rtol=1e-5)
    np.testing.assert_array_equal(after["b"], np.float32([0.1]))


def test_what_is_shorter_stays_as_it_is_to_the_bit():
    update = {"a": jnp.array([0.1, -0.2]), "b": jnp.array([0.3])}
    for by_layer in (False, True):
        jax.tree.map(np.testing.assert_array_equal, clipped(update, 1.0, by_layer=by_layer), update)


def test_zeros_and_nothing_have_no_direction():
    np.testing.assert_array_equal(clipped(jnp.zeros(3), 1.0), jnp.zeros(3))
    assert clipped((), 1.0) == ()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_can_be_read_as_zeros(bad):
    update = {"a": jnp.array([1.0, bad]), "b": jnp.array([2.0])}
    jax.tree.map(np.testing.assert_array_equal, or_zeros(update), {"a": jnp.zeros(2), "b": jnp.zeros(1)})
    assert not np.isfinite(exact(clipped(update, 1.0)))


@settings(max_examples=200)
@given(arrays(np.float32, 6, elements=st.floats(-(2.0**127), 2.0**127, width=32)), st.floats(1e-3, 1e3))
def test_a_clipped_vector_points_the_same_way(vector, clip):
    found = np.asarray(clip_vector(jnp.asarray(vector), clip), np.float64)
    length = np.linalg.norm(vector.astype(np.float64))
    if length <= clip * (1 - 3e-6):
        np.testing.assert_array_equal(found, vector)
    else:
        np.testing.assert_allclose(found, vector * (clip / length), rtol=1e-4, atol=clip * 1e-6)
