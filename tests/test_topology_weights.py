"""Properties of the weights made of graphs, by return and by similarity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedrax.topology_weights import divergence_weights, normalise, return_weights, stale

PROPERTIES = settings(max_examples=40)
N = 4


jitted_normalise, jitted_return_weights = jax.jit(normalise), jax.jit(return_weights)
entries = st.just(0.0) | st.floats(2.0**-39, 2.0**39, width=32)
graphs = st.lists(entries, min_size=N * N, max_size=N * N).map(lambda x: np.array(x, np.float32).reshape(N, N))
presences = st.lists(st.booleans(), min_size=N, max_size=N).map(np.array)
any_finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
ordinary = st.integers(-1600, 1600).map(lambda x: x / 16)


def some_returns(known):
    values = st.lists(known | st.just(float("nan")), min_size=N, max_size=N)
    return values.map(lambda x: np.array(x, np.float32))


def assert_weights(weights, graph):
    """Finite, non-negative, only on edges, rows summing to 1 where there is an edge and to 0 elsewhere."""
    weights = np.asarray(weights)
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
    assert not weights[graph == 0].any()
    np.testing.assert_allclose(weights.sum(1), (graph > 0).any(1), rtol=1e-5)


def test_normalise_known_values():
    graph = jnp.array([[1.0, 3.0, 4.0], [0.0, 0.0, 0.0], [0.0, 0.0, 5.0]])
    np.testing.assert_allclose(normalise(graph), [[1 / 8, 3 / 8, 1 / 2], [0, 0, 0], [0, 0, 1]])
    present = jnp.array([True, True, False])
    np.testing.assert_allclose(normalise(graph, present), [[1 / 4, 3 / 4, 0], [0, 0, 0], [0, 0, 0]])


@given(graphs, presences)
@PROPERTIES
def test_normalise_properties(graph, present):
    got = jitted_normalise(graph, present)
    assert_weights(got, graph * present)
    np.testing.assert_allclose(jitted_normalise(np.float32(64) * graph, present), got, rtol=1e-6)
    np.testing.assert_array_equal(jitted_normalise(graph, np.ones(N, bool)), normalise(jnp.asarray(graph)))


def test_normalise_at_the_ends_of_float32():
    np.testing.assert_allclose(normalise(jnp.full((8, 8), 8e37)), np.full((8, 8), 1 / 8), rtol=1e-6)
    small = 1e-25 * jnp.array([[1.0, 3.0], [0.0, 0.0]])
    gradient = jax.grad(lambda graph: normalise(graph)[0, 1])(small)
    np.testing.assert_allclose(1e-25 * gradient, [[-3 / 16, 1 / 16], [0, 0]], rtol=1e-5)


def test_normalise_gradient():
    graph = jnp.array([[1.0, 3.0], [0.0, 0.0]])
    # d/dW01 of W01 / (W00 + W01) is W00 / (W00 + W01)^2.
    gradient = jax.grad(lambda graph: normalise(graph)[0, 1])(graph)
    np.testing.assert_allclose(gradient, [[-3 / 16, 1 / 16], [0, 0]], rtol=1e-6)
    nobody = jax.grad(lambda graph: normalise(graph, jnp.zeros(2, bool)).sum())(graph)
    np.testing.assert_array_equal(nobody, np.zeros((2, 2)))
    assert np.isfinite(jax.grad(lambda graph: normalise(graph)[1, 0])(graph)).all()


def test_return_weights_known_values():
    graph = jnp.array([[1.0, 1.0, 2.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    e = np.e
    got = return_weights(jnp.array([-3.0, -1.0, -5.0]), graph, 2.0)
    first = np.array([1, e, 2 / e]) / (1 + e + 2 / e)
    np.testing.assert_allclose(got, [first, [0, 0, 0], [0, e**2 / (1 + e**2), 1 / (1 + e**2)]], rtol=1e-6)


def test_unknown_return_counts_as_the_neighbours_mean():
    nan, ones = float("nan"), jnp.ones((3, 3))
    known = return_weights(jnp.array([1.0, 5.0, 3.0]), ones, 2.0)
    for unknown in nan, float("inf"):
        np.testing.assert_allclose(return_weights(jnp.array([1.0, 5.0, unknown]), ones, 2.0), known, rtol=1e-6)
    np.testing.assert_allclose(return_weights(jnp.full(3, nan), ones, 2.0), np.full((3, 3), 1 / 3), rtol=1e-6)
    # Agent 0 does not hear agent 1, whose return then says nothing about agent 2's.
    deaf = ones.at[0, 1].set(0.0)
    np.testing.assert_allclose(return_weights(jnp.array([1.0, 5.0, nan]), deaf, 2.0)[0], [0.5, 0, 0.5], rtol=1e-6)


def test_return_weights_of_the_largest_returns():
    largest = float(np.finfo(np.float32).max)
    opposite = jnp.array([-largest, largest])
    np.testing.assert_array_equal(return_weights(opposite, jnp.ones((2, 2)), 1.0), [[0, 1], [0, 1]])
    np.testing.assert_array_equal(return_weights(opposite, jnp.ones((2, 2)), float("inf")), np.full((2, 2), 0.5))
    # Ten tenths of the largest number, each rounded, add up to more than float32 holds.
    with_unknown = jnp.full(11, largest).at[10].set(jnp.nan)
    np.testing.assert_allclose(return_weights(with_unknown, jnp.ones((11, 11)), 1e36), np.full((11, 11), 1 / 11))


def test_return_weights_ignore_the_absent():
    returns, present = jnp.array([0.0, 1.0, 1e6]), jnp.array([True, True, False])
    got = return_weights(returns, jnp.ones((3, 3)), 1.0, present=present)
    np.testing.assert_allclose(got, np.tile([1 / (1 + np.e), np.e / (1 + np.e), 0], (3, 1)), rtol=1e-6)


@given(some_returns(any_finite), graphs, st.sampled_from([0.0, 1e-6, 1.0, 1e6, float("inf")]), presences)
@PROPERTIES
def test_return_weights_are_weights_of_any_returns(returns, graph, temperature, present):
    assert_weights(jitted_return_weights(returns, graph, temperature, present=present), graph * present)


@given(some_returns(ordinary), graphs, st.sampled_from([-4096.0, -16.0, 0.5, 2048.0]))
@PROPERTIES
def test_return_weights_do_not_change_with_a_constant(returns, graph, constant):
    got = jitted_return_weights(returns, graph, 10.0)
    np.testing.assert_allclose(jitted_return_weights(returns + np.float32(constant), graph, 10.0), got, atol=1e-4)


@given(some_returns(ordinary), graphs, st.integers(0, N - 1), st.floats(0.0625, 100, width=32))
@PROPERTIES
def test_return_weights_rise_with_the_return(returns, graph, agent, rise):
    assume(not np.isnan(returns[agent]))
    before = np.asarray(jitted_return_weights(returns, graph, 10.0))[:, agent]
    returns[agent] += rise
    after = np.asarray(jitted_return_weights(returns, graph, 10.0))[:, agent]
    assert (after >= before - 1e-6).all()
    # Where only this neighbour's return is known, the others take it on.
    compared = ((graph > 0) & ~np.isnan(returns)).sum(1) > 1
    shared = compared & (before > 1e-3) & (before < 1 - 1e-3)
    assert (after > before)[shared].all()


@given(some_returns(ordinary), graphs)
@PROPERTIES
def test_limits_of_the_temperature(returns, graph):
    wanted = normalise(jnp.asarray(graph))
    np.testing.assert_allclose(jitted_return_weights(returns, graph, 1e9), wanted, atol=1e-5)
    np.testing.assert_allclose(jitted_return_weights(returns, graph, float("inf")), wanted, atol=1e-6)
    clean = np.where(np.isnan(returns), -np.inf, returns)
    best = (graph > 0) & (clean == np.where(graph > 0, clean, -np.inf).max(1, keepdims=True))
    if not np.isnan(returns).any():
        np.testing.assert_allclose(
            jitted_return_weights(returns, graph, 0.0), jitted_normalise(graph * best), atol=1e-6
        )


def test_return_weights_gradient():
    nan = float("nan")
    graph = jnp.array([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    slope = jax.grad(lambda returns, graph: return_weights(returns, graph, 2.0)[0, 1], argnums=(0, 1))
    in_returns, _ = slope(jnp.array([1.0, 1.0, 1.0]), graph)
    np.testing.assert_allclose(in_returns, np.array([-1, 2, -1]) / 9 / 2, rtol=1e-5)
    for returns in ([nan, 1.0, -2.0], [nan, nan, nan], [3e38, -3e38, 0.0]):
        assert all(np.isfinite(part).all() for part in slope(jnp.array(returns), graph))


def test_the_more_alike_weigh_more():
    divergence = jnp.zeros((4, 4)).at[0].set(jnp.array([0.0, 0.0, 0.5, 1.0]))
    weights = divergence_weights(divergence, jnp.ones((4, 4)), 0.5)
    np.testing.assert_allclose(weights[0], np.exp([0, 0, -1, -2]) / np.exp([0, 0, -1, -2]).sum(), rtol=1e-6)


@given(st.integers(0, 2**31), graphs, presences, st.none() | st.integers(0, N))
@settings(max_examples=20)
def test_divergence_weights_are_weights(seed, graph, present, top):
    divergence = np.asarray(jax.random.uniform(jax.random.key(seed), (N, N)))
    kept = graph * present
    if top is not None:
        for i in range(N):
            neighbours = [j for j in range(N) if j != i and kept[i, j] > 0]
            for j in sorted(neighbours, key=lambda j: (divergence[i, j], j))[top:]:
                kept[i, j] = 0
    got = divergence_weights(*map(jnp.asarray, (divergence, graph)), 0.1, top=top, present=jnp.asarray(present))
    assert_weights(got, kept)


@pytest.mark.parametrize(("top", "row"), [(0, [1, 0, 0, 0]), (1, [1, 1, 0, 0]), (2, [1, 1, 1, 0]), (9, [1, 1, 1, 1])])
def test_top_breaks_ties_by_index_and_keeps_oneself(top, row):
    wanted = np.array(row) / np.sum(row)
    zero = jnp.zeros((4, 4))
    np.testing.assert_allclose(divergence_weights(zero, jnp.ones((4, 4)), 1.0, top=top)[0], wanted, rtol=1e-6)


def test_top_prefers_the_alike_to_the_heavy():
    divergence = jnp.array([[0.0, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.0]])
    graph = jnp.array([[0.0, 100.0, 1.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    weights = divergence_weights(divergence, graph, 1.0, top=1)
    np.testing.assert_allclose(weights, [[0, 0, 1], [1, 0, 0], [0, 0, 0]])


def test_divergence_weights_are_constants_of_the_policies():
    divergence = jax.random.uniform(jax.random.key(0), (3, 3))
    graph = jnp.ones((3, 3)).at[0, 0].set(0.0)
    slopes = jax.grad(lambda d, g: divergence_weights(d, g, 1.0)[0, 1], argnums=(0, 1))
    in_divergence, in_graph = slopes(divergence, graph)
    assert not in_divergence.any()
    assert in_graph.any()
    assert np.isfinite(in_graph).all()


def test_broken_policies_are_not_listened_to():
    divergence = jnp.array([[0.0, jnp.nan, jnp.inf], [jnp.nan, -jnp.inf, jnp.nan], [1e30, jnp.inf, 1e30]])
    weights = divergence_weights(divergence, jnp.ones((3, 3)), 1e-6, top=2)
    np.testing.assert_allclose(weights, [[1, 0, 0], [0, 0, 0], [0.5, 0, 0.5]])


def test_stale_snapshots_are_not_listened_to():
    graph, age = jnp.arange(1.0, 10.0).reshape(3, 3), jnp.array([0, 2, 3])
    np.testing.assert_array_equal(stale(graph, age, 2), [[1, 2, 0], [4, 5, 0], [7, 8, 9]])
    np.testing.assert_array_equal(stale(graph, age, 0), [[1, 0, 0], [4, 5, 0], [7, 0, 9]])
    np.testing.assert_array_equal(stale(graph, age, None), graph)


def test_every_function_works_under_vmap():
    keys = jax.random.split(jax.random.key(0), 2)
    graph = jax.random.uniform(keys[0], (2, N, N))
    divergence = jax.random.uniform(keys[1], (2, N, N))
    returns, age = divergence[:, :, 0], jnp.array([[0, 1, 2, 3], [3, 2, 1, 0]])

    def all_of_them(graph, divergence, returns, age):
        graph = stale(graph, age, 1)
        return (
            return_weights(returns, graph, 0.1),
            divergence_weights(divergence, graph, 0.1, top=2),
        )

    together = jax.jit(jax.vmap(all_of_them))(graph, divergence, returns, age)
    for run in range(2):
        alone = all_of_them(graph[run], divergence[run], returns[run], age[run])
        for got, wanted in zip(together, alone, strict=True):
            np.testing.assert_allclose(got[run], wanted, rtol=1e-5)
