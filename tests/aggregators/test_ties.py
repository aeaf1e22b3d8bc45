"""Krum where several agents are equally good, and at magnitudes whose squares no float32 holds."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.aggregators.base import aggregators, preaggregators

KEYS = jax.random.split(jax.random.key(0), 64)
SCALES = [1e-30, 1e-20, 1.0, 1e18, 1e30]


def chosen(rule, vectors, **settings):
    """How often each agent is accepted, over 64 keys."""
    component = aggregators.build(rule, settings)
    vectors = jnp.asarray(vectors, jnp.float32)
    accept = jax.jit(jax.vmap(lambda key: component(vectors, jnp.ones(len(vectors)), key=key).accepted))
    return np.asarray(accept(KEYS)).sum(0)


def best(vectors, f):
    """Who has the lowest Krum score, in exact arithmetic."""
    rows = [[Fraction(float(x)) for x in row] for row in np.asarray(vectors, np.float32)]
    squares = [[sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) for b in rows] for a in rows]
    scores = [sum(sorted(row)[1 : max(len(rows) - f - 2, 1) + 1]) for row in squares]
    return [i for i, score in enumerate(scores) if score == min(scores)]


def test_the_smallest_case_that_once_failed():
    """Rows 1 and 2 are each other's nearest; row 0 was chosen, because all squared distances were 0."""
    vectors = [[2.27663e-31], [4.924828e-31], [4.527363e-31]]
    assert best(vectors, 0) == [1, 2]
    assert chosen("krum", vectors, tolerated=0)[0] == 0


@pytest.mark.training
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("rule", ["krum", "multi-krum", "bulyan"])
def test_far_rows_are_not_chosen_at_any_magnitude(rule, scale):
    """The first ids, which a tie of all scores would choose, are the bad ones."""
    vectors = np.random.default_rng(5).normal(size=(11, 4))
    vectors[:2] += [[40.0], [-60.0]]
    settings = {"tolerated": 2} | ({"selected": 9} if rule == "multi-krum" else {})
    times = chosen(rule, vectors * scale, **settings)
    assert (times[:2] == 0).all()
    if rule == "krum":
        assert np.flatnonzero(times).tolist() == best(vectors, 2)


@pytest.mark.training
@pytest.mark.parametrize("scale", SCALES)
def test_other_rows_of_any_magnitude_change_nothing(scale):
    vectors = scale * np.random.default_rng(6).normal(size=(9, 3))
    alone = best(vectors, 1)
    vectors = np.concatenate([np.full((2, 3), 1e30), vectors])
    times = chosen("krum", vectors, tolerated=3)
    assert np.flatnonzero(times).tolist() == [alone[0] + 2] or scale == 1e30


@pytest.mark.parametrize("scale", SCALES)
def test_equally_good_agents_take_turns(scale):
    """Agents 0 to 3 send the same as agent 4: with the lowest ids first, agent 0 would always win."""
    vectors = np.random.default_rng(7).normal(size=(9, 3)) * 5
    vectors[:5] = vectors[4]
    times = chosen("krum", vectors * scale, tolerated=2)
    assert np.flatnonzero(times).tolist() == best(vectors, 2) == [0, 1, 2, 3, 4]
    # 64 draws of five: fewer than 3 of one has probability 1e-4.
    assert times.sum() == 64
    assert times[:5].min() >= 3


def test_a_choice_is_the_same_for_the_same_key():
    assert chosen("krum", np.ones((5, 2)), tolerated=1).sum() == 64
    twice = [chosen("multi-krum", np.ones((7, 2)), tolerated=2, selected=3) for _ in range(2)]
    np.testing.assert_array_equal(*twice)
    assert twice[0].min() > 0
    assert twice[0].sum() == 3 * 64


@pytest.mark.training
def test_equally_near_neighbours_share_the_last_places():
    """Of -1, 0, 1 and 5, two nearest: 0 is as far from -1 as from 1, and whose id is lower does not matter."""
    mix = preaggregators.build("nearest-neighbour-mixing", {})
    vectors = jnp.asarray([[-1.0], [0.0], [1.0], [5.0]])
    mixed, _, _ = mix(vectors, jnp.ones(4), 2, key=KEYS[0])
    np.testing.assert_allclose(mixed[:, 0], [-0.5, 0.0, 0.5, 3.0], atol=1e-6)
