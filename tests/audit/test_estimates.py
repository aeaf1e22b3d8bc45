"""From scores to an epsilon that is certain: against other implementations, and mechanisms of a known epsilon."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest, mannwhitneyu

from fedrax.audit.estimates import auc, auc_margin, clopper_pearson, least_epsilon, true_positives_at

SCORES = arrays(np.float64, st.integers(1, 30), elements=st.integers(-3, 3).map(float))


def test_scores_by_hand():
    present, absent = np.array([3.0, 1.0, 2.0]), np.array([0.0, 1.0])
    assert auc(present, absent) == pytest.approx((2 + 1.5 + 2) / 6)
    assert true_positives_at(0.5, present, absent) == 1.0
    assert true_positives_at(0.0, present, absent) == pytest.approx(2 / 3)


@given(SCORES, SCORES)
def test_the_area_is_that_of_mann_and_whitney(present, absent):
    expected = mannwhitneyu(present, absent).statistic / len(present) / len(absent)
    assert auc(present, absent) == pytest.approx(expected)
    assert auc(present, absent) + auc(absent, present) == pytest.approx(1)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_bounds_of_a_chance_are_scipys(counts):
    expected = binomtest(*counts).proportion_ci(0.95, method="exact")
    assert clopper_pearson(*counts, 0.95) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_an_interval_of_an_area_holds_the_true_one():
    """Normal scores one deviation apart: 95 % of intervals, here at least 90 of 100, hold Phi(1/sqrt 2)."""
    draws, true = np.random.default_rng(0), 0.760250
    held = 0
    for _ in range(100):
        area = auc(draws.normal(1, 1, 200), draws.normal(0, 1, 200))
        held += abs(area - true) <= auc_margin(area, 200, 200)
    assert 90 <= held < 100


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_randomised_response_costs_what_it_costs(epsilon):
    """One bit, told truly by chance e^epsilon / (1 + e^epsilon): the threshold that tells is one of two."""
    draws, truly = np.random.default_rng(1), 1 / (1 + math.exp(-epsilon))
    present, absent = (1.0 * (draws.random(40_000) < chance) for chance in (truly, 1 - truly))
    assert 0.85 * epsilon < least_epsilon(present, absent, 0.0) <= epsilon


def test_nothing_follows_from_noise_alone_and_much_from_certainty():
    draws = np.random.default_rng(2)
    assert least_epsilon(draws.normal(size=1000), draws.normal(size=1000), 1e-5) == 0.0
    assert least_epsilon(np.ones(1000), np.zeros(1000), 0.0) == pytest.approx(math.log(0.99265 / 0.00735), rel=1e-3)
    assert least_epsilon(np.zeros(1000), np.ones(1000), 0.0) == 0.0
