"""Known values of single rules, then the properties of every rule."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedrax.aggregators.base import aggregators
from fedrax.errors import FedraxError
from shipped import shipped

KEY = jax.random.key(0)
N, D, F = 8, 3, 1
# On the scale of the vectors drawn below, so that the filters accept, reject, and use either rule.
SETTINGS = {
    "fedpg-filter": {"sigma": 6.0},
    "fedpg-filter-v0": {"sigma": 4.0},
    "centered-clipping": {"radius": 5.0},
}
RULES = {
    **{
        name: (name, SETTINGS.get(name, {}))
        for name in shipped(aggregators)
        if not aggregators[name].needs_server_gradient  # test_server_gradient.py
    },
    "fedpg-filter calibrated": ("fedpg-filter", {"radius": "calibrated"}),
    "norm-clipping to a radius": ("norm-clipping", {"radius": 4.0}),
}
DRAWING = {"fedpg-filter-v0"}
every_rule = pytest.mark.parametrize("rule", RULES)


def grid(seed, levels):
    """Vectors in [-10, 10] on a grid, a coarse one full of ties; its steps are exact in float32."""
    steps = np.random.default_rng(seed).integers(-levels, levels, size=(N, D), endpoint=True)
    return (steps * (10.0 / levels)).astype(np.float32)


def untied(seed, levels):
    """Vectors of which no two are equally good: of such ones, rounding picks."""
    jitter = np.random.default_rng(0).uniform(-0.2, 0.2, (N, D))
    # Multiples of 1/256: shifting them by whole numbers is exact.
    return (np.round((grid(seed, levels) + jitter) * 256) / 256).astype(np.float32)


seeds, levels = st.integers(0, 2**32), st.sampled_from([2, 20, 1280])
some_vectors, untied_vectors = st.builds(grid, seeds, levels), st.builds(untied, seeds, levels)
some_present = st.sets(st.integers(0, N - 1), min_size=1)
PROPERTIES = settings(max_examples=20)


@functools.cache
def compiled(rule, scale=1.0):
    name, options = RULES[rule]
    # The numbers among them are all in the vectors' unit.
    options = {key: value if isinstance(value, str) else value * scale for key, value in options.items()}
    component = aggregators.build(name, {"tolerated": F} | options)
    return jax.jit(lambda vectors, weights, key: component(vectors, weights, samples=16.0, key=key))


def run(rule, vectors, weights=None, key=KEY):
    vectors = np.asarray(vectors, np.float32)
    weights = np.ones(len(vectors)) if weights is None else weights
    return jax.tree.map(np.asarray, compiled(rule)(vectors, np.asarray(weights, np.float32), key))


def build(name, **options):
    return aggregators.build(name, options)


@eqx.filter_jit
def apply(component, vectors, weights):
    return component(jnp.asarray(vectors), jnp.asarray(weights), key=KEY)


# Known values.


def krum_scores(vectors, f):
    squares = np.square(vectors[:, None].astype(np.float64) - vectors).sum(-1)
    return np.sort(squares, axis=1)[:, 1 : max(len(vectors) - f - 2, 1) + 1].sum(1)


def bulyan_choices(vectors, f):
    """Whom El Mhamdi et al.'s (2018) repeated Krum may choose: one set for every way to break its ties."""
    n = len(vectors)
    choices = {frozenset()}
    for _ in range(n - 2 * f):
        longer = set()
        for chosen in choices:
            left = [i for i in range(n) if i not in chosen]
            scores = krum_scores(vectors[left], f)
            longer |= {chosen | {left[i]} for i in np.flatnonzero(np.isclose(scores, scores.min(), rtol=1e-9, atol=0))}
        choices = longer
    return {tuple(sorted(chosen)) for chosen in choices}


def bulyan(vectors, f, chosen):
    """The mean of the central values of those chosen."""
    columns = vectors[list(chosen)].astype(np.float64).T
    size = len(vectors) - 4 * f
    return np.array([column[np.argsort(np.abs(column - np.median(column)))][:size].mean() for column in columns])


