"""Groups of agents by the cosines of their updates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from fedrax.strategies.clustering import average_linkage, cosines, running_mean

linked = jax.jit(average_linkage, static_argnames="clusters")


def test_cosines_at_any_magnitude():
    rows = jnp.array([[3e-30, 4e-30], [8e30, -6e30], [-6.0, -8.0], [0.0, 0.0]])
    expected = [[1, 0, -1, 0], [0, 1, 0, 0], [-1, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(cosines(rows), expected, atol=1e-6)


def test_linkage_joins_the_most_alike_on_average():
    """0 and 2 join first (0.9), then 1 and 3 (0.5); the two groups are at (0.1 + 0.4 + 0.3 + 0.2) / 4 = 0.25."""
    similarity = np.eye(4)
    for (a, b), value in {(0, 2): 0.9, (1, 3): 0.5, (0, 1): 0.1, (0, 3): 0.4, (1, 2): 0.3, (2, 3): 0.2}.items():
        similarity[a, b] = similarity[b, a] = value
    similarity = jnp.asarray(similarity)
    assert linked(similarity, threshold=0.95).tolist() == [0, 1, 2, 3]
    assert linked(similarity, threshold=0.6).tolist() == [0, 1, 0, 3]
    assert linked(similarity, threshold=0.26).tolist() == [0, 1, 0, 1]
    assert linked(similarity, threshold=0.24).tolist() == [0, 0, 0, 0]
    assert linked(similarity, clusters=3).tolist() == [0, 1, 0, 3]
    assert linked(similarity, clusters=2).tolist() == [0, 1, 0, 1]
    assert linked(similarity).tolist() == [0, 0, 0, 0]


def test_one_agent_is_its_own_group():
    assert linked(jnp.ones((1, 1))).tolist() == [0]


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_groups_are_those_of_scipy(seed, clusters):
    similarity = np.random.default_rng(seed).uniform(-1, 1, (6, 6)).astype(np.float32)
    similarity = (similarity + similarity.T) / 2
    tree = linkage(squareform(1 - similarity, checks=False), "average")
    expected = fcluster(tree, clusters, "maxclust")
    group = np.asarray(linked(jnp.asarray(similarity), clusters=clusters))
    assert ((group[:, None] == group) == (expected[:, None] == expected)).all()


def test_pairs_that_are_not_known_join_nobody():
    """Ten agents of two tasks whose updates point opposite ways, three of them in a round."""
    generator = np.random.default_rng(0)
    task, known = np.arange(10) % 2, jnp.full((10, 10), jnp.nan)
    direction = np.array([np.ones(50), -np.ones(50)])
    for _ in range(40):
        ids = jnp.asarray(generator.choice(10, 3, replace=False))
        updates = direction[task[ids]] + generator.normal(size=(3, 50))
        known = running_mean(known, cosines(jnp.asarray(updates, jnp.float32)), ids, jnp.ones(3, bool), 0.9)
        group = np.asarray(linked(known, threshold=0.0))
        assert all(len(set(task[group == one])) == 1 for one in set(group))
    assert jnp.isnan(known).any()
    assert len(set(group)) == 2


def test_means_of_groups_are_over_known_pairs():
    """0 and 1 join at 0.9; 2 is known to 1 alone, at 0.5, and not below it on average."""
    nan = np.nan
    similarity = jnp.asarray([[nan, 0.9, nan], [0.9, nan, 0.5], [nan, 0.5, nan]])
    assert linked(similarity, threshold=0.45).tolist() == [0, 0, 0]
    assert linked(similarity, threshold=0.55).tolist() == [0, 0, 2]


def test_means_run_over_the_rounds_of_both():
    known = jnp.full((3, 3), jnp.nan)
    ids = jnp.array([2, 0])
    known = running_mean(known, jnp.array([[1.0, 0.5], [0.5, 1.0]]), ids, jnp.array([True, True]), 0.75)
    np.testing.assert_array_equal(known, [[1, np.nan, 0.5], [np.nan] * 3, [0.5, np.nan, 1]])
    known = running_mean(known, jnp.array([[1.0, -0.5], [-0.5, 1.0]]), ids, jnp.array([True, True]), 0.75)
    assert known[0, 2] == known[2, 0] == pytest.approx(0.25)
    again = running_mean(known, jnp.array([[1.0, 1.0], [1.0, 1.0]]), ids, jnp.array([True, False]), 0.75)
    assert again[0, 2] == known[0, 2]
