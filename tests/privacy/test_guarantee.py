"""From a configuration to epsilon: what is counted, what follows from what, and when training ends."""

import json

import numpy as np
import pytest
from test_protected_rounds import CARTPOLE

from fedrax import api
from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.privacy.accountant import Releases, epsilon
from fedrax.privacy.guarantee import guarantee, noise_on_updates

BASE = ["privacy.unit=agent", "privacy.clip=1"]


def bound(*overrides):
    return of(resolve({}, [*CARTPOLE, *overrides]))


def of(config):
    return guarantee(config.privacy, config.federation)


def test_without_a_unit_there_is_none():
    assert bound() is None
    assert bound("privacy.clip=1") is None


def test_rounds_of_an_agent_add_up_and_those_of_an_episode_do_not():
    """Goldens of dp-accounting: T releases at z are one at z / sqrt(T)."""
    agent = bound(*BASE, "privacy.noise=11", "privacy.delta=1e-5")
    assert agent.epsilon(291) == pytest.approx(7.3385, abs=1e-3)
    assert agent.epsilon(0) == 0
    episode = bound("privacy.unit=trajectory", "privacy.clip=1", "privacy.noise=2", "privacy.delta=1e-5")
    assert episode.neighbours == "replace"
    assert episode.epsilon(1) == episode.epsilon(1000) == pytest.approx(4.3772, abs=1e-3)
    left_out = bound(
        *("privacy.unit=trajectory", "privacy.clip=1", "privacy.noise=2", "privacy.delta=1e-5"),
        "privacy.neighbours=add-or-remove",
    )
    assert left_out.epsilon(7) == pytest.approx(1.9931, abs=1e-3)


def test_defaults_are_written_out():
    few = resolve({}, [*CARTPOLE, *BASE]).privacy
    assert (few.neighbours, few.delta, few.noise) == ("add-or-remove", 1e-5, 0.0)
    many = resolve({}, [*CARTPOLE, *BASE, "federation.agents=100000", "privacy.model=local"]).privacy
    assert (many.neighbours, many.delta) == ("replace", pytest.approx(100000**-1.1))


@pytest.mark.parametrize(
    ("unit", "model", "rounds"), [("agent", "central", 30), ("agent", "local", 30), ("trajectory", "central", 1)]
)
def test_epsilon_alone_is_noise_for_the_whole_budget(unit, model, rounds):
    config = resolve(
        {},
        [
            *(*CARTPOLE, f"privacy.unit={unit}", f"privacy.model={model}", "privacy.clip=1", "privacy.epsilon=2"),
            "budget.rounds=30",
        ],
    )
    made = of(config)
    assert made.epsilon(rounds) == pytest.approx(2, rel=1e-4)
    assert made.epsilon(rounds) <= 2
    assert made.limit == (None if unit == "trajectory" else 30)
    longer = resolve(config.model_dump(mode="json"), ["budget.rounds=60"])
    assert longer.privacy.noise == config.privacy.noise


def test_epsilon_alone_needs_to_know_how_many_rounds():
    with pytest.raises(FedraxError, match=r"budget\.rounds"):
        bound(*BASE, "privacy.epsilon=2", "budget.rounds=none", "budget.steps=1000")


@pytest.mark.training
def test_training_ends_before_the_round_that_would_exceed_it(tmp_path):
    settings = [*BASE, "privacy.noise=3", "privacy.epsilon=3", "budget.rounds=50", "checkpoint.every=2"]
    limit = bound(*settings).limit
    assert 2 <= limit < 50
    run = api.train({}, [*CARTPOLE, *settings], out=tmp_path / "run", progress=False)
    summary = json.loads((run.path / "summary.json").read_text())
    assert summary["rounds"] == limit
    assert summary["privacy"]["epsilon"] <= 3
    assert bound(*settings).epsilon(limit + 1) > 3
    line = summary["privacy"]["text"]
    for word in ("epsilon 2.", "delta 1e-05", "per agent", "add-or-remove", "central", "trusted", "no amplification"):
        assert word in line, line
    again = api.resume(run.path, ["budget.rounds=60"], progress=False)
    assert again.summary()["rounds"] == limit


def test_a_clip_that_moves_is_paid_for_by_the_noise():
    """Andrew et al., theorem 1: two releases of z_delta and 2 sigma_b together are one of z."""
    settings = [*BASE, "privacy.noise=2", "privacy.clip_quantile=0.5"]
    config = resolve({}, [*CARTPOLE, *settings])
    assert config.privacy.clip_noise == 2.0
    on_updates = noise_on_updates(config.privacy)
    together = epsilon([Releases(on_updates, 7), Releases(2 * config.privacy.clip_noise, 7)], 1e-5)
    assert together == pytest.approx(of(config).epsilon(7), rel=1e-6)
    many = resolve({}, [*CARTPOLE, *settings, "federation.agents=1000"]).privacy
    assert many.clip_noise == 50.0
    with pytest.raises(FedraxError, match="more than 1"):
        bound(*settings, "privacy.clip_noise=1")


def test_without_noise_no_bound_is_claimed():
    assert bound(*BASE).epsilon(1) == np.inf
    assert "no bound" in bound(*BASE).text(1)


def test_configurations_without_protection_are_the_experiments_that_they_were():
    assert resolve("fedpg-br/cartpole").digest() == resolve("fedpg-br/cartpole", ["privacy.bits=none"]).digest()
    assert resolve("fedpg-br/cartpole").digest() != resolve("fedpg-br/cartpole", ["privacy.clip=1"]).digest()
