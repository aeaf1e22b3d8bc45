"""Rules that use the server's own gradient: known values, what they tolerate, and where they may be used."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrax.aggregators.base import ServerGradient, aggregators
from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.runtime.make import make_runtime
from fedrax.trees import ravel_rows
from shipped import shipped

KEY = jax.random.key(0)
TARGET = jnp.array([3.0, -1.0, 2.0])


def quadratic(theta):
    """The server of the loss |theta - TARGET|^2 / 2, whose gradient is theta - TARGET."""

    def loss(theta):
        return 0.5 * jnp.square(theta - TARGET).sum(-1)

    return ServerGradient(theta - TARGET, lambda rows: loss(theta) - loss(theta - rows))


SERVER = quadratic(jnp.zeros(3))


def run(name, rows, weights=None, server=SERVER, key=KEY, **options):
    rows = jnp.asarray(rows, jnp.float32)
    weights = jnp.ones(len(rows)) if weights is None else jnp.asarray(weights, jnp.float32)
    return jax.jit(lambda r, w: aggregators.build(name, options).informed(server)(r, w, key=key))(rows, weights)


def test_fltrust_is_its_formula():
    own = SERVER.vector
    rows = jnp.array([[-3.0, 1.0, -2.0], [-1.0, 5.0, 0.5], [3.0, -1.0, 2.0], [-40.0, 0.0, 0.0]])
    unit = np.asarray(rows / jnp.linalg.norm(rows, axis=1, keepdims=True))
    trust = np.maximum(unit @ np.asarray(own / jnp.linalg.norm(own)), 0)
    verdict = run("fltrust", rows)
    expected = np.linalg.norm(own) * (trust[:, None] * unit).sum(0) / trust.sum()
    np.testing.assert_allclose(verdict.vector, expected, rtol=1e-5)
    assert verdict.accepted.tolist() == [True, True, False, True]


def test_fltrust_where_all_point_away_accepts_nobody():
    verdict = run("fltrust", [-SERVER.vector, -2 * SERVER.vector])
    assert not verdict.valid
    assert not verdict.accepted.any()
    assert not verdict.vector.any()


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_fltrust_counts_every_row_with_the_servers_length(scale):
    rows = scale * jnp.array([[-3.0, 1.0, -2.0], [-3.0, 1.0, -2.0]])
    np.testing.assert_allclose(run("fltrust", rows).vector, SERVER.vector, rtol=1e-5)


def test_the_trusting_filter_leaves_out_an_opposite_that_is_near_and_a_far_one_with_a_positive_cosine():
    # The radii reach 12 and 6: the opposite of a gradient of length 1 lies within, and 20 times the gradient does not.
    gradient = jnp.array([-0.8, 0.0, -0.6])
    rows = jnp.stack([gradient] * 5 + [-2.5 * gradient] + [20.0 * gradient])
    verdict = run("fedpg-trust", rows, tolerated=2, sigma=3.0, alpha=1.0)
    assert verdict.accepted.tolist() == [True] * 5 + [False, False]
    # All count with the server's length, |TARGET|.
    np.testing.assert_allclose(verdict.vector, np.sqrt(14) * gradient, rtol=1e-5)
    assert run("fedpg-filter", rows, tolerated=2, sigma=3.0, alpha=1.0).accepted.tolist() == [True] * 6 + [False]
    assert run("fltrust", rows).accepted.tolist() == [True] * 5 + [False, True]
    assert {"filter_rule", "filter_threshold", "trust_median"} <= set(verdict.metrics)


def test_the_trusting_filter_where_all_near_ones_point_away_accepts_nobody():
    verdict = run("fedpg-trust", jnp.stack([TARGET] * 3 + [-100 * TARGET]), sigma=1.0)
    assert not verdict.valid
    assert not verdict.vector.any()


def test_zeno_takes_the_steepest_descents():
    # Decreases of |theta - TARGET|^2 / 2 from 0: exact step 7, half step 5.25, nothing 0, opposite -21.
    rows = jnp.stack([-TARGET, -0.5 * TARGET, 0 * TARGET, TARGET])
    verdict = run("zeno", rows, tolerated=2, penalty=0.0)
    assert verdict.accepted.tolist() == [True, True, False, False]
    np.testing.assert_allclose(verdict.vector, -0.75 * TARGET, rtol=1e-6)
    np.testing.assert_allclose(verdict.metrics["score_median"], 7.0)


def test_zeno_charges_for_length():
    # With gamma 1 and rho 1 the exact step scores 7 - 14, the half step 5.25 - 3.5.
    rows = jnp.stack([-TARGET, -0.5 * TARGET])
    assert run("zeno", rows, tolerated=1, penalty=1.0).accepted.tolist() == [False, True]


def test_zeno_orders_equal_scores_at_random():
    rows = jnp.tile(-TARGET, (4, 1))
    keys = jax.random.split(KEY, 20)
    accepted = jax.vmap(lambda key: run("zeno", rows, tolerated=3, key=key).accepted)(keys)
    assert len(np.unique(accepted, axis=0)) == 4


@pytest.mark.parametrize("name", ["fltrust", "zeno"])
@pytest.mark.parametrize("forged", ["opposite", "huge", "overflowing"])
def test_a_majority_of_liars_is_tolerated(name, forged):
    honest = -TARGET + 0.3 * jax.random.normal(KEY, (3, 3))
    lie = {"opposite": 2.5 * TARGET, "huge": 1e6 * jnp.array([1.0, 1.0, 1.0]), "overflowing": jnp.full(3, 3e38)}[forged]
    verdict = run(name, jnp.concatenate([jnp.tile(lie, (7, 1)), honest]), tolerated=7)
    assert verdict.accepted.tolist() == [False] * 7 + [True] * 3
    assert float(verdict.vector @ -TARGET) > 0


@pytest.mark.parametrize("name", ["fltrust", "zeno", "fedpg-trust"])
@settings(max_examples=6)
@given(seed=st.integers(0, 2**31), absent=st.sets(st.integers(0, 5), max_size=5))
def test_absent_rows_do_not_count_and_order_does_not_matter(name, seed, absent):
    draws = np.random.default_rng(seed)
    rows = draws.normal(size=(6, 3)).astype(np.float32)
    weights = np.array([0.0 if i in absent else 1.0 for i in range(6)])
    present = [i for i in range(6) if i not in absent]
    order = draws.permutation(6)
    judged = functools.partial(run, name, tolerated=0, **({"sigma": 2.0} if name == "fedpg-trust" else {}))
    alone = judged(rows[present])
    junk = np.where(weights[:, None] > 0, rows, 1e9)
    np.testing.assert_allclose(judged(junk, weights).vector, alone.vector, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(judged(junk[order], weights[order]).vector, alone.vector, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["fltrust", "zeno", "fedpg-trust"])
def test_a_servers_gradient_that_is_not_finite_accepts_nobody(name):
    broken = ServerGradient(jnp.full(3, jnp.nan), lambda rows: jnp.full(len(rows), jnp.nan))
    verdict = run(name, jnp.eye(3), server=broken)
    assert not verdict.valid
    assert verdict.vector.tolist() == [0.0, 0.0, 0.0]


SMALL = ("budget.rounds=3", "federation.agents=4", "environment.horizon=20", "checkpoint.every=3")


def advanced(*overrides):
    runtime = make_runtime(resolve("fedpg-br/cartpole", [*SMALL, *overrides]))
    try:
        state = runtime.init()
        for latest, block in runtime.advance(state, 0):
            state = latest
            metrics = block
        return state, metrics
    finally:
        runtime.close()


@pytest.mark.training
@pytest.mark.parametrize("native", ["true", pytest.param("false", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["fltrust", pytest.param("zeno", marks=pytest.mark.slow)])
def test_the_servers_trajectories_are_sampled_and_counted(name, native):
    settings = ("strategy=svrpg", f"environment.native={native}", "strategy.batch=3", "strategy.steps=1", "seeds=1")
    _, plain = advanced(*settings, "aggregator=mean")
    _, judged = advanced(*settings, f"aggregator={name}", "strategy.reference_batch=11")
    # With one planned step, which needs no sampling, the server samples for the rule alone.
    assert plain["server_trajectories"].sum() == 0
    assert judged["server_trajectories"].ravel()[0] == 11
    assert judged["server_steps"].ravel()[0] >= 11
    # Four agents of 3, the 4 of the first step, and 11 for the rule, over five nodes.
    assert plain["trajectories"].ravel()[0] == round((4 * 3 + 4) / 5)
    assert judged["trajectories"].ravel()[0] == round((4 * 3 + 4 + 11) / 5)


@pytest.mark.training
def test_unset_the_server_samples_as_many_as_an_agent():
    _, metrics = advanced("strategy=fedpg-br", "aggregator=fltrust", "strategy.batch_min=2", "strategy.batch_max=6")
    agents, server = metrics["agent_trajectories"].ravel(), metrics["server_trajectories"].ravel()
    # What it samples for its later steps comes in fours.
    assert ((server - agents / 4) % 4 == 0).all()


@pytest.mark.training
@pytest.mark.parametrize("name", [pytest.param("fltrust", marks=pytest.mark.slow), "zeno"])
def test_flipped_gradients_of_a_majority_are_rejected_in_a_federation(name):
    _, metrics = advanced(
        "strategy=svrpg",
        f"aggregator={name}",
        "attack=sign-flipping",
        "attack.agents=3",
        "strategy.batch=40",
        "strategy.reference_batch=40",
        "environment.horizon=500",
    )
    assert metrics["filter_recall"].mean() > 0.8


@pytest.mark.training
def test_the_surrogate_has_the_policy_gradient():
    runtime = make_runtime(resolve("fedpg-br/cartpole", [*SMALL, "aggregator=zeno"]))
    federation = runtime.federation
    server = jax.tree.map(lambda x: x[0], runtime.init()).server
    strategy, learner = federation.strategy, federation.learner
    downlink = strategy.broadcast(server, KEY)
    episodes = runtime.reference(server, downlink, KEY)
    known = strategy.server_gradient(learner, server, episodes)
    taken = learner.log_prob(server.params, episodes)
    slope = jax.grad(lambda params: learner.surrogate(params, episodes, taken))(server.params)
    vector = ravel_rows(jax.tree.map(lambda x: x[None], slope))[0]
    np.testing.assert_allclose(vector, known.vector, rtol=1e-3, atol=1e-6)
    # To first order, a small step along the gradient decreases the loss by its squared length.
    step = 1e-2
    np.testing.assert_allclose(
        known.decrease(step * known.vector[None])[0], step * float(known.vector @ known.vector), rtol=0.05
    )
    runtime.close()


@pytest.mark.parametrize("name", ["fltrust", "zeno", "fedpg-trust"])
@pytest.mark.parametrize("strategy", ["gpomdp", "fedavg"])
def test_strategies_whose_server_samples_nothing_are_refused(name, strategy):
    config = resolve("fedpg-br/cartpole", [*SMALL, f"strategy={strategy}", f"aggregator={name}"])
    with pytest.raises(FedraxError, match=r"samples nothing; set another aggregator, or a strategy of fedpg-br"):
        make_runtime(config)


def test_every_rule_that_needs_the_gradient_is_tested_here():
    assert {n for n in shipped(aggregators) if aggregators[n].needs_server_gradient} == {
        "fltrust",
        "zeno",
        "fedpg-trust",
    }
