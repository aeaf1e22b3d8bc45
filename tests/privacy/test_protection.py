"""The chain by known numbers: what is summed, what it is divided by, and how large the noise is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.privacy.noise import skellam
from fedrax.privacy.protection import Protection

ONE = jnp.asarray(1)
KEY = jax.random.key(0)


def rows(*vectors):
    return {"w": jnp.asarray(vectors, jnp.float32)}


def test_without_settings_nothing_is_changed():
    updates = rows([3.0, 4.0], [0.0, 1.0])
    plain = Protection()
    assert plain.at_agent(updates, ONE, KEY) is updates
    assert plain.at_server(updates, ONE) is updates
    assert plain.summed(updates, jnp.ones(2, bool), ONE, KEY) is updates


def test_the_server_clips_once_more():
    after = Protection(clip=1.0).at_server(rows([30.0, 40.0], [0.0, 0.5]), ONE)
    np.testing.assert_allclose(after["w"], [[0.6, 0.8], [0.0, 0.5]], rtol=1e-5)


def test_every_row_becomes_the_mean_over_those_expected():
    central = Protection(unit="agent", clip=10.0, expected=4.0)
    after = central.summed(rows([4.0, 0.0], [0.0, 8.0], [100.0, 100.0]), jnp.array([True, True, False]), ONE, KEY)
    np.testing.assert_allclose(after["w"], [[1.0, 2.0]] * 3)


def test_a_secure_sum_without_a_unit_is_divided_by_those_present():
    chain = Protection(clip=10.0, secure_sum=True, bits=20, expected=4.0)
    after = chain.summed(rows([4.0, 0.0], [0.0, 8.0], [9.0, 9.0]), jnp.array([True, True, False]), ONE, KEY)
    np.testing.assert_allclose(after["w"], [[2.0, 4.0]] * 3, atol=2.0**-19 * 10)


def test_shares_of_the_noise_add_up_to_that_of_the_sum():
    """Of ten participants, five honest ones' noise is enough: all ten add up to twice its variance."""
    chain = Protection(
        unit="agent", model="distributed", clip=2.0, noise=3.0, expected=10.0, secure_sum=True, bits=16, honest=5
    )
    zeros = {"w": jnp.zeros((10, 40_000))}
    after = chain.summed(zeros, jnp.ones(10, bool), ONE, KEY)["w"]
    assert float(jnp.std(after[0])) == pytest.approx(6.0 * np.sqrt(2) / 10, rel=0.02)
    sent = jax.vmap(lambda key: chain.at_agent({"w": jnp.full(100, 9.0)}, ONE, key))(jax.random.split(KEY, 10))
    assert (jnp.linalg.norm(sent["w"], axis=1) <= 2.0 * (1 - np.sqrt(100) / 2**15)).all()


def test_a_nodes_noise_has_its_deviation_and_is_never_the_same():
    first, second = skellam(1e5, 20_000), skellam(1e5, 20_000)
    assert first.std() == pytest.approx(1e5, rel=0.03)
    assert abs(first.mean()) < 5 * 1e5 / np.sqrt(20_000)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.04
    assert set(skellam(0.5, 2000)) >= {-1, 0, 1}


@pytest.mark.parametrize(
    ("unit", "episodes", "deviation"), [("agent", 1, 2.0 * 3.0), ("agent", 16, 6.0), ("trajectory", 16, 6.0 / 16)]
)
def test_noise_of_the_server_is_that_of_the_sum(unit, episodes, deviation):
    """z C for an agent's whole update; an episode is one of so many in a mean."""
    chain = Protection(unit=unit, clip=2.0, noise=3.0, expected=5.0)
    zeros = {"w": jnp.zeros((5, 40_000))}
    after = chain.summed(zeros, jnp.ones(5, bool), jnp.asarray(episodes), KEY)["w"]
    assert float(jnp.std(after[0])) == pytest.approx(deviation / 5, rel=0.02)
    np.testing.assert_array_equal(after[0], after[4])


