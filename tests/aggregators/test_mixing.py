"""Pre-aggregators: bucketing, and the properties of both. ByzFL's values for mixing are in test_byzfl.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.aggregators.base import aggregators, preaggregators

KEY = jax.random.key(0)
VECTORS = np.random.default_rng(0).normal(size=(11, 4)).astype(np.float32)
PRESENT = np.array([1, 1, 0, 1, 1, 0, 1, 1, 1, 0, 1], bool)


def mix(name, vectors, weights, tolerated=2, key=KEY, **options):
    mixing = preaggregators.build(name, options)
    mixed, row_weights, row = jax.jit(mixing, static_argnums=2)(
        jnp.asarray(vectors), jnp.asarray(weights, jnp.float32), tolerated, key=key
    )
    assert mixed.shape == (mixing.rows(len(vectors)), vectors.shape[1])
    return np.asarray(mixed), np.asarray(row_weights), np.asarray(row)


@pytest.mark.parametrize("size", [1, 2, 3, 20])
def test_buckets_are_means_of_their_members(size):
    mixed, weights, row = mix("bucketing", VECTORS, PRESENT, size=size)
    for bucket, weight in enumerate(weights):
        members = PRESENT & (row == bucket)
        assert members.sum() == weight
        if weight:
            np.testing.assert_allclose(mixed[bucket], VECTORS[members].mean(0), rtol=1e-5)
    # As full as can be: only the last one may be smaller.
    expected = [size] * (8 // size) + ([8 % size] if 8 % size else [])
    assert weights[weights > 0].tolist() == expected


def test_buckets_are_drawn():
    arrays = jnp.asarray(VECTORS), jnp.asarray(PRESENT * 1.0)
    rows = jax.vmap(lambda key: preaggregators.build("bucketing", {})(*arrays, 0, key=key)[2])
    drawn = np.asarray(jax.jit(rows)(jax.random.split(KEY, 400)))
    together = (drawn[:, 0] == drawn[:, 1]).mean()
    # One of the seven others, by chance.
    assert 0.07 < together < 0.22


def test_bucketing_keeps_the_weighted_mean():
    weights = np.arange(11.0)
    mixed, row_weights, _ = mix("bucketing", VECTORS, weights, size=3)
    rule = aggregators.build("weighted-mean", {})
    before = rule(jnp.asarray(VECTORS), jnp.asarray(weights), key=KEY).vector
    np.testing.assert_allclose(
        rule(jnp.asarray(mixed), jnp.asarray(row_weights), key=KEY).vector, before, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("name", ["bucketing", "nearest-neighbour-mixing"])
def test_absent_is_removed(name):
    junk = np.where(PRESENT[:, None], VECTORS, 3e38).astype(np.float32)
    masked, weights, row = mix(name, junk, PRESENT)
    removed, _, removed_row = mix(name, VECTORS[PRESENT], np.ones(PRESENT.sum()))
    np.testing.assert_allclose(masked[weights > 0], removed, rtol=1e-5, atol=1e-6)
    if name == "bucketing":
        np.testing.assert_array_equal(row[PRESENT], removed_row)


@pytest.mark.parametrize("name", ["bucketing", "nearest-neighbour-mixing"])
@pytest.mark.parametrize("present", [np.zeros(11), np.eye(11)[4], np.ones(11)])
def test_always_finite(name, present):
    vectors = VECTORS.copy()
    vectors[:3] = [[3.4e38], [-3.4e38], [1e30]]
    mixed, weights, _ = mix(name, vectors, present)
    assert np.isfinite(mixed).all()
    assert weights.sum() == present.sum()
    assert (mixed[weights == 0] == 0).all()
    if present.sum() == 1:
        np.testing.assert_array_equal(mixed[weights > 0], vectors[4:5])


def test_honest_vectors_mix_among_themselves():
    vectors = VECTORS.copy()
    vectors[:3] = 1e30
    mixed, _, _ = mix("nearest-neighbour-mixing", vectors, np.ones(11), tolerated=3)
    np.testing.assert_allclose(mixed[3:], np.repeat(vectors[3:].mean(0)[None], 8, 0), rtol=1e-5, atol=1e-6)