@pytest.mark.parametrize(("agents", "f"), [(12, 2), (15, 3)])
def test_bulyan_and_krum_against_their_definitions(agents, f):
    vectors = np.random.default_rng(agents).normal(size=(agents, 4)).astype(np.float32)
    ones = jnp.ones(agents)
    got = apply(build("bulyan", tolerated=f), vectors, ones)
    chosen = tuple(np.flatnonzero(got.accepted).tolist())
    assert chosen in bulyan_choices(vectors, f)
    np.testing.assert_allclose(got.vector, bulyan(vectors, f, chosen), rtol=1e-5, atol=1e-6)
    best = np.argsort(krum_scores(vectors, f))
    krum = apply(build("krum", tolerated=f), vectors, ones)
    np.testing.assert_array_equal(krum.vector, vectors[best[0]])
    assert np.flatnonzero(krum.accepted).tolist() == [best[0]]
    several = apply(build("multi-krum", tolerated=f), vectors, ones)
    assert np.flatnonzero(several.accepted).tolist() == sorted(best[: agents - f])
    np.testing.assert_allclose(several.vector, vectors[best[: agents - f]].mean(0), rtol=1e-5, atol=1e-6)


def test_weights_count_in_the_weighted_mean_only():
    vectors, weights = jnp.array([[0.0], [4.0], [9.0]]), jnp.array([3.0, 1.0, 0.0])
    assert apply(build("weighted-mean"), vectors, weights).vector == 1.0
    assert apply(build("mean"), vectors, weights).vector == 2.0


def test_geometric_median_weighs():
    vectors = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert jnp.allclose(apply(build("geometric-median"), vectors, jnp.array([3.0, 1.0, 1.0])).vector, 0, atol=1e-4)
    fermat = apply(build("geometric-median"), vectors, jnp.full(3, 1e-30)).vector
    # The Fermat point of a right isosceles triangle.
    np.testing.assert_allclose(fermat, (3 - np.sqrt(3)) / 6, rtol=1e-4)


def test_norm_clipping_to_the_median_norm():
    vectors = jnp.array([[3.0, 4.0], [0.0, 1.0], [-20.0, 0.0]])
    got = apply(build("norm-clipping"), vectors, jnp.ones(3))
    np.testing.assert_allclose(got.vector, [(3 - 5) / 3, 5 / 3], rtol=1e-6)
    assert got.metrics["clip_norm"] == 5.0


def test_trimmed_mean_becomes_the_median_where_few_are_present():
    vectors = jnp.array([[1.0], [2.0], [4.0], [50.0], [7.0], [8.0], [9.0]])
    rule = build("trimmed-mean", tolerated=3)
    assert apply(rule, vectors, jnp.array([1.0, 1, 1, 1, 0, 0, 0])).vector == 3.0
    assert apply(rule, vectors, jnp.ones(7)).vector == 7.0


BOUNDS = {
    "median": 7,
    "trimmed-mean": 7,
    "geometric-median": 7,
    "centered-clipping": 7,
    "norm-clipping": 7,
    "fedpg-filter": 7,
    "fedpg-filter-v0": 7,
    "fedpg-trust": 7,
    "krum": 9,
    "multi-krum": 9,
    "bulyan": 15,
    "zeno": 4,
}


@pytest.mark.parametrize(("name", "least"), BOUNDS.items())
def test_bounds_for_three_byzantine(name, least):
    rule = build(name, tolerated=3)
    rule.check(least)
    with pytest.raises(FedraxError, match=f"at least {least}, but a round has {least - 1}"):
        rule.check(least - 1)


def test_every_rule_states_its_bound():
    assert set(shipped(aggregators)) == {*BOUNDS, "mean", "weighted-mean", "fltrust"}
    build("mean", tolerated=3).check(1)
    build("weighted-mean", tolerated=3).check(1)
    build("fltrust", tolerated=3).check(1)
    build("fedpg-filter").check(1)


