"""Every attack: what it does, and that it never touches an honest agent's message."""

import functools
import math
from fractions import Fraction
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrax.attacks.base import Knowledge, attacks
from fedrax.attacks.colluding import alie_z, diameter
from fedrax.config import resolve
from fedrax.environments.base import Box, Discrete, Spaces
from fedrax.errors import FedraxError
from fedrax.runtime.make import make_runtime
from fedrax.trees import ravel_rows
from shipped import shipped

KNOWLEDGE = Knowledge(lambda vectors: jnp.median(vectors, axis=0))
SHIPPED = shipped(attacks)
OBSERVATION = Box((1,), (0.0,), (1.0,))


def messages(seed=0, n=6):
    rng = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(rng.normal(size=(n, 3, 2)), jnp.float32),
        "b": jnp.asarray(rng.normal(size=(n, 4)), jnp.float32),
    }


@functools.cache
def compiled(name, **settings):
    attack = attacks.build(name, settings)
    return jax.jit(lambda m, b, k: attack.corrupt(m, b, k, KNOWLEDGE))


def corrupt(name, sent, byzantine, key=0, agents=3, **settings):
    return compiled(name, agents=agents, **settings)(sent, jnp.asarray(byzantine), jax.random.key(key))


@pytest.mark.parametrize("name", SHIPPED)
@settings(max_examples=15)
@given(st.lists(st.booleans(), min_size=6, max_size=6), st.integers(0, 1000))
def test_honest_messages_are_untouched_and_forged_ones_finite(name, byzantine, seed):
    sent = messages(seed)
    got = corrupt(name, sent, byzantine, seed, agents=6)
    honest = ~np.asarray(byzantine)
    for leaf in sent:
        np.testing.assert_array_equal(np.asarray(got[leaf])[honest], np.asarray(sent[leaf])[honest])
        assert np.isfinite(got[leaf]).all()


@pytest.mark.training
@pytest.mark.parametrize("name", SHIPPED)
def test_attacks_map_over_seeds(name):
    attack = attacks.build(name, {"agents": 2})
    byzantine = jnp.asarray([True, True, False, False, False, False])
    stacked = jax.tree.map(lambda *x: jnp.stack(x), messages(0), messages(1))
    keys = jax.random.split(jax.random.key(0), 2)
    together = jax.vmap(lambda m, k: attack.corrupt(m, byzantine, k, KNOWLEDGE))(stacked, keys)
    for i in range(2):
        alone = attack.corrupt(messages(i), byzantine, keys[i], KNOWLEDGE)
        np.testing.assert_allclose(
            ravel_rows(jax.tree.map(lambda x, i=i: x[i], together)), ravel_rows(alone), rtol=1e-4, atol=1e-5
        )


THREE = [True, True, True, False, False, False]


def test_zero_gradient():
    assert not ravel_rows(corrupt("zero-gradient", messages(), THREE))[:3].any()


def test_sign_flipping_is_minus_two_and_a_half():
    got = ravel_rows(corrupt("sign-flipping", messages(), THREE))[:3]
    np.testing.assert_allclose(got, -2.5 * ravel_rows(messages())[:3], rtol=1e-6)


def test_random_noise_stays_within_three_ranges_of_each_tensor():
    sent, got = messages(), corrupt("random-noise", messages(), THREE)
    for leaf in sent:
        honest = np.asarray(sent[leaf])[:3].reshape(3, -1)
        noise = np.abs(np.asarray(got[leaf])[:3].reshape(3, -1) - honest)
        spread = 3 * (honest.max(1) - honest.min(1))
        assert (noise <= spread[:, None] + 1e-5).all()
        assert (noise.max(1) > 0.2 * spread).all()


def test_alie_z_known_value():
    """Spec: K = 10, B = 3 gives Phi^-1(4/7) = 0.18."""
    assert alie_z(10, 3) == pytest.approx(0.1800, abs=1e-3)


