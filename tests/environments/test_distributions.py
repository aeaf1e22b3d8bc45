"""Joint draws of parameters, as published systems made them."""

import numpy as np
import pytest

from fedrax.cli import main
from fedrax.config import resolve
from fedrax.environments.distributions import joint_draws
from fedrax.environments.heterogeneity import draw
from fedrax.environments.native import native_environments
from fedrax.environments.native_noise import Noisy
from fedrax.errors import FedraxError
from fedrax.runtime.draws import make_environment, physics_draws, unseen_draws

CART, PENDULUM, MOUNTAIN_CAR = "ContinuousCartPole-v0", "Pendulum-v1", "MountainCarContinuous-v0"
PUBLISHED = {
    CART: (
        ("length", "masspole", "masscart", "gravity"),
        [
            [2, 0.01, 0.4718, 8.727],
            [0.3, 0.0437, 0.2, 11.4403],
            [2, 0.5365, 1.0965, 7.9365],
            [0.5506, 0.6, 0.2, 10.4936],
            [0.9412, 0.01, 2, 9.5479],
        ],
    ),
    PENDULUM: (
        ("l", "m", "g"),
        [
            [1.5, 0.3882, 9.4718],
            [0.5832, 0.9437, 7.8638],
            [1.5, 1.4365, 10.0965],
            [1.0506, 1.5, 9.0041],
            [1.4412, 0.6691, 12.4308],
        ],
    ),
}
MEANS = [-0.2065, -0.1593, 0.7859, 0.9525, 0.5318]


def config(*overrides, id=PENDULUM, agents=5):
    table = [f"environment.heterogeneity.{text}" for text in ("distribution=fedtd3", *overrides)]
    return resolve({}, [f"environment={id}", f"federation.agents={agents}", "budget.rounds=1", *table])


@pytest.mark.parametrize("id", PUBLISHED)
def test_fedtd3_draws_the_published_numbers(id):
    """Printed to four digits in FedTD3's specification, for std 1 and seeds 1 to 5."""
    names, expected = PUBLISHED[id]
    draws = physics_draws(config(id=id))
    np.testing.assert_allclose([[agent[name] for name in names] for agent in draws], expected, rtol=0, atol=5.001e-5)
    defaults = native_environments[id]().physics()
    for agent in draws:
        assert agent.keys() == defaults.keys()
        assert {name: agent[name] for name in defaults if name not in names} == {
            name: value for name, value in defaults.items() if name not in names
        }


@pytest.mark.parametrize("id", PUBLISHED)
def test_fedtd3_draws_the_published_observation_means(id):
    settings = config("observation_noise=true", id=id)
    draws = physics_draws(settings)
    means = [agent["observation_noise_mean"] for agent in draws]
    np.testing.assert_allclose(means, MEANS, rtol=0, atol=5.001e-5)
    assert {agent["observation_noise_std"] for agent in draws} == {0.01}
    assert isinstance(make_environment(settings), Noisy)
    names, _ = PUBLISHED[id]
    for quiet, noisy in zip(physics_draws(config(id=id)), draws, strict=True):
        assert all(quiet[name] == noisy[name] for name in names)


def test_fedtd3_draws_the_mountain_cars_power_then_its_mean():
    draws = physics_draws(config("observation_noise=true", "std=0.001", id=MOUNTAIN_CAR, agents=2))
    for seed, agent in enumerate(draws, 1):
        generator = np.random.RandomState(seed)
        assert agent["power"] == pytest.approx(0.0015 + 0.001 * generator.standard_normal(), abs=1e-12)
        assert agent["observation_noise_mean"] == generator.uniform(-1, 1)


def test_the_trial_multiplies_the_seeds():
    first, third = (physics_draws(config(f"trial={trial}", agents=6)) for trial in (1, 3))
    assert third[0] == first[2]
    assert third[1] == first[5]
    assert len({tuple(agent.values()) for agent in physics_draws(config("trial=0"))}) == 1


def test_std_scales_the_draws_and_0_leaves_the_defaults():
    assert physics_draws(config("std=0")) == [native_environments[PENDULUM]().physics()] * 5
    draws = physics_draws(config("std=0.05"))
    np.testing.assert_allclose(
        [agent["g"] for agent in draws], [10 + 0.05 * (x[2] - 10) for x in PUBLISHED[PENDULUM][1]], atol=1e-5
    )


