"""Distances against float64, at ordinary and at absurd magnitudes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedrax.aggregators import distances
from fedrax.aggregators.rows import average, length, lower_quantile, median, shorten

KEY = jax.random.key(0)
LARGEST = float(np.finfo(np.float32).max)


pairwise = jax.jit(distances.pairwise, static_argnames="exact")
within = jax.jit(distances.within, static_argnames="exact")
pairs = jax.jit(distances.pairs)
smallest = jax.jit(distances.smallest)


def reference(vectors):
    vectors = np.asarray(vectors, np.float64)
    return np.minimum(np.linalg.norm(vectors[:, None] - vectors, axis=-1), LARGEST)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("centre", [0.0, 1000.0])
def test_against_float64(exact, centre):
    vectors = np.random.default_rng(0).normal(centre, 0.05, (40, 60)).astype(np.float32)
    present = np.arange(40) % 5 > 0
    got = pairwise(vectors, present, exact=exact)
    both = np.outer(present, present)
    np.testing.assert_allclose(got[both], reference(vectors)[both], rtol=1e-6 if exact else 2e-5)
    assert np.isinf(got[~both]).all()
    assert (np.diag(got)[present] == 0).all()


def test_centring_is_what_saves_the_gram_form():
    """Without it, honest vectors 0.05 apart at a distance of 1,000 could not be told from equal ones."""
    vectors = np.random.default_rng(0).normal(1000.0, 0.05, (40, 60)).astype(np.float32)
    squares = np.square(vectors).sum(1)
    naive = np.sqrt(np.maximum(squares[:, None] + squares - 2 * vectors @ vectors.T, 0))
    apart = ~np.eye(40, dtype=bool)
    assert (np.abs(naive[apart] / reference(vectors)[apart] - 1) > 0.5).any()


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("huge", [1e12, 1e30, LARGEST])
@pytest.mark.parametrize("small", [1.0, 1e-25])
def test_huge_rows_leave_the_others_exact(exact, huge, small):
    vectors = small * np.random.default_rng(1).normal(size=(9, 30)).astype(np.float32)
    vectors[0], vectors[1], vectors[2] = huge, -huge, huge
    got = pairwise(vectors, np.ones(9, bool), exact=exact)
    np.testing.assert_allclose(got[3:, 3:], reference(vectors)[3:, 3:], rtol=1e-6 if exact else 2e-5)
    assert np.isfinite(got).all()
    assert (got[:2, 3:] > 1e10 * small).all()
    if exact:
        np.testing.assert_allclose(got, reference(vectors), rtol=1e-6)


@pytest.mark.training
@pytest.mark.parametrize("exact", [True, False])
def test_blocks_make_no_difference(monkeypatch, exact):
    vectors = jnp.asarray(np.random.default_rng(2).normal(size=(23, 7)), jnp.float32)
    present = jnp.arange(23) != 4
    radii = jnp.array([2.5, 4.0])
    whole = pairwise(vectors, present, exact=exact)
    counts = within(vectors, present, radii, exact=exact)
    monkeypatch.setattr(distances, "BLOCK", 23 * 7 * 5 if exact else 23 * 5)
    blocks = distances.pairwise(vectors, present, exact=exact)
    np.testing.assert_allclose(blocks, whole, rtol=1e-5)
    np.testing.assert_array_equal(distances.within(vectors, present, radii, exact=exact), counts)
    expected = (reference(vectors)[:, present, None] <= radii).sum(1) * present[:, None]
    np.testing.assert_array_equal(counts, expected)


def test_equal_rows_are_at_distance_zero():
    vectors = np.full((6, 3), 1234.5678, np.float32)
    assert (pairwise(vectors, np.ones(6, bool), exact=False) == 0).all()


@given(values=arrays(np.float32, 9, elements=st.floats(0, LARGEST, width=32)), rank=st.integers(1, 9))
@settings(max_examples=50)
def test_smallest_is_what_sorting_finds(values, rank):
    values = values.copy()
    values[4] = np.inf
    tiny = float(np.finfo(np.float32).tiny)
    got = float(smallest(values, rank))
    assert got == pytest.approx(float(np.sort(values)[rank - 1]), rel=0, abs=tiny)


def test_pairs():
    vectors = np.array([[0.0], [1.0], [3.0], [50.0], [7.0]], np.float32)
    found = pairs(vectors, np.array([1, 1, 1, 0, 1], bool), KEY)
    assert found.number == 6
    assert [float(found.smallest(rank)) for rank in (1, 2, 6, 99)] == [1, 2, 7, 7]
    # 1 2 3 4 6 7
    assert found.median == 3.5
    assert pairs(vectors, np.arange(5) == 2, KEY).median == 0


def test_pairs_of_many_are_pairs_of_those_present(monkeypatch):
    monkeypatch.setattr(distances, "PAIRED_ROWS", 10)
    vectors = jnp.arange(60.0)[:, None]
    present = jnp.arange(60) < 30
    found = pairs(jnp.where(present[:, None], vectors, 1e6), present, KEY)
    assert found.rows == 10
    assert found.smallest(45) < 30
    few = pairs(vectors, jnp.arange(60) % 20 == 0, KEY)
    assert few.rows == 3
    assert few.smallest(3) == 40


def test_rows_at_any_magnitude():
    vectors = jnp.array([[3.0, 4.0], [3e30, 4e30], [3e-30, -4e-30], [0.0, 0.0], [LARGEST, LARGEST]], np.float32)
    np.testing.assert_allclose(length(vectors), [5, 5e30, 5e-30, 0, LARGEST], rtol=1e-6)
    np.testing.assert_allclose(
        shorten(vectors, 1.0), [[0.6, 0.8], [0.6, 0.8], vectors[2], [0, 0], [0.5**0.5, 0.5**0.5]], rtol=1e-6
    )
    assert average(jnp.full((3, 1), LARGEST), jnp.ones(3)) == LARGEST


def test_medians_do_not_overflow():
    # Compiled, which is where the halves of a mean of two get factored out.
    largest = jnp.array([[LARGEST], [0.9 * LARGEST]])
    assert jax.jit(median)(largest, jnp.ones(2, bool)) <= LARGEST
    assert (
        jax.jit(lambda rows: distances.pairs(rows, jnp.ones(2, bool), KEY).median)(largest * jnp.array([[1], [-1]]))
        == LARGEST
    )


@given(vectors=arrays(np.float32, (7, 2), elements=st.floats(-1e6, 1e6, width=32)), count=st.integers(1, 7))
@settings(max_examples=50)
def test_order_statistics_of_those_present(vectors, count):
    present = jnp.arange(7) < count
    vectors = jnp.asarray(vectors)
    np.testing.assert_allclose(median(vectors, present), np.median(vectors[:count], axis=0), rtol=1e-6, atol=1e-30)
    for quantile in (0.0, 0.5, 0.9):
        expected = np.quantile(np.asarray(vectors, np.float64)[:count, 0], quantile, method="lower")
        assert lower_quantile(vectors[:, 0], present, quantile) == expected
