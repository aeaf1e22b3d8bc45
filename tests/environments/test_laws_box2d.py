"""FedTD3's published draws in Box2D, against the values its repository prints for std 1, trial 1."""

import numpy as np
import pytest

from fedrax.environments.host_parameters import check_host_parameters, host_defaults
from fedrax.environments.laws_box2d import draw_lander, draw_walker, draw_walker_mixes

LANDER, WALKER = "LunarLanderContinuous-v3", "BipedalWalkerHardcore-v3"


def test_the_landers_powers_are_the_published_ones():
    drawn = [draw_lander(agent, std=1.0, trial=1) for agent in range(5)]
    powers = [(each["main_engine_power"], each["side_engine_power"]) for each in drawn]
    published = [(14.62, 0.3), (12.58, 0.544), (14.79, 1.037), (13.05, 1.1), (13.44, 0.3)]
    np.testing.assert_allclose(powers, published, atol=6e-3)


def test_the_side_engines_place_is_drawn_last():
    random = np.random.RandomState(6)
    noise = random.normal(0, 0.5, 4)
    drawn = draw_lander(1, std=0.5, trial=3)
    assert drawn["side_engine_height"] == 14 + noise[2]
    assert drawn["side_engine_away"] == 12 + noise[3]


def test_the_walkers_first_law_gives_the_published_mixes():
    drawn = [draw_walker(agent, std=1.0, trial=1) for agent in range(5)]
    assert [each["stair_steps_high"] for each in drawn] == [5, 2, 10, 10, 10]
    mixes = [[each[name] for name in ("stump", "stairs", "pit")] for each in drawn]
    published = [
        [0.675, 0.310, 0.016],
        [0.035, 0.459, 0.506],
        [0.036, 0.900, 0.064],
        [0.521, 0.043, 0.436],
        [0.427, 0.048, 0.524],
    ]
    np.testing.assert_allclose(mixes, published, atol=6e-4)
    np.testing.assert_allclose(np.sum(mixes, 1), 1.0)


def test_the_walkers_second_law_has_five_fixed_mixes():
    drawn = [{**host_defaults(WALKER), **draw_walker_mixes(agent, std=1.0, trial=1)} for agent in range(6)]
    mixes = [[each[name] for name in ("stump", "stairs", "pit")] for each in drawn]
    assert mixes == [[0.7, 0.3, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0.4, 0, 0.6], [1, 1, 1]]
    sizes = [(each["stump_size_low"], each["stump_size_high"]) for each in drawn]
    assert sizes == [(1, 2), (1, 3), (1, 3), (1, 3), (2, 3), (1, 3)]
    assert draw_walker_mixes(1, std=1.0, trial=2) == draw_walker_mixes(3, std=1.0, trial=1)


@pytest.mark.parametrize(("id", "law"), [(LANDER, draw_lander), (WALKER, draw_walker), (WALKER, draw_walker_mixes)])
def test_every_draw_makes_an_environment(id, law):
    for agent in range(5):
        drawn = law(agent, 2.0, 3)
        assert drawn.keys() <= host_defaults(id).keys()
        check_host_parameters(id, {**host_defaults(id), **drawn})
        assert drawn == law(agent, 2.0, 3)
