"""Measures of how much environments differ, against values known in closed form."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedrax.environments.divergence import environment_divergence, jensen_shannon, parameter_spread
from fedrax.errors import FedraxError

TABLES = arrays(float, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.floats(0.01, 1.0))


def test_spread_is_relative_to_the_default():
    draws = [{"g": 8.0, "drift": -1.0, "own": 1.0}, {"g": 12.0, "drift": 3.0, "own": 1.0}]
    assert parameter_spread(draws, {"g": -10.0, "drift": 0.0}) == {"g": 0.2, "drift": 2.0, "own": 0.0}


def test_spread_needs_agents_with_the_same_parameters():
    for draws in ([], [{"g": 1.0}, {"l": 1.0}]):
        with pytest.raises(FedraxError, match="needs at least one agent, and the same parameters"):
            parameter_spread(draws, {})


def test_weights_of_kinds_are_compared_as_distributions_and_what_is_equal_is_left_out():
    mixtures = {"obstacles": ("stump", "pit")}
    draws = [{"g": 8.0, "same": 1.0, "stump": 3.0, "pit": 0.0}, {"g": 12.0, "same": 1.0, "stump": 0.0, "pit": 5.0}]
    assert environment_divergence(draws, {"g": 10.0}, mixtures) == {"g": 0.2, "obstacles (bits)": 1.0}
    bare = [{**draw, "stump": 0.0, "pit": 0.0} for draw in draws]
    assert environment_divergence(bare, {"g": 10.0}, mixtures) == {"g": 0.2}


@pytest.mark.parametrize(
    ("rows", "bits"),
    [
        ([[1, 0], [0, 1]], 1.0),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], 1.0),
        ([[1, 0], [1, 0], [0, 1]], 2 / 3),
        ([[0.2, 0.8], [0.2, 0.8]], 0.0),
        ([[3, 1]], 0.0),
        # The mixture is (3/4, 1/4): its entropy is 2 - 3/4 log2(3), and half a bit goes off it.
        ([[1, 0], [0.5, 0.5]], 1.5 - 0.75 * np.log2(3)),
        ([[10, 0], [2, 2]], 1.5 - 0.75 * np.log2(3)),
    ],
)
def test_divergences_known_in_closed_form(rows, bits):
    assert jensen_shannon(np.array(rows)) == pytest.approx(bits, abs=1e-12)


@given(TABLES)
def test_divergence_is_between_0_and_1_and_ignores_order_and_scale(rows):
    value = jensen_shannon(rows)
    assert 0 <= value <= 1
    assert jensen_shannon(3 * rows[::-1, ::-1]) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0.5, -0.5], [1, 0]], "finite weights of at least 0"),
        ([[np.inf, 1]], "finite weights of at least 0"),
        ([0.5, 0.5], "finite weights of at least 0"),
        (np.zeros((0, 3)), "with n at least 1"),
        ([[0, 0], [1, 0]], "every distribution needs a positive weight"),
    ],
)
def test_what_is_no_distribution_is_refused(rows, message):
    with pytest.raises(FedraxError, match=message):
        jensen_shannon(np.array(rows))