def test_bounds_that_options_change():
    build("norm-clipping", tolerated=3, radius=1.0).check(4)
    build("norm-clipping", tolerated=3, quantile=0.0).check(4)
    build("norm-clipping", tolerated=1, quantile=0.75).check(5)
    with pytest.raises(FedraxError, match="at least 5"):
        build("norm-clipping", tolerated=1, quantile=0.75).check(4)
    with pytest.raises(FedraxError, match=r"selected = 8 is more than the 7 of 9 agents .* lower it"):
        build("multi-krum", tolerated=2, selected=8).check(9)


# Properties.


def halves(rule, vectors):
    """Whether a filter must choose between two agents, which are equally far from their mean."""
    if not rule.startswith("fedpg"):
        return False
    sigma = run(rule, vectors).metrics["filter_sigma"]
    radii = (2 * sigma * np.sqrt(2 * np.log(2 * len(vectors) / 0.6) / 16), 2 * sigma)
    distances = np.linalg.norm(vectors[:, None] - vectors, axis=-1)
    return any(((distances <= radius).sum(1) > len(vectors) / 2).sum() == 2 for radius in radii)


@every_rule
@given(vectors=untied_vectors, junk=some_vectors)
@PROPERTIES
def test_absent_is_removed(rule, vectors, junk):
    """The strongest property: absent rows may hold anything finite, and draws do not shift."""
    present = [0, 2, 3, 5, 7]
    assume(not halves(rule, vectors[present]))
    weights = np.zeros(N)
    weights[present] = 1
    filled = np.where(weights[:, None] > 0, vectors, junk * np.float32(3e37))
    masked, removed = run(rule, filled, weights), run(rule, vectors[present])
    np.testing.assert_array_equal(masked.accepted[present], removed.accepted)
    assert not masked.accepted[weights == 0].any()
    assert masked.valid == removed.valid
    np.testing.assert_allclose(masked.vector, removed.vector, rtol=1e-4, atol=1e-4)
    for name, value in masked.metrics.items():
        np.testing.assert_allclose(value, removed.metrics[name], rtol=1e-5, atol=1e-6, err_msg=name)


