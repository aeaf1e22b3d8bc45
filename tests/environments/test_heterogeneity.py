"""Draws of per-agent physical parameters."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrax.environments.heterogeneity import draw
from fedrax.errors import FedraxError

DEFAULTS = {"gravity": 9.8, "length": 0.5}
UNIFORM = {"distribution": "uniform", "low": 0.3, "high": 0.7}
NORMAL = {"distribution": "normal", "mean": 9.8, "std": 2.0}


def column(name, table, agents=5, seed=0):
    return [agent[name] for agent in draw(table, DEFAULTS, agents, seed)]


def test_an_empty_table_is_the_defaults():
    assert draw({}, DEFAULTS, 2, 0) == [DEFAULTS, DEFAULTS]


def test_numbers_and_lists_are_taken_as_they_are():
    agents = draw({"gravity": 3, "length": [1, 2.5]}, DEFAULTS, 2, 0)
    assert agents == [{"gravity": 3.0, "length": 1.0}, {"gravity": 3.0, "length": 2.5}]


@given(seed=st.integers(0, 10_000), agents=st.integers(1, 20))
def test_uniform_draws_are_seeded_and_inside_their_bounds(seed, agents):
    values = column("length", {"length": UNIFORM}, agents, seed)
    assert values == column("length", {"length": UNIFORM}, agents, seed)
    assert values != column("length", {"length": UNIFORM}, agents, seed + 1)
    assert all(0.3 <= value < 0.7 for value in values)
    assert values == column("length", {"length": UNIFORM}, agents + 3, seed)[:agents]


@given(seed=st.integers(0, 10_000))
def test_a_parameters_draws_do_not_depend_on_the_others(seed):
    both = {"gravity": NORMAL, "length": UNIFORM}
    alone = column("length", {"length": UNIFORM}, seed=seed)
    assert column("length", both, seed=seed) == alone
    assert column("length", dict(reversed(both.items())), seed=seed) == alone


def test_two_parameters_of_one_distribution_differ():
    agents = draw({"gravity": UNIFORM, "length": UNIFORM}, DEFAULTS, 5, 0)
    assert all(agent["gravity"] != agent["length"] for agent in agents)


def test_normal_draws_have_their_moments():
    values = column("gravity", {"gravity": NORMAL}, agents=20_000)
    assert np.mean(values) == pytest.approx(9.8, abs=0.06)
    assert np.std(values) == pytest.approx(2.0, rel=0.03)


def test_normal_draws_are_clipped():
    values = column("gravity", {"gravity": NORMAL | {"low": 9.0, "high": 10.0}}, agents=200)
    assert min(values) == 9.0
    assert max(values) == 10.0
    assert min(column("gravity", {"gravity": NORMAL | {"low": 9.0}}, agents=200)) == 9.0


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"lenght": 1.0}, "'lenght' (did you mean 'length'?); allowed: gravity, length"),
        (
            {"length": [1.0, 2.0]},
            "environment.heterogeneity.length lists 2 values for 5 agents; give one per agent",
        ),
        ({"length": "long"}, "give a finite number"),
        ({"length": True}, "give a finite number"),
        ({"length": float("nan")}, "give a finite number"),
        ({"length": [1.0, "a", 1.0, 1.0, 1.0]}, "give a finite number"),
        ({"length": {"distribution": "unifrom"}}, "(did you mean 'uniform'?); allowed: normal, uniform"),
        ({"length": {"low": 0.0, "high": 1.0}}, "allowed: normal, uniform"),
        ({"length": {"distribution": "uniform", "low": 0.0}}, "length.high is missing: 'uniform' needs it"),
        (
            {"length": UNIFORM | {"hgih": 1.0}},
            "length.hgih (did you mean 'high'?); 'uniform' has distribution, low",
        ),
        ({"length": UNIFORM | {"high": 0.1}}, "low = 0.3 is above high = 0.1"),
        ({"length": NORMAL | {"low": 2.0, "high": 1.0}}, "low = 2 is above high = 1"),
        ({"length": NORMAL | {"std": -1.0}}, "length.std = -1.0 is not allowed"),
        ({"length": UNIFORM | {"low": -1.7e308, "high": 1.7e308}}, "its draws are not finite; give smaller numbers"),
        ({"length": NORMAL | {"mean": 1e308, "std": 1e308}}, "its draws are not finite; give smaller numbers"),
        ({"length": NORMAL | {"mean": "x"}}, "length.mean = 'x' is not allowed"),
    ],
)
def test_mistakes_are_one_line(table, message):
    with pytest.raises(FedraxError) as error:
        draw(table, DEFAULTS, 5, 0)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