def test_alie_z_is_the_papers_for_every_federation():
    """s = floor(n / 2 + 1) - m whole supporters, in exact arithmetic; halves were once rounded to even."""
    for n in range(2, 51):
        for m in range(1, (n + 1) // 2):
            supporters = math.floor(Fraction(n, 2) + 1) - m
            share = Fraction(n - m - supporters, n - m)
            assert NormalDist().cdf(alie_z(n, m)) == pytest.approx(float(share), abs=1e-12), (n, m)
            # A single attacker needs more than half of the others: only there does the formula turn around.
            assert alie_z(n, m) >= 0 or m == 1, (n, m)
    assert alie_z(5, 2) == pytest.approx(0.4307, abs=1e-4)
    assert alie_z(4, 3) == pytest.approx(4.7534, abs=1e-4)


def test_alie_never_helps_and_counts_who_attacks():
    """Where the paper's z is negative the mean is sent; where fewer attack than could, z is theirs."""
    everyone = messages()
    vectors = np.asarray(ravel_rows(everyone))
    n = len(vectors)
    one = jnp.arange(n) < 1
    two = jnp.arange(n) < 2
    honest, deviation = vectors[1:].mean(0), vectors[2:].std(0, ddof=1)
    assert alie_z(n, 1) <= 0
    got = ravel_rows(corrupt("alie", everyone, one, sees="honest"))[0]
    np.testing.assert_allclose(got, honest, rtol=1e-4, atol=1e-5)
    got = ravel_rows(corrupt("alie", everyone, two, sees="honest"))[0]
    np.testing.assert_allclose(got, vectors[2:].mean(0) - max(alie_z(n, 2), 0) * deviation, rtol=1e-4, atol=1e-5)


def test_alie_is_mean_minus_z_deviations():
    vectors = np.asarray(ravel_rows(messages()))
    got = ravel_rows(corrupt("alie", messages(), THREE, z=0.5))[:3]
    expected = vectors[:3].mean(0) - 0.5 * vectors[:3].std(0, ddof=1)
    np.testing.assert_allclose(got, np.tile(expected, (3, 1)), rtol=1e-5, atol=1e-6)
    omniscient = ravel_rows(corrupt("alie", messages(), THREE, z=0.5, sees="honest"))[0]
    np.testing.assert_allclose(omniscient, vectors[3:].mean(0) - 0.5 * vectors[3:].std(0, ddof=1), rtol=1e-4, atol=1e-6)


def test_average_to_zero():
    np.testing.assert_allclose(ravel_rows(corrupt("average-to-zero", messages(), THREE)).mean(0), 0, atol=1e-6)


def test_inner_product_opposes_the_honest_mean():
    got = ravel_rows(corrupt("inner-product", messages(), THREE, epsilon=2.0))[0]
    np.testing.assert_allclose(got, -2 * ravel_rows(messages())[3:].mean(0), rtol=1e-5, atol=1e-6)


def test_fedscspg_offset_is_one_and_a_half_diameters():
    sent, got = messages(), corrupt("fedscspg", messages(), THREE)
    for leaf in sent:
        rows = np.asarray(sent[leaf])[:3].reshape(3, -1)
        forged = np.asarray(got[leaf])[:3].reshape(3, -1)
        widest = max(np.linalg.norm(a - b) for a in rows for b in rows)
        np.testing.assert_allclose(np.linalg.norm(forged - rows.mean(0), axis=1), 1.5 * widest, rtol=1e-4)
        assert (forged == forged[0]).all()


def test_fedscspg_alone_is_honest():
    alone = [True] + [False] * 5
    np.testing.assert_allclose(ravel_rows(corrupt("fedscspg", messages(), alone)), ravel_rows(messages()), rtol=1e-6)


def test_diameter_ignores_the_honest():
    rows = jnp.asarray([[0.0], [3.0], [100.0]])
    assert diameter(rows, jnp.asarray([True, True, False]), 2) == 3.0


def test_orthogonal_noise_is_orthogonal_and_as_long():
    got, sent = ravel_rows(corrupt("orthogonal-noise", messages(), THREE))[:3], ravel_rows(messages())[:3]
    np.testing.assert_allclose((got * sent).sum(1), 0, atol=1e-4)
    np.testing.assert_allclose(jnp.linalg.norm(got, axis=1), jnp.linalg.norm(sent, axis=1), rtol=1e-5)


def test_large_noise_fills_its_range():
    got = ravel_rows(corrupt("large-noise", messages(), THREE))[:3]
    assert 500 < np.abs(got).max() <= 1000


def test_partial_drop_zeroes_a_share():
    sent = {"w": jnp.ones((6, 2000))}
    got = corrupt("partial-drop", sent, THREE, share=0.3)["w"]
    assert (got[:3] == 0).mean() == pytest.approx(0.3, abs=0.03)


def test_normalised_moves_the_median_away_from_the_honest_aggregate():
    vectors = np.asarray(ravel_rows(messages(n=9))) + 0.5
    sent = {"w": jnp.asarray(vectors)}
    byzantine = [True] * 4 + [False] * 5
    honest = np.median(vectors[4:], axis=0)
    before = np.median(np.vstack([np.tile(vectors[4:].mean(0), (4, 1)), vectors[4:]]), axis=0)
    after = np.median(np.asarray(corrupt("normalised", sent, byzantine)["w"]), axis=0)
    assert np.linalg.norm(after - honest) > np.linalg.norm(before - honest)


def test_reward_flipping_leaves_padding():
    rewards, valid = jnp.asarray([[1.0, 2.0], [3.0, 4.0]]), jnp.asarray([[True, True], [False, True]])
    got = attacks.build("reward-flipping", {"agents": 1}).poison(rewards, valid, jax.random.key(0))
    assert got.tolist() == [[-1.0, -2.0], [3.0, -4.0]]


def test_random_reward_permutes_within_each_episode():
    rewards = jnp.arange(30.0).reshape(10, 3)
    valid = jnp.arange(10)[:, None] < jnp.asarray([10, 4, 1])
    got = np.asarray(attacks.build("random-reward", {"agents": 1}).poison(rewards, valid, jax.random.key(0)))
    for episode, length in enumerate((10, 4, 1)):
        assert sorted(got[:length, episode]) == sorted(np.asarray(rewards)[:length, episode])
        np.testing.assert_array_equal(got[length:, episode], np.asarray(rewards)[length:, episode])
    assert (got[:, 0] != np.asarray(rewards)[:, 0]).any()


def test_random_action_of_the_reference_is_action_zero():
    attack = attacks.build("random-action", {"agents": 1})
    assert not attack.act(jnp.ones((4,), jnp.int32), Spaces(OBSERVATION, Discrete(3)), jax.random.key(0)).any()


def test_true_random_action_covers_the_space():
    attack = attacks.build("true-random-action", {"agents": 1})
    discrete = attack.act(jnp.zeros(3000, jnp.int32), Spaces(OBSERVATION, Discrete(3)), jax.random.key(0))
    np.testing.assert_allclose(np.bincount(discrete) / 3000, 1 / 3, atol=0.04)
    box = Box((2,), (-2.0, -np.inf), (4.0, np.inf))
    real = np.asarray(attack.act(jnp.zeros((3000, 2)), Spaces(OBSERVATION, box), jax.random.key(0)))
    assert -2 <= real[:, 0].min() < -1.9
    assert 3.9 < real[:, 0].max() <= 4
    assert real[:, 1].std() == pytest.approx(1, abs=0.05)


def test_drop_out_silences_only_attackers():
    byzantine = jnp.asarray(THREE)
    answers = attacks.build("drop-out", {"agents": 3}).answers(byzantine, jax.random.key(0))
    assert answers.tolist() == [False, False, False, True, True, True]


def test_schedules():
    keys = jax.random.split(jax.random.key(0), 500)

    def sets(**settings):
        attack = attacks.build("zero-gradient", {"agents": 3, **settings})
        return np.asarray(jax.vmap(lambda key: attack.byzantine(10, key))(keys))

    static = sets()
    assert (static == (np.arange(10) < 3)).all()
    intermittent = sets(schedule="intermittent", probability=0.25)
    assert not intermittent[:, 3:].any()
    np.testing.assert_allclose(intermittent[:, :3].mean(0), 0.25, atol=0.07)
    rotating = sets(schedule="rotating")
    assert (rotating.sum(1) == 3).all()
    np.testing.assert_allclose(rotating.mean(0), 0.3, atol=0.08)


@pytest.mark.parametrize("attack", ["reward-flipping", "random-reward"])
@pytest.mark.parametrize("settings", [["learner.hindsight=none"], ["learner.clip_values=false"]])
def test_false_rewards_that_hindsight_would_put_right_are_refused(attack, settings):
    config = ["federation.agents=3", f"attack={attack}", "attack.agents=1", "strategy=fedavg"]
    with pytest.raises(FedraxError, match="its learner knows the environment's own rule") as error:
        make_runtime(resolve("td3-her/point-push", [*config, *settings]))
    assert "\n" not in str(error.value)
    make_runtime(resolve("td3-her/point-push", [*config, "learner.hindsight=none", "learner.clip_values=false"]))
