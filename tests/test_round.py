"""What a round does with absent, broken and Byzantine agents, on short native runs."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.aggregators.base import Aggregate, check_verdict
from fedrax.attacks.base import Attack, attacks, replace_rows
from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.federation import Cohort, Exchange, round_metrics
from fedrax.runtime import native
from fedrax.runtime.make import make_runtime
from fedrax.runtime.mapping import map_in_batches
from fedrax.runtime.rounds import success_share, summed_reports

SMALL = [
    "federation.agents=5",
    "budget.trajectories=none",
    "budget.rounds=4",
    "checkpoint.every=4",
    "environment.horizon=30",
    "evaluation.episodes=2",
]
FEW = ["strategy.batch_min=2", "strategy.batch_max=4"]
"""Trajectories of FedPG-BR's agents; the other strategies have other options."""


@attacks.register("test-nan")
class NotANumber(Attack):
    """Sends NaN."""

    def corrupt(self, messages, byzantine, key, knowledge):
        return replace_rows(messages, byzantine, jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), messages))


def advance(overrides):
    """Four rounds; the final state and the metrics ``[rounds, ...]`` of seed 0."""
    few = [] if any(text.startswith("strategy=") for text in overrides) else FEW
    runtime = make_runtime(resolve("fedpg-br/cartpole", [*SMALL, *few, *overrides]))
    (result,) = runtime.advance(runtime.init(), 0)
    state, metrics = result
    return state, {name: value[0] for name, value in metrics.items()}


def finite(tree):
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))


@pytest.mark.training
@pytest.mark.parametrize("aggregator", ["mean", "krum", "fedpg-filter"])
def test_an_agent_that_sends_nan_is_excluded_and_named(aggregator):
    state, metrics = advance(["attack=test-nan", "attack.agents=1", f"aggregator={aggregator}"])
    assert metrics["excluded"].tolist() == [[True, False, False, False, False]] * 4
    assert metrics["present"].tolist() == [4] * 4
    assert finite(state.server.params)


@pytest.mark.training
def test_all_agents_broken_leaves_the_server_to_itself():
    state, metrics = advance(["attack=test-nan", "attack.agents=5", "aggregator=mean"])
    assert metrics["accepted"].tolist() == [0] * 4
    assert finite(state.server.params)
    assert (metrics["gradient_steps"] >= 1).all(), "the fallback steps along the server's own gradient"


@pytest.mark.training
def test_partial_participation_asks_only_a_share():
    _, metrics = advance(["federation.participation=0.4"])
    assert (metrics["present"] == 2).all()
    assert (metrics["agent_trajectories"] <= 2 * 4).all()


@pytest.mark.training
def test_dropped_out_agents_do_not_count():
    state, metrics = advance(["federation.dropout=0.6", "strategy=gpomdp", "strategy.batch=2"])
    assert metrics["present"].min() < 5
    assert (metrics["accepted"] == metrics["present"]).all()
    assert finite(state.server.params)


