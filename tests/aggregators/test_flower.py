"""The rules against Flower's own, which compute in float64: random matrices of several sizes and scales."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.aggregators.base import aggregators

flower = pytest.importorskip("flwr.server.strategy.aggregate")
KEY = jax.random.key(0)


@functools.cache
def compiled(name, f):
    rule = aggregators.build(name, {"tolerated": f})
    return jax.jit(lambda vectors: rule(vectors, jnp.ones(len(vectors)), key=KEY).vector)


def theirs(name, vectors, f):
    results = [([row], 1) for row in vectors]
    if name == "median":
        return flower.aggregate_median(results)[0]
    if name == "trimmed-mean":
        # Their count is a share, rounded down.
        return flower.aggregate_trimmed_avg(results, (f + 0.5) / len(vectors))[0]
    return flower.aggregate_krum(results, f, len(vectors) - f if name == "multi-krum" else 0)[0]


@pytest.mark.parametrize("name", ["median", "trimmed-mean", "krum", "multi-krum"])
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
@pytest.mark.parametrize(("n", "d", "f"), [(5, 1, 1), (9, 4, 3), (16, 30, 2)])
def test_against_flower(name, scale, n, d, f):
    generator = np.random.default_rng(n)
    for _ in range(3):
        vectors = generator.normal(size=(n, d)).astype(np.float32)
        # Rows of other magnitudes, in the places of the first ids.
        vectors[:f] *= np.float32(10.0) ** generator.integers(-5, 5, size=(f, 1))
        vectors *= np.float32(scale)
        got = compiled(name, f)(jnp.asarray(vectors))
        exact = vectors.astype(np.float64)
        expected = theirs(name, exact / scale, f)
        np.testing.assert_allclose(np.asarray(got, np.float64) / scale, expected, rtol=1e-5, atol=1e-6)
