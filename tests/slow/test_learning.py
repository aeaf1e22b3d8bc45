"""Learning curves: what the published experiments promise, on few seeds. Minutes each."""

import numpy as np
import pytest

import fedrax

pytestmark = pytest.mark.slow


def mean_return(run, trajectories):
    """Mean over seeds of the last evaluation at or before so many trajectories per agent."""
    last = {}
    for row in run.metrics():
        if row["trajectories"] <= trajectories:
            last[row["seed"]] = row["return"]
    return np.mean(list(last.values()))


@pytest.mark.parametrize("attack", ["none", "random-noise", "random-action", "sign-flipping", "alie"])
def test_fedpg_br_learns_cartpole_whoever_attacks(attack, tmp_path):
    attacked = [] if attack == "none" else [f"attack={attack}", "attack.agents=3"]
    run = fedrax.train(
        "fedpg-br/cartpole", ["budget.trajectories=2000", *attacked], seeds=5, out=tmp_path / "run", progress=False
    )
    assert mean_return(run, 2000) >= 450


def test_without_a_filter_noise_stops_svrpg(tmp_path):
    overrides = ["strategy=svrpg", "attack=random-noise", "attack.agents=3", "budget.trajectories=1500"]
    run = fedrax.train("fedpg-br/cartpole", overrides, seeds=3, out=tmp_path / "run", progress=False)
    assert mean_return(run, 1500) <= 300


@pytest.mark.parametrize("aggregator", ["median", "krum", "geometric-median", "centered-clipping"])
def test_robust_rules_replace_the_filter(aggregator, tmp_path):
    overrides = [f"aggregator={aggregator}", "attack=random-noise", "attack.agents=3", "budget.trajectories=2500"]
    run = fedrax.train("fedpg-br/cartpole", overrides, seeds=3, out=tmp_path / "run", progress=False)
    assert mean_return(run, 2500) >= 400


def test_a_calibrated_filter_needs_no_sigma(tmp_path):
    overrides = [
        "aggregator.radius=calibrated",
        "attack=random-noise",
        "attack.agents=3",
        "budget.trajectories=2000",
    ]
    run = fedrax.train("fedpg-br/cartpole", overrides, seeds=3, out=tmp_path / "run", progress=False)
    assert mean_return(run, 2000) >= 400


def test_paper_mode_learns(tmp_path):
    """SGD on GPOMDP gradients divided by trajectories: slower and noisier, but it learns.

    Without a baseline: CartPole's rewards are all 1, and what a baseline per step leaves of them says nothing.
    """
    overrides = [
        "strategy.mode=paper",
        "strategy.output_iterate=last",
        "learner.baseline=none",
        "learner.learning_rate=1e-4",
        "aggregator.radius=calibrated",
        "budget.trajectories=3000",
    ]
    run = fedrax.train("fedpg-br/cartpole", overrides, seeds=3, out=tmp_path / "run", progress=False)
    for seed in range(3):
        returns = [row["train_return"] for row in run.metrics() if row["seed"] == seed]
        assert np.mean(returns[-20:]) >= 1.5 * np.mean(returns[:20])


def test_a_host_environment_learns(tmp_path):
    """Acrobot through Gymnasium or EnvPool, without a preset of its own: from -500 to better than -150."""
    overrides = [
        "environment=Acrobot-v1",
        "environment.horizon=none",
        "evaluation.horizon=none",
        "learner.learning_rate=3e-3",
        "aggregator.radius=calibrated",
        "budget.trajectories=1000",
        "evaluation.every=5",
    ]
    run = fedrax.train("fedpg-br/cartpole", overrides, out=tmp_path / "run", progress=False)
    assert run.summary()["best_return"] >= -150


OBJECTIVES = ["none", "clip", "kl", "mdpo"]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_neighbours_solve_cartpole_under_every_objective(objective, tmp_path):
    """Poles and gravities differ from agent to agent; the episode limit is 500."""
    overrides = ["budget.steps_per_agent=200_000", f"learner.objective={objective}"]
    run = fedrax.train("fedppo/cartpole", overrides, out=tmp_path / "run", progress=False)
    assert run.summary()["final_return"] >= 475


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_neighbours_solve_acrobot_under_every_objective(objective, tmp_path):
    overrides = ["budget.steps_per_agent=400_000", f"learner.objective={objective}"]
    run = fedrax.train("fedppo/acrobot", overrides, out=tmp_path / "run", progress=False)
    assert run.summary()["final_return"] >= -100


@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "distillation"])
def test_td3_swings_equal_pendulums_up(strategy, tmp_path):
    """Few hidden units suffice; a policy that never swings up gets about -1200."""
    overrides = [
        f"strategy={strategy}",
        "environment.heterogeneity.std=0.05",
        "federation.agents=3",
        "learner.actor_layers=[64,64]",
        "learner.feature_layers=[64]",
        "learner.head_layers=[64]",
        "budget.steps_per_agent=15_000",
    ]
    run = fedrax.train("fedtd3/pendulum", overrides, out=tmp_path / "run", progress=False)
    assert run.summary()["final_return"] >= -300