def test_the_runs_seed_changes_nothing():
    def seeded(seed):
        return draw({"distribution": "fedtd3"}, native_environments[PENDULUM]().physics(), 3, seed, PENDULUM)

    assert seeded(0) == seeded(1)


def test_unseen_environments_are_the_next_agents():
    assert unseen_draws(config(agents=2), 3) == physics_draws(config(agents=5))[2:]
    assert unseen_draws(config("m=1.3", agents=2), 1)[0]["m"] == 1.3
    with pytest.raises(FedraxError, match=r"heterogeneity.m = \[1.0, 2.0\] gives every agent's value"):
        unseen_draws(config("m=[1.0, 2.0]", agents=2), 1)


def test_the_tables_own_parameters_replace_the_joint_distribution():
    joint = physics_draws(config())
    draws = physics_draws(config("m=1.3", "clip_after_angle=1", "observation_noise_std=0.2"))
    assert {(agent["m"], agent["clip_after_angle"], agent["observation_noise_std"]) for agent in draws} == {
        (1.3, 1, 0.2)
    }
    assert {agent["observation_noise_mean"] for agent in draws} == {0.0}
    assert [agent["g"] for agent in draws] == [agent["g"] for agent in joint]


def test_a_table_without_a_joint_distribution_is_all_parameters():
    assert joint_draws({"std": 2.0}, PENDULUM, 2) == ([{}, {}], {"std": 2.0})


@pytest.mark.parametrize(
    ("id", "overrides", "message"),
    [
        (
            PENDULUM,
            ["distribution=fedtd4"],
            "environment.heterogeneity.distribution 'fedtd4' (did you mean 'fedtd3'?); allowed: fedtd3",
        ),
        (PENDULUM, ["distribution=3"], "environment.heterogeneity.distribution '3'; allowed: fedtd3"),
        ("CartPole-v1", [], f"does not know environment 'CartPole-v1'; it has BipedalWalkerHardcore-v3, {CART}"),
        (PENDULUM, ["std=-1"], "environment.heterogeneity.std = -1.0 is not allowed: it must be between 0"),
        (PENDULUM, ["std=nan"], "environment.heterogeneity.std = nan is not allowed"),
        (PENDULUM, ["trial=1.5"], "environment.heterogeneity.trial = 1.5 is not allowed"),
        (PENDULUM, ["observation_noise=maybe"], "environment.heterogeneity.observation_noise = 'maybe' is not allowed"),
        (PENDULUM, ["trail=2"], "(did you mean 'trial'?)"),
    ],
)
def test_mistakes_are_one_line(id, overrides, message):
    with pytest.raises(FedraxError) as error:
        physics_draws(config(*overrides, id=id))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_joint_distribution_of_parameters_that_the_environment_lacks_is_refused():
    with pytest.raises(
        FedraxError, match=r"distribution = 'fedtd3' draws g, l, which environment 'Pendulum-v1' does not have"
    ):
        draw({"distribution": "fedtd3"}, {"m": 1.0}, 2, 0, PENDULUM)


def test_without_a_joint_distribution_its_options_are_unknown_and_joint_distribution_is_offered():
    with pytest.raises(
        FedraxError, match=r"unknown physical parameter .* 'distributoin' \(did you mean 'distribution'"
    ):
        draw({"distributoin": "fedtd3"}, {"l": 1.0}, 2, 0, PENDULUM)
    with pytest.raises(FedraxError, match=r"unknown physical parameter .* 'trial'"):
        draw({"trial": 2}, {"l": 1.0}, 2, 0, PENDULUM)


def test_the_command_line_explains_the_joint_distribution(capsys):
    assert main(["describe", "fedtd3"]) == 0
    shown = capsys.readouterr().out
    assert "environment.heterogeneity.trial = 1" in shown
    box2d = ("BipedalWalkerHardcore-v3", "LunarLander-v3", "LunarLanderContinuous-v3")
    assert f"environments: {', '.join(sorted((CART, PENDULUM, MOUNTAIN_CAR, *box2d)))}" in shown
    assert main(["list"]) == 0
    assert "fedtd3" in capsys.readouterr().out