@pytest.mark.training
def test_nobody_answers():
    before = make_runtime(resolve("fedpg-br/cartpole", [*SMALL, "strategy=gpomdp"])).init()
    state, metrics = advance(["federation.dropout=0.999", "strategy=gpomdp", "strategy.batch=2"])
    assert (metrics["present"] == 0).all()
    for old, new in zip(jax.tree.leaves(before.server.params), jax.tree.leaves(state.server.params), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.training
def test_one_agent_alone():
    state, metrics = advance(["federation.agents=1"])
    assert (metrics["accepted"] == 1).all()
    assert finite(state.server.params)


@pytest.mark.training
def test_the_budget_freezes_a_seed_within_a_call(monkeypatch):
    config = resolve("fedpg-br/cartpole", [*SMALL, *FEW, "budget.rounds=2"])
    runtime = make_runtime(config)
    start = runtime.init()
    ticks = itertools.count(step=7.0)
    monkeypatch.setattr(native, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    ((state, metrics),) = runtime.advance(start, 0)
    assert metrics["active"][0].tolist() == [True, True, False, False]
    assert state.tally.rounds.tolist() == [2]
    # All of the call's time is that of the rounds that count.
    assert metrics["seconds"][metrics["active"]].sum() == 7.0


@pytest.mark.training
def test_batches_of_agents_compute_the_same():
    whole, _ = advance([])
    split, _ = advance(["runtime.agents_per_batch=2"])
    for a, b in zip(jax.tree.leaves(whole.server.params), jax.tree.leaves(split.server.params), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 7, 10])
def test_map_in_batches_keeps_order_and_shape(batch):
    out = map_in_batches(lambda x: x * 2, jnp.arange(7), batch)
    assert out.tolist() == [0, 2, 4, 6, 8, 10, 12]


@pytest.mark.training
def test_evaluation_every_other_round_only():
    _, metrics = advance(["evaluation.every=2"])
    assert np.isnan(metrics["return"]).tolist() == [True, False, True, False]


@pytest.mark.training
def test_heterogeneous_agents_live_in_different_worlds():
    """With a pole that hardly falls and one that falls at once, agents' episodes differ as drawn."""
    _, same = advance(["strategy=gpomdp", "strategy.batch=4"])
    _, other = advance(
        [
            "strategy=gpomdp",
            "strategy.batch=4",
            "environment.heterogeneity.gravity=[0.0, 0.0, 0.0, 0.0, 0.0]",
            "environment.heterogeneity.force_mag=0.001",
        ]
    )
    assert (other["agent_steps"] == 5 * 4 * 30).all()
    assert (same["agent_steps"] < 5 * 4 * 30).all()


@pytest.mark.training
@pytest.mark.parametrize(("strategy", "agents"), [("svrpg", 4), ("svrpg", 1), ("gpomdp", 1)])
def test_every_strategy_runs(strategy, agents):
    sizes = FEW if strategy == "fedpg-br" else ["strategy.batch=2"]
    runtime = make_runtime(
        resolve("fedpg-br/cartpole", [*SMALL, f"strategy={strategy}", f"federation.agents={agents}", *sizes])
    )
    ((state, _),) = runtime.advance(runtime.init(), 0)
    assert finite(state.server.params)
    assert state.tally.rounds.tolist() == [4]


def exchanged(accepted):
    """An exchange in which agents 3 and 4 of five are Byzantine."""
    five = jnp.arange(5)
    cohort = Cohort(five, five >= 3, jnp.ones(5, bool))
    return cohort, Exchange(jnp.array(accepted), jnp.ones(5, bool), jnp.zeros(5, bool), {})


def test_a_rule_that_cannot_reject_has_neither_recall_nor_precision():
    cohort, exchange = exchanged([True] * 5)
    assert set(round_metrics(cohort, exchange, rejects=False)) == {"present", "accepted", "byzantine"}
    measured = round_metrics(cohort, exchange, rejects=True)
    assert float(measured["filter_recall"]) == 0, "it could have"
    assert np.isnan(measured["filter_precision"])


def test_recall_and_precision_of_a_filter():
    cohort, exchange = exchanged([True, True, False, False, True])
    measured = round_metrics(cohort, exchange, rejects=True)
    assert float(measured["filter_recall"]) == 0.5
    assert float(measured["filter_precision"]) == 0.5


@pytest.mark.training
def test_metrics_of_a_mean_under_attack_name_no_recall():
    _, metrics = advance(["strategy=gpomdp", "strategy.batch=2", "attack=sign-flipping", "attack.agents=1"])
    assert metrics["byzantine"].tolist() == [1] * 4
    assert not [name for name in metrics if name.startswith("filter")]


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (jnp.zeros(3), "must return an Aggregate"),
        (Aggregate(jnp.zeros(2), jnp.ones(4, bool), jnp.array(True), {}), r"vector of shape \(2,\); it must be \(3,\)"),
        (
            Aggregate(jnp.zeros(3), jnp.ones(1, bool), jnp.array(True), {}),
            r"accepted of shape \(1,\); it must be \(4,\)",
        ),
        (Aggregate(jnp.zeros(3), jnp.ones(4, bool), jnp.ones(4), {}), r"valid of shape \(4,\); it must be \(\)"),
    ],
)
def test_what_a_rule_returns_amiss_is_one_line(verdict, words):
    with pytest.raises(FedraxError, match=f"aggregator 'mine' returned .*{words}"):
        check_verdict("mine", verdict, (4, 3))


def test_training_success_is_of_those_who_say():
    """Over one agent's updates, of which the first said nothing; then over agents, of whom one never says."""
    nan = float("nan")
    reports = {"successes": jnp.array([nan, 2.0]), "episodes": jnp.array([1, 4]), "learning": {}}
    assert summed_reports(reports)["successes"] == 2
    assert jnp.isnan(summed_reports(reports | {"successes": jnp.array([nan, nan])})["successes"])
    report = {"successes": jnp.array([2.0, nan, 1.0]), "episodes": jnp.array([5, 7, 5])}
    assert success_share(report, jnp.array([True, True, True])) == pytest.approx(0.3)
    assert success_share(report, jnp.array([True, True, False])) == pytest.approx(0.4)