# A draw is not tied to an agent; and with f = 1 Bulyan's last Krum compares two mutual nearest neighbours.
@pytest.mark.parametrize("rule", sorted(set(RULES) - DRAWING - {"bulyan"}))
@given(vectors=untied_vectors, order=st.permutations(range(N)))
@PROPERTIES
def test_order_does_not_matter(rule, vectors, order):
    assume(not halves(rule, vectors))
    straight, shuffled = run(rule, vectors), run(rule, vectors[order])
    np.testing.assert_array_equal(straight.accepted[list(order)], shuffled.accepted)
    np.testing.assert_allclose(straight.vector, shuffled.vector, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("exponent", [-100, -64, 64, 96])
@pytest.mark.parametrize("far", [False, True])
@every_rule
def test_the_unit_does_not_matter(rule, exponent, far):
    """Times a power of two, which is exact, everything is the same: from 1e-30 to 1e30, also beside one of 1e30."""
    vectors = untied(exponent + 1000 + far, 1280)
    if far:
        vectors[5] *= np.float32(2.0) ** min(20, 120 - exponent)
    scale = np.float32(2.0) ** exponent
    options = RULES[rule][1]
    own = scale if any(not isinstance(value, str) for value in options.values()) else 1.0
    got = compiled(rule, float(own))(jnp.asarray(vectors * scale), jnp.ones(N), KEY)
    expected = run(rule, vectors)
    np.testing.assert_array_equal(got.accepted, expected.accepted)
    np.testing.assert_allclose(
        np.asarray(got.vector) / scale, expected.vector, rtol=1e-6, atol=1e-6 * np.abs(expected.vector).max()
    )


FIXED_ORIGIN = {"norm-clipping", "norm-clipping to a radius"}


@pytest.mark.parametrize("rule", sorted(set(RULES) - FIXED_ORIGIN))
@given(vectors=untied_vectors, shift=st.integers(-64, 64))
@PROPERTIES
def test_moving_everyone_moves_the_result(rule, vectors, shift):
    assume(not halves(rule, vectors))
    here, there = run(rule, vectors), run(rule, vectors + shift)
    np.testing.assert_array_equal(here.accepted, there.accepted)
    moved = there.vector - shift if there.valid else there.vector
    np.testing.assert_allclose(moved, here.vector, atol=2e-3)


@pytest.mark.parametrize("rule", ["median", "trimmed-mean"])
@given(vectors=some_vectors, outlier=arrays(np.float32, D, elements=st.floats(-(2.0**127), 2.0**127, width=32)))
@PROPERTIES
def test_outliers_leave_the_result_in_the_honest_range(rule, vectors, outlier):
    vectors[:F] = outlier
    got = run(rule, vectors).vector
    assert (vectors[F:].min(0) <= got).all()
    assert (got <= vectors[F:].max(0)).all()


@every_rule
@given(vectors=some_vectors, present=some_present, huge=st.sets(st.integers(0, N - 1)), size=st.integers(0, 38))
@PROPERTIES
def test_always_finite(rule, vectors, present, huge, size):
    weights = np.zeros(N)
    weights[list(present)] = 1
    vectors[list(huge)] *= np.float32(10.0) ** min(size, 37)
    got = run(rule, vectors, weights)
    assert np.isfinite(got.vector).all()
    assert all(np.isfinite(value) for value in got.metrics.values())
    assert got.valid == got.accepted.any()
    assert not (got.accepted & (weights == 0)).any()
    if not got.valid:
        assert (got.vector == 0).all()


DEFENDED = sorted(set(RULES) - {"mean", "weighted-mean"})


@pytest.mark.parametrize("rule", DEFENDED)
@pytest.mark.parametrize("value", [1e15, 1e30, -3e38])
def test_one_huge_row_does_no_harm(rule, value):
    """The honest rows' arithmetic survives: the result is as near to them as they are to each other."""
    vectors = np.random.default_rng(1).normal(0.05, 0.01, (N, D))
    vectors[2] = value
    got = run(rule, vectors)
    assert got.valid
    # A set radius bounds what the row can do; without one it is as little as any honest row could.
    allowed = {"norm-clipping to a radius": 4 / N, "centered-clipping": 3 * 5 / N}.get(rule, 0.05)
    np.testing.assert_allclose(got.vector, 0.05, atol=allowed)
    if rule in ("krum", "multi-krum", "bulyan") or rule.startswith("fedpg"):
        assert not got.accepted[2]


@every_rule
def test_nobody_one_and_equals(rule):
    vectors = np.random.default_rng(2).normal(size=(N, D)).astype(np.float32)
    nobody = run(rule, vectors, np.zeros(N))
    assert not nobody.valid
    assert not nobody.accepted.any()
    assert (nobody.vector == 0).all()
    one = run(rule, vectors, np.eye(N)[3])
    equals = run(rule, np.repeat(vectors[:1], N, 0))
    assert one.valid
    assert equals.valid
    assert one.accepted.tolist() == (np.arange(N) == 3).tolist()
    np.testing.assert_allclose(one.vector, vectors[3], rtol=1e-6)
    np.testing.assert_allclose(equals.vector, vectors[0], rtol=1e-6)


@pytest.mark.training
@every_rule
def test_maps_over_seeds(rule):
    vectors = np.random.default_rng(3).normal(size=(3, N, D)).astype(np.float32)
    weights = np.ones((3, N), np.float32)
    weights[1, :4] = 0
    keys = jax.random.split(KEY, 3)
    mapped = jax.vmap(compiled(rule))(vectors, weights, keys)
    for seed in range(3):
        single = run(rule, vectors[seed], weights[seed], keys[seed])
        np.testing.assert_array_equal(mapped.accepted[seed], single.accepted)
        np.testing.assert_allclose(mapped.vector[seed], single.vector, rtol=1e-4, atol=1e-5)


@every_rule
def test_a_rule_says_whether_it_rejects(rule):
    """One of eight vectors is far away: a rule that may leave agents out leaves this one out, others nobody."""
    vectors = np.zeros((N, D), np.float32)
    vectors[:, 0] = np.linspace(0.0, 0.1, N)
    vectors[3] = 1000.0
    accepted = np.asarray(run(rule, vectors).accepted)
    rejects = aggregators[RULES[rule][0]].rejects
    assert not accepted[3] if rejects else accepted.all()