def test_noise_of_an_agent_is_its_own():
    chain = Protection(unit="agent", model="local", clip=2.0, noise=3.0, expected=5.0)
    first, second = (chain.at_agent({"w": jnp.zeros(40_000)}, ONE, jax.random.key(i))["w"] for i in range(2))
    assert float(jnp.std(first)) == pytest.approx(6.0, rel=0.02)
    assert abs(float(jnp.corrcoef(first, second)[0, 1])) < 0.03
    summed = chain.summed({"w": first[None]}, jnp.ones(1, bool), ONE, KEY)["w"]
    np.testing.assert_array_equal(summed[0], first)


def test_honest_noisy_updates_are_not_clipped_again_but_long_ones_are():
    chain = Protection(unit="agent", model="local", clip=1.0, noise=2.0)
    keys = jax.random.split(KEY, 200)
    noisy = jax.vmap(lambda key: chain.at_agent({"w": jnp.ones(50) / jnp.sqrt(50.0)}, ONE, key))(keys)
    jax.tree.map(np.testing.assert_array_equal, chain.at_server(noisy, ONE), noisy)
    forged = chain.at_server({"w": jnp.full((1, 50), 1e6)}, ONE)["w"]
    assert float(jnp.linalg.norm(forged)) < 1 + 2 * 20


@pytest.mark.parametrize("model", ["central", "local"])
def test_what_has_no_norm_counts_as_zeros_and_nobody_is_left_out(model):
    chain = Protection(unit="agent", model=model, clip=1.0)
    after = chain.at_server(rows([np.nan, 1.0], [0.0, 0.5]), ONE)
    np.testing.assert_allclose(after["w"], [[0.0, 0.0], [0.0, 0.5]], rtol=1e-6)
    assert not np.isfinite(Protection(clip=1.0).at_server(rows([np.inf, 1.0]), ONE)["w"]).all()


def test_a_clip_moves_to_the_quantile_of_what_agents_would_send():
    """Of 100 lengths 1 to 100 half are no longer than 50, from above and from below; noise does not keep it from it."""
    lengths = jnp.arange(1.0, 101.0)
    directions = jax.random.normal(KEY, (100, 7))
    updates = {"w": lengths[:, None] * directions / jnp.linalg.norm(directions, axis=1, keepdims=True)}
    for first, share_noise in ((1.0, 0.0), (5000.0, 0.0), (1.0, 5.0)):
        chain = Protection(
            unit="agent", clip=first, quantile=0.5, rate=0.2, share_noise=share_noise, expected=100.0, noise=1.0
        )
        clip = chain.first_clip
        for number in range(120):
            sent = jax.vmap(lambda update, c=clip, chain=chain: chain.at_agent(update, ONE, KEY, c))(updates)
            sent = chain.at_server(sent, ONE, clip)
            clip = chain.moved(clip, sent, jnp.ones(100, bool), jax.random.key(number))
        assert 42 <= float(clip) <= 58


def test_one_step_of_the_clip_is_the_papers():
    """C exp(-eta (b - gamma)): three of four are whole, and the absent one counts for none."""
    chain = Protection(clip=2.0, quantile=0.5, rate=0.2)
    updates = rows([1.0, 0.0], [0.0, 1.9], [0.1, 0.1], [2.0, 0.0], [2.0, 0.0])
    present = jnp.array([True, True, True, True, False])
    moved = chain.moved(chain.first_clip, chain.at_server(updates, ONE, chain.first_clip), present, KEY)
    assert float(moved) == pytest.approx(2 * np.exp(-0.2 * (0.75 - 0.5)), rel=1e-6)
    assert chain.moved(chain.first_clip, updates, jnp.zeros(5, bool), KEY) == 2.0
    fixed = Protection(clip=2.0)
    assert fixed.moved((), updates, present, KEY) == ()


def test_noise_follows_the_clip():
    chain = Protection(unit="agent", clip=1.0, quantile=0.5, noise=3.0, expected=5.0)
    after = chain.summed({"w": jnp.zeros((5, 40_000))}, jnp.ones(5, bool), ONE, KEY, jnp.asarray(4.0))["w"]
    assert float(jnp.std(after[0])) == pytest.approx(3 * 4 / 5, rel=0.02)
