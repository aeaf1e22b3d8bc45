"""The geometric median: points known in closed form, and a proof of optimality for every other."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrax.aggregators.base import aggregators


@functools.cache
def compiled(**options):
    rule = aggregators.build("geometric-median", options)
    return jax.jit(lambda vectors, weights: rule(vectors, weights, key=jax.random.key(0)))


def run(vectors, weights=None, **options):
    vectors = jnp.asarray(vectors, jnp.float32)
    weights = jnp.ones(len(vectors)) if weights is None else jnp.asarray(weights, jnp.float32)
    return compiled(**options)(vectors, weights)


TRIANGLE = [[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(0.75)]]


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize(
    ("vectors", "weights", "expected"),
    [
        (TRIANGLE, None, [0.5, math.sqrt(3) / 6]),
        # An angle of more than 120 degrees holds the median at its vertex.
        ([[0, 0], [1, 0.1], [-1, 0.1]], None, [0, 0]),
        # The diagonals of a convex quadrilateral cross there.
        ([[0, 0], [4, 0], [5, 3], [0, 2]], None, [20 / 11, 12 / 11]),
        ([[-3.0], [1.0], [2.0], [9.0], [40.0]], None, [2.0]),
        ([[-3.0, -6.0], [1.0, 2.0], [2.0, 4.0]], None, [1.0, 2.0]),
        # Two copies of a vector outweigh any two others.
        ([[1, 2], [1, 2], [7, -3], [-5, 5]], None, [1, 2]),
        # Half of the weight holds its vector.
        ([[0, 0], [10, 0], [0, 10]], [2, 1, 1], [0, 0]),
        # Between two vectors of equal weight every point is optimal; the middle favours neither.
        ([[0, 0], [4, 2]], None, [2, 1]),
    ],
)
def test_known_points(vectors, weights, expected, scale):
    got = run(np.asarray(vectors) * scale, weights)
    np.testing.assert_allclose(np.asarray(got.vector, np.float64) / scale, expected, rtol=2e-5, atol=2e-5)
    assert got.metrics["median_excess"] <= 1e-6


def gap(vectors, weights, point):
    """An upper bound of ``F(point) / F* - 1`` in float64, from a feasible point of the dual problem.

    For any y with ``sum_i y_i = 0`` and ``|y_i| <= w_i``: ``F* >= sum_i y_i . v_i``.
    """
    vectors, weights, point = (np.asarray(x, np.float64) for x in (vectors, weights, point))
    offsets = (vectors - point) / (np.abs(vectors - point).max() or 1.0)
    distances = np.linalg.norm(offsets, axis=1)
    total = weights @ distances
    if total == 0:
        return 0.0
    bounds = []
    # Vectors at the point, up to float32's rounding, may pull with any part of their weight.
    for near in (distances <= 1e-5 * np.median(distances), distances == 0):
        y = np.where(near[:, None], 0.0, weights[:, None] * offsets / np.maximum(distances, 1e-300)[:, None])
        rest, held = y.sum(0), weights[near].sum()
        if held > 0:
            y[near] = -rest * min(1.0, held / max(np.linalg.norm(rest), 1e-300)) * (weights[near] / held)[:, None]
        rest = y.sum(0) / weights.sum()
        y = (y - rest * weights[:, None]) / (1 + np.linalg.norm(rest))
        bounds.append((y * offsets).sum())
    return total / max(max(bounds), 1e-300) - 1


def drawn(seed, n, d, kind):
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(n, d))
    if kind == "grid":
        vectors = generator.integers(-2, 3, size=(n, d)).astype(float)
    elif kind == "duplicates":
        vectors[: n // 2] = vectors[n - 1]
    elif kind == "near a line":
        vectors[:, 1:] *= 1e-2
    elif kind == "two magnitudes":
        vectors[: n // 3] *= 1e6
    return vectors


KINDS = ["normal", "grid", "duplicates", "near a line", "two magnitudes"]


@pytest.mark.parametrize("kind", KINDS)
@given(
    seed=st.integers(0, 2**32),
    shape=st.sampled_from([(3, 2), (4, 1), (4, 3), (9, 2), (8, 20)]),
    weighted=st.booleans(),
    exponent=st.integers(-30, 30),
)
@settings(max_examples=25)
def test_the_result_is_optimal(kind, seed, shape, weighted, exponent):
    n, _ = shape
    weights = np.random.default_rng(seed).uniform(0.2, 1.0, n) if weighted else np.ones(n)
    vectors = drawn(seed, *shape, kind).astype(np.float32) * np.float32(10.0**exponent)
    got = run(vectors, weights)
    weights = weights.astype(np.float32)
    # Near a line the result's own rounding turns the directions to the vectors beside it.
    assert gap(vectors, weights, got.vector) < (5e-4 if kind == "near a line" else 2e-5)
    totals = [weights @ np.linalg.norm(np.float64(vectors) - np.float64(x), axis=1) for x in [got.vector, *vectors]]
    assert totals[0] <= min(totals[1:]) * (1 + 1e-6)
    assert got.metrics["median_steps"] <= 100


def test_steps_are_counted_and_bounded():
    """Four vectors near a line, where Weiszfeld's steps alone need thousands."""
    vectors = drawn(1, 4, 3, "near a line")
    found = run(vectors)
    assert 1 < found.metrics["median_steps"] < 40
    assert found.metrics["median_excess"] < 1e-5
    cut = run(vectors, iterations=1)
    assert cut.metrics["median_steps"] == 1
    assert cut.metrics["median_excess"] > 1e-4


def test_nobody_takes_no_steps():
    got = run(np.ones((4, 2)), np.zeros(4))
    assert not got.valid
    assert got.metrics["median_steps"] == 0
    assert got.metrics["median_excess"] == 0
