"""SVRPG's and FedPG-BR's server against the formulas."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.aggregators.base import Aggregate
from fedrax.environments.base import Box, Discrete, Episodes, Spaces
from fedrax.learners.base import learners
from fedrax.message import Message
from fedrax.strategies.base import Tools, strategies
from fedrax.strategies.variance_reduced import importance_ratio
from fedrax.trees import ravel_rows

SPACES = Spaces(Box((3,), (-1.0,) * 3, (1.0,) * 3), Discrete(2))
LEARNER = learners.build("policy-gradient", {"hidden": (4,), "optimizer": "sgd", "learning_rate": 0.5})


def episodes_of(params, key, count=5, steps=6):
    keys = jax.random.split(key, 3)
    observation = jax.random.normal(keys[0], (steps, count, 3))
    action = LEARNER.act(params, observation.reshape(-1, 3), keys[1]).reshape(steps, count)
    lengths = jnp.arange(count) % steps + 1
    return Episodes(
        observation,
        action,
        jax.random.normal(keys[2], (steps, count)),
        jnp.arange(steps)[:, None] < lengths,
        jnp.ones(count, bool),
    )


def agents_of(count):
    return jax.vmap(lambda key: LEARNER.init(key, SPACES))(jax.random.split(jax.random.key(0), count))


def mean_tools(key, valid=True):
    def aggregate(vectors, weights, samples):
        vector = jnp.where(valid, vectors.mean(0), 0.0)
        return Aggregate(vector, jnp.full(len(vectors), valid), jnp.asarray(valid), {})

    return Tools(aggregate, lambda vectors, weights: jnp.median(vectors, axis=0), key, jnp.arange(4))


def combined(strategy, key, valid=True, agents=4):
    """A server after its agents' gradients, with the gradients' flat mean."""
    server = strategy.init(LEARNER, SPACES, agents_of(4), jax.random.key(0))
    downlink = strategy.broadcast(server, key)
    gradients = [LEARNER.gradient(server.params, episodes_of(server.params, k)) for k in jax.random.split(key, agents)]
    messages = jax.tree.map(lambda *x: jnp.stack(x), *gradients)
    after, _ = strategy.combine(LEARNER, server, downlink, Message(messages), jnp.ones(agents), mean_tools(key, valid))
    return server, after, messages


def flat(tree):
    return ravel_rows(jax.tree.map(lambda x: x[None], tree))[0]


@pytest.mark.training
def test_first_step_is_along_mu():
    strategy = strategies.build("svrpg", {})
    before, after, messages = combined(strategy, jax.random.key(1))
    mu = ravel_rows(messages).mean(0)
    np.testing.assert_allclose(flat(after.params), flat(before.params) - 0.5 * mu, atol=1e-6)
    assert int(after.done) == 1


@pytest.mark.training
def test_sampling_for_the_first_step_would_change_nothing():
    """At theta_0 the two gradients cancel, whatever is sampled: the skipped trajectories are truly not needed."""
    strategy = strategies.build("svrpg", {})
    before, after, _ = combined(strategy, jax.random.key(1))
    unstepped = eqx.tree_at(lambda s: (s.params, s.done), after, (before.params, jnp.asarray(0)))
    sampled = strategy.refine(LEARNER, unstepped, episodes_of(before.params, jax.random.key(2)))
    np.testing.assert_allclose(flat(sampled.params), flat(after.params), atol=1e-6)
    assert float(sampled.ratio) == pytest.approx(1.0)


@pytest.mark.training
def test_later_steps_follow_the_formula():
    strategy = strategies.build("svrpg", {"ratio_band": None})
    before, after, messages = combined(strategy, jax.random.key(1))
    episodes = episodes_of(after.params, jax.random.key(2))
    stepped = strategy.refine(LEARNER, after, episodes)
    ratio = jnp.exp(LEARNER.log_prob(before.params, episodes) - LEARNER.log_prob(after.params, episodes))
    v = (
        flat(LEARNER.gradient(after.params, episodes))
        - flat(LEARNER.gradient(before.params, episodes, ratio=ratio))
        + ravel_rows(messages).mean(0)
    )
    np.testing.assert_allclose(flat(stepped.params), flat(after.params) - 0.5 * v, atol=1e-6)
    assert not np.allclose(flat(stepped.params), flat(after.params))


def test_trajectory_ratio_is_the_product_of_step_ratios():
    episodes = episodes_of(LEARNER.init_params(jax.random.key(0), SPACES), jax.random.key(1))
    log_ratio = jnp.where(episodes.valid, 0.1, 0.0)
    ratio, mean = importance_ratio(log_ratio, episodes, "trajectory")
    lengths = episodes.valid.sum(0)
    np.testing.assert_allclose(
        jnp.where(episodes.valid, ratio, 0), jnp.where(episodes.valid, jnp.exp(0.1 * lengths), 0), rtol=1e-6
    )
    assert float(mean) == pytest.approx(float((np.exp(0.1 * lengths) * lengths).sum() / lengths.sum()), rel=1e-5)


@pytest.mark.training
def test_leaving_the_ratio_band_ends_the_loop_without_a_step():
    strategy = strategies.build("svrpg", {"ratio_band": 1e-9})
    _, after, _ = combined(strategy, jax.random.key(1))
    stopped = strategy.refine(LEARNER, after, episodes_of(after.params, jax.random.key(2)))
    np.testing.assert_array_equal(flat(stopped.params), flat(after.params))
    assert not bool(strategy.refining(stopped))
    assert int(strategy.finish(stopped, jax.random.key(0))[1].counted) == strategy.minibatch


@pytest.mark.parametrize("fallback", ["server", "geometric-median", "skip"])
def test_when_the_rule_accepts_nobody(fallback):
    strategy = strategies.build("svrpg", {"fallback": fallback})
    before, after, messages = combined(strategy, jax.random.key(1), valid=False)
    if fallback == "skip":
        assert not bool(strategy.refining(after))
        np.testing.assert_array_equal(flat(after.params), flat(before.params))
    elif fallback == "geometric-median":
        step = flat(before.params) - 0.5 * jnp.median(ravel_rows(messages), axis=0)
        np.testing.assert_allclose(flat(after.params), step, atol=1e-6)
    else:
        assert int(after.done) == 0
        episodes = episodes_of(after.params, jax.random.key(2))
        stepped = strategy.refine(LEARNER, after, episodes)
        own = flat(before.params) - 0.5 * flat(LEARNER.gradient(before.params, episodes))
        np.testing.assert_allclose(flat(stepped.params), own, atol=1e-6)


@pytest.mark.parametrize(("steps", "least", "mean"), [("geometric-from-1", 1, 5.0), ("geometric-from-0", 0, 4.0)])
def test_planned_steps_are_geometric(steps, least, mean):
    strategy = strategies.build("fedpg-br", {"steps": steps})
    keys = jax.random.split(jax.random.key(0), 20_000)
    drawn = jax.vmap(lambda key: strategy.draw_steps(jnp.asarray(16), key))(keys)
    assert int(drawn.min()) == least
    assert float(drawn.mean()) == pytest.approx(mean, rel=0.03)
    share = float((drawn == least).mean())
    assert share == pytest.approx(4 / 20, abs=0.01)


def test_batch_is_uniform_on_its_bounds():
    strategy = strategies.build("fedpg-br", {"batch_min": 12, "batch_max": 20})
    drawn = jax.vmap(strategy.draw_episodes)(jax.random.split(jax.random.key(0), 5_000))
    assert sorted(set(drawn.tolist())) == list(range(12, 21))


def test_uniform_output_keeps_each_round_equally_often():
    strategy = strategies.build("svrpg", {"output_iterate": "uniform"})
    server = strategy.init(LEARNER, SPACES, agents_of(4), jax.random.key(0))

    def final(key):
        def step(state, inputs):
            index, k = inputs
            marked = eqx.tree_at(
                lambda s: s.params, state, jax.tree.map(lambda x: jnp.full_like(x, index), state.params)
            )
            return strategy.finish(marked, k)[0], None

        rounds = jnp.arange(5.0)
        state, _ = jax.lax.scan(step, server, (rounds, jax.random.split(key, 5)))
        return jax.tree.leaves(strategy.output(state))[0].ravel()[0]

    kept = jax.vmap(final)(jax.random.split(jax.random.key(1), 5_000))
    np.testing.assert_allclose(np.bincount(np.asarray(kept, int), minlength=5) / 5_000, 0.2, atol=0.03)


def test_gpomdp_takes_one_step_along_the_aggregate():
    strategy = strategies.build("gpomdp", {})
    before, after, messages = combined(strategy, jax.random.key(1))
    expected = flat(before.params) - 0.5 * ravel_rows(messages).mean(0)
    np.testing.assert_allclose(flat(after.params), expected, atol=1e-6)
    _, unchanged, _ = combined(strategy, jax.random.key(1), valid=False)
    np.testing.assert_array_equal(flat(unchanged.params), flat(before.params))
