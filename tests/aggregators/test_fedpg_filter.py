"""The FedPG-BR filter: its radii, its two rules written out in float64, and the calibrated radii."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedrax.aggregators.base import aggregators

KEY = jax.random.key(0)


def build(name="fedpg-filter", **options):
    return aggregators.build(name, options)


@eqx.filter_jit
def run(rule, vectors, samples=16.0, key=KEY):
    return rule(jnp.asarray(vectors, jnp.float32), jnp.ones(len(vectors)), samples=samples, key=key)


@pytest.mark.parametrize(
    ("sigma", "agents", "batch", "first", "second"),
    [
        (0.06, 10, 16, 0.079, 0.12),  # CartPole
        (0.07, 10, 32, 0.0655, 0.14),  # LunarLander
        (0.9, 10, 48, 0.688, 1.80),  # HalfCheetah
        (0.9, 3, 48, 0.557, 1.80),
    ],
)
def test_published_radii(sigma, agents, batch, first, second):
    radii = build(sigma=sigma).radii(sigma, agents, batch)
    np.testing.assert_allclose(radii, [first, second], atol=6e-4)


def accept(vectors, radius):
    distances = np.linalg.norm(vectors[:, None] - vectors, axis=-1)
    members = (distances <= radius).sum(1) > len(vectors) / 2
    if not members.any():
        return np.zeros(len(vectors), bool)
    # The mean of two is equally far from both: rounding decides, and decides differently in float32.
    assume(members.sum() != 2)
    offsets = np.linalg.norm(vectors - vectors[members].mean(0), axis=1)
    point = np.argmin(np.where(members, offsets, np.inf))
    return distances[point] <= radius


def reference(vectors, sigma, delta, alpha, samples):
    """Accepted agents and the rule that chose them."""
    vectors, k = np.asarray(vectors, np.float64), len(vectors)
    accepted = accept(vectors, 2 * sigma * np.sqrt(2 * np.log(2 * k / delta) / samples))
    rule = 1
    if accepted.sum() < (1 - alpha) * k or not accepted.any():
        accepted, rule = accept(vectors, 2 * sigma), 2
    return accepted, rule if accepted.any() else 0


@given(
    seed=st.integers(0, 10_000),
    spread=st.floats(0.05, 1.5),
    alpha=st.sampled_from([0.0, 0.4]),
    attackers=st.integers(0, 4),
)
@settings(max_examples=100)
def test_against_the_published_rules(seed, spread, alpha, attackers):
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(10, 3))
    vectors[:attackers] += generator.normal(size=3) * 2
    vectors = (spread * vectors).astype(np.float32)
    accepted, rule = reference(vectors, 1.0, 0.6, alpha, 20)
    got = run(build(sigma=1.0, alpha=alpha), vectors, samples=20)
    np.testing.assert_array_equal(got.accepted, accepted)
    assert got.metrics["filter_rule"] == rule
    assert got.valid == accepted.any()
    if accepted.any():
        np.testing.assert_allclose(got.vector, vectors[accepted].mean(0), rtol=1e-4, atol=1e-6)


# On a line, with K = 5, B = 16 and delta = 0.6: T_mu = 1.186 sigma.
def test_first_rule():
    got = run(build(sigma=1.0), [[0.0], [0.1], [0.2], [0.3], [9.0]])
    assert got.accepted.tolist() == [True, True, True, True, False]
    assert got.metrics["filter_rule"] == 1
    assert got.metrics["filter_sigma"] == 1.0
    np.testing.assert_allclose(got.metrics["filter_threshold"], 2 * np.sqrt(2 * np.log(10 / 0.6) / 16), rtol=1e-6)
    np.testing.assert_allclose(got.metrics["distance_median"], 0.25, rtol=1e-6)
    np.testing.assert_allclose(got.vector, [0.15], rtol=1e-6)


def test_second_rule_takes_over_when_the_first_accepts_too_few():
    vectors = [[0.0], [1.0], [-1.0], [1.9], [-1.9]]
    # Around 0 the first rule accepts three of five, which is not fewer than 60 %.
    assert run(build(sigma=1.0), vectors).metrics["filter_rule"] == 1
    # At 80 % it is; the second rule's radius is 2, and its verdict is final.
    got = run(build(sigma=1.0, alpha=0.2), vectors)
    assert got.metrics["filter_rule"] == 2
    assert got.metrics["filter_threshold"] == 2.0
    assert got.accepted.all()


@pytest.mark.training
def test_half_is_not_a_majority():
    pairs = [[0.0], [0.1], [9.0], [9.1]]
    got = run(build(sigma=1.0), pairs)
    assert not got.valid
    assert got.metrics["filter_rule"] == 0
    assert run(build(sigma=1.0), [*pairs, [0.2]]).accepted.tolist() == [True, True, False, False, True]


def test_a_single_agent_passes():
    got = run(build(sigma=0.0), [[3.0, 4.0]])
    assert got.valid
    assert got.vector.tolist() == [3.0, 4.0]
    assert got.metrics["filter_rule"] == 1


def test_old_form_draws_a_member_and_reaches_twice_as_far():
    # Within 1 of 0.0, 0.9 and 1.8 are majorities of five; 5 has none near.
    vectors = [[0.0], [0.9], [1.8], [2.7], [5.0]]
    rule = build("fedpg-filter-v0", sigma=1.0, alpha=1.0)
    radius = float(rule.radii(1.0, 5, 16.0)[0])
    keys = jax.random.split(KEY, 60)
    got = jax.vmap(lambda key: run(rule, vectors, key=key))(keys)
    sets = {tuple(np.flatnonzero(accepted).tolist()) for accepted in got.accepted}
    expected = {tuple(j for j in range(5) if abs(vectors[j][0] - vectors[k][0]) <= 2 * radius) for k in (1, 2)}
    assert sets == expected
    np.testing.assert_allclose(got.metrics["filter_threshold"], 2 * radius, rtol=1e-6)


# Calibrated.


def calibrated(vectors, samples=16.0):
    return run(build(radius="calibrated"), vectors, samples)


def test_calibration_finds_the_noise():
    """Means of B trajectories with noise of second moment sigma^2, in many dimensions."""
    sigma, batch, d = 0.5, 25, 2000
    noise = np.random.default_rng(0).normal(size=(20, d)) * sigma / np.sqrt(d * batch)
    got = calibrated(3.0 + noise, batch)
    np.testing.assert_allclose(got.metrics["filter_sigma"], sigma, rtol=0.05)
    assert got.accepted.all()
    assert got.metrics["filter_rule"] == 1


@pytest.mark.training
@pytest.mark.parametrize(("agents", "attackers"), [(10, 4), (11, 5), (3, 1), (31, 15)])
@pytest.mark.parametrize("attack", ["far", "collude", "spread", "huge", "on one honest"])
def test_calibration_resists_every_minority(agents, attackers, attack):
    """Sigma stays below what the honest distances allow, and everyone accepted is near somebody honest."""
    generator = np.random.default_rng(agents)
    vectors = generator.normal(size=(agents, 50)).astype(np.float32)
    honest = vectors[attackers:]
    vectors[:attackers] = {
        "far": 1e3 * generator.normal(size=(attackers, 50)),
        "collude": np.full((attackers, 50), 40.0),
        "spread": 100.0 * np.arange(1, attackers + 1)[:, None] * np.ones(50),
        "huge": np.float32(1e30) * generator.normal(size=(attackers, 50)),
        "on one honest": np.repeat(honest[:1], attackers, 0),
    }[attack]
    got = calibrated(vectors)
    distances = np.linalg.norm(honest[:, None].astype(np.float64) - honest, axis=-1)
    assert got.metrics["filter_sigma"] <= distances.max() * np.sqrt(8) * (1 + 1e-6)
    assert got.valid
    if attack != "on one honest":
        assert not got.accepted[:attackers].any()
        assert got.accepted[attackers:].all()
    nearest = np.linalg.norm(np.asarray(got.vector, np.float64) - honest, axis=1).min()
    assert nearest <= distances.max()


def test_calibration_is_indifferent_to_scale():
    vectors = np.random.default_rng(5).normal(size=(9, 30)).astype(np.float32)
    vectors[:3] += 20
    plain, scaled = calibrated(vectors), calibrated(vectors * np.float32(2.0**-40))
    np.testing.assert_array_equal(plain.accepted, scaled.accepted)
    np.testing.assert_allclose(scaled.vector * 2.0**40, plain.vector, rtol=1e-6)


def test_clipped_opposites_within_the_radius_do_not_turn_the_mean():
    """Seven gradients g and three of -2.5 g within the radius: -0.05 g as they are, 0.4 g with the median length."""
    g = np.array([0.006, -0.008])
    vectors = np.concatenate([np.tile(-2.5 * g, (3, 1)), np.tile(g, (7, 1))])
    as_sent, clipped = (run(build(sigma=0.07, clip=clip), vectors, samples=32.0) for clip in ("none", "median"))
    assert as_sent.accepted.all()
    assert clipped.accepted.all()
    np.testing.assert_allclose(as_sent.vector, -0.05 * g, rtol=1e-4)
    np.testing.assert_allclose(clipped.vector, 0.4 * g, rtol=1e-5)


def test_clipping_changes_who_is_accepted_for_nobody():
    vectors = np.random.default_rng(1).normal(size=(10, 4)) * 0.05
    vectors[:3] *= 40
    as_sent, clipped = (run(build(sigma=0.2, clip=clip), vectors) for clip in ("none", "median"))
    assert as_sent.accepted.tolist() == clipped.accepted.tolist()
    lengths = np.sort(np.linalg.norm(vectors, axis=1))
    accepted = vectors[np.asarray(as_sent.accepted)]
    own = np.linalg.norm(accepted, axis=1, keepdims=True)
    expected = (accepted * np.minimum(1.0, lengths[4] / own)).mean(0)
    np.testing.assert_allclose(clipped.vector, expected, rtol=1e-4, atol=1e-6)
