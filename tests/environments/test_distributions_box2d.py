"""FedTD3's published draws in Box2D, against the values its repository prints for std 1, trial 1."""

import numpy as np
import pytest

from fedrax.config import resolve
from fedrax.environments.divergence import jensen_shannon
from fedrax.environments.host_parameters import host_defaults
from fedrax.errors import FedraxError
from fedrax.runtime.draws import divergence, physics_draws

LANDERS, WALKER = ("LunarLander-v3", "LunarLanderContinuous-v3"), "BipedalWalkerHardcore-v3"
MIX = ("stump", "stairs", "pit")


def drawn(id, *overrides, agents=5):
    table = [f"environment.heterogeneity.{text}" for text in ("distribution=fedtd3", *overrides)]
    return physics_draws(resolve({}, [f"environment={id}", f"federation.agents={agents}", "budget.rounds=1", *table]))


def columns(draws, *names):
    return [[agent[name] for name in names] for agent in draws]


@pytest.mark.parametrize("id", LANDERS)
def test_the_landers_powers_are_the_published_ones(id):
    published = [(14.62, 0.3), (12.58, 0.544), (14.79, 1.037), (13.05, 1.1), (13.44, 0.3)]
    np.testing.assert_allclose(columns(drawn(id), "main_engine_power", "side_engine_power"), published, atol=6e-3)


def test_the_side_engines_place_is_drawn_then_the_noise():
    generator = np.random.RandomState(6)
    noise = generator.normal(0, 0.5, 4)
    agent = drawn(LANDERS[1], "std=0.5", "trial=3", "observation_noise=true", agents=2)[1]
    assert agent["side_engine_height"] == 14 + noise[2]
    assert agent["side_engine_away"] == 12 + noise[3]
    assert agent["observation_noise_mean"] == generator.uniform(-1, 1)
    assert (agent["observation_noise_std"], agent["action_noise_std"]) == (0.01, 0.0)


def test_the_walkers_first_version_gives_the_published_mixes():
    draws = drawn(WALKER)
    assert columns(draws, "stair_steps_low", "stair_steps_high") == [[1, top] for top in (5, 2, 10, 10, 10)]
    published = [
        [0.675, 0.310, 0.016],
        [0.035, 0.459, 0.506],
        [0.036, 0.900, 0.064],
        [0.521, 0.043, 0.436],
        [0.427, 0.048, 0.524],
    ]
    np.testing.assert_allclose(columns(draws, *MIX), published, atol=6e-4)
    np.testing.assert_allclose(np.sum(columns(draws, *MIX), 1), 1.0)


def test_the_walkers_second_version_has_five_fixed_mixes():
    draws = drawn(WALKER, "mixes=true", agents=6)
    assert columns(draws, *MIX) == [[0.7, 0.3, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0.4, 0, 0.6], [1, 1, 1]]
    assert columns(draws, "stump_size_low", "stump_size_high") == [[1, 2], [1, 3], [1, 3], [1, 3], [2, 3], [1, 3]]
    assert draws[5] == host_defaults(WALKER)
    assert drawn(WALKER, "mixes=true", "trial=2")[1] == draws[3]
    noisy = drawn(WALKER, "mixes=true", "observation_noise=true")
    assert noisy[0]["observation_noise_mean"] == np.random.RandomState(1).uniform(-1, 1)


@pytest.mark.parametrize("id", [*LANDERS, WALKER])
def test_every_draw_makes_an_environment(id):
    draws = drawn(id, "std=2", "trial=3", agents=20)
    assert {frozenset(agent) for agent in draws} == {frozenset(host_defaults(id))}
    assert draws[:5] == drawn(id, "std=2", "trial=3")


def test_the_tables_own_parameters_replace_the_joint_distribution():
    joint, own = drawn(LANDERS[0]), drawn(LANDERS[0], "gravity=-3", "main_engine_power=9")
    assert columns(own, "gravity", "main_engine_power") == [[-3, 9]] * 5
    assert columns(own, "side_engine_power") == columns(joint, "side_engine_power")


@pytest.mark.parametrize(
    ("id", "overrides", "message"),
    [
        ("Pendulum-v1", ["mixes=true"], "mixes = true is not allowed: they are mixes of the obstacles of 'BipedalWalk"),
        (LANDERS[0], ["mixes=true"], "and environment 'LunarLander-v3' has none; remove it, or set environment.id="),
        (WALKER, ["mixes=3"], "environment.heterogeneity.mixes = 3 is not allowed"),
        (WALKER, ["pitt=1"], "sets pitt (did you mean 'pit'?), and environment 'BipedalWalkerHardcore-v3'"),
        (WALKER, ["trail=2"], "(did you mean 'trial'?)"),
        ("BipedalWalker-v3", [], "does not know environment 'BipedalWalker-v3'; it has BipedalWalkerHardcore-v3"),
    ],
)
def test_mistakes_are_one_line(id, overrides, message):
    with pytest.raises(FedraxError) as error:
        drawn(id, *overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_walkers_differ_in_their_obstacles_as_distributions():
    table = ["environment.heterogeneity.distribution=fedtd3", "environment.heterogeneity.mixes=true"]
    config = resolve({}, [f"environment={WALKER}", "federation.agents=5", "budget.rounds=1", *table])
    differences = divergence(config)
    assert set(differences) == {"obstacles (bits)", "stump_size_low", "stump_size_high"}
    rows = np.array(columns(physics_draws(config), *MIX))
    assert differences["obstacles (bits)"] == jensen_shannon(rows)
