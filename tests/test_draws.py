"""Seeds that act in draws of their own: each is the run that has its draw as the only one."""

import json

import jax
import numpy as np
import pytest

import fedrax
from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.runtime.draws import divergence, physics_draws, unseen_draws
from fedrax.runtime.make import make_runtime

SMALL = [
    "learner=ppo",
    "learner.hidden=[8]",
    "learner.num_steps=8",
    "learner.update_epochs=1",
    "strategy=fedavg",
    "environment.num_envs=2",
    "environment.horizon=8",
    "federation.agents=2",
    "budget.rounds=2",
    "checkpoint.every=2",
    "evaluation.episodes=2",
    "evaluation.environments=own",
]
NATIVE = [
    "environment=Pendulum-v1",
    "environment.heterogeneity.distribution=fedtd3",
    "environment.heterogeneity.observation_noise=true",
]
HOST = [
    "environment=CartPole-v1",
    "environment.native=false",
    "environment.heterogeneity.observation_noise_mean={distribution='uniform', low=-2, high=2}",
]


def trained(out, *overrides, seeds=1):
    return fedrax.train({}, [*SMALL, *overrides], seeds=seeds, out=out, progress=False)


def returns_of(run, seed):
    return [row["agent_returns"] for row in run.metrics() if row["seed"] == seed]


@pytest.mark.training
@pytest.mark.parametrize(
    ("environment", "own"),
    [
        (NATIVE, lambda number: f"environment.heterogeneity.trial={1 + number}"),
        (HOST, lambda number: f"seed={5 + number}"),
    ],
    ids=["native", "host"],
)
def test_a_seed_is_the_run_of_its_draw(environment, own, tmp_path):
    run = trained(tmp_path / "all", *environment, "environment.draws=2", "seed=5", seeds=3)
    assert [len(draw) for draw in json.loads((run.path / "manifest.json").read_text())["draws"]] == [2, 2]
    everyone, across = run.evaluate(episodes=3), run.evaluate_across(episodes=3)
    # The second seed's, as the first draw is what a run without draws has.
    position, seed = 1, 6
    alone = trained(tmp_path / "alone", *environment, f"seed={seed}", own(position))
    np.testing.assert_allclose(returns_of(run, seed), returns_of(alone, seed), rtol=1e-4)
    np.testing.assert_allclose(everyone[seed].returns, alone.evaluate(episodes=3)[seed].returns, rtol=1e-4)
    np.testing.assert_allclose(across[seed].returns, alone.evaluate_across(episodes=3)[seed].returns, rtol=1e-4)


def test_seeds_take_the_draws_in_turn():
    config = resolve({}, [*SMALL, *NATIVE, "environment.draws=2", "seeds=5"])
    first, second, third = (physics_draws(config, position) for position in range(3))
    assert first == third
    assert first != second
    assert unseen_draws(config, 1, 1) != unseen_draws(config, 1, 2) == unseen_draws(config, 1)
    more = resolve({}, [*SMALL, *NATIVE, "environment.draws=2", "federation.agents=3"])
    assert physics_draws(more, 1)[:2] == second
    runtime = make_runtime(config)
    of_seeds = jax.vmap(lambda position: runtime.drawn(runtime.draws, position))(np.arange(5))
    np.testing.assert_allclose(of_seeds["g"], [[agent["g"] for agent in (first, second)[k % 2]] for k in range(5)])


def test_divergence_is_the_mean_over_draws():
    settings = [*SMALL, *NATIVE]
    one, other = (divergence(resolve({}, [*settings, f"environment.heterogeneity.trial={k}"])) for k in (1, 2))
    both = divergence(resolve({}, [*settings, "environment.draws=2", "seeds=2"]))
    assert both == {name: pytest.approx((one[name] + other[name]) / 2) for name in one}


def test_draws_need_something_to_draw():
    with pytest.raises(FedraxError, match=r"environment.draws = 3 is not allowed: there is nothing to draw: set env"):
        resolve({}, [*SMALL, "environment.draws=3"])
