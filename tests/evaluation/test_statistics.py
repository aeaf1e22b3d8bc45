"""Statistics against rliable (benchmarks/golden/statistics_from_rliable.py), then their properties."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedrax.errors import FedraxError
from fedrax.evaluation import statistics

OURS = np.array(
    [
        [0.7, 0.5, 0.7],
        [0.7, 0.5, 0.9],
        [1.2, 0.4, 0.5],
        [0.8, 1.1, 0.7],
        [0.4, 0.6, 1.2],
        [0.8, 0.4, 0.4],
        [0.3, 0.7, 0.6],
        [1.1, 0.8, 1.7],
        [0.9, 0.5, 0.6],
        [0.5, 1.0, 1.1],
    ]
)
THEIRS = np.array(
    [
        [0.4, 0.5, 0.5],
        [0.2, 0.2, 0.3],
        [0.8, 0.7, 0.4],
        [0.6, 0.5, 1.0],
        [0.4, 0.6, 0.8],
        [0.2, 0.5, 0.6],
        [0.5, 0.6, 0.4],
    ]
)
some_scores = arrays(
    np.float64,
    st.tuples(st.integers(1, 9), st.integers(1, 3)),
    elements=st.floats(-1e3, 1e3, allow_nan=False),
)


def test_aggregates_match_rliable():
    assert statistics.iqm(OURS) == pytest.approx(0.6875)
    assert statistics.iqm(OURS[:, 0]) == pytest.approx(0.7333333333333334)
    assert statistics.mean(OURS) == pytest.approx(0.7433333333333335)
    assert statistics.probability_of_improvement(OURS, THEIRS) == pytest.approx(0.7095238095238096)
    assert statistics.performance_profile(OURS, [0.3, 0.6, 0.9, 1.2]) == pytest.approx(
        [0.9666666666666667, 0.5666666666666667, 0.23333333333333334, 0.03333333333333333]
    )


@pytest.mark.parametrize(
    ("scores", "statistic", "expected"),
    [
        (OURS, statistics.iqm, (0.5875, 0.825)),
        (OURS[:, :1], statistics.mean, (0.57, 0.91)),
    ],
)
def test_bootstrap_interval_matches_rliable(scores, statistic, expected):
    # rliable: 50,000 resamples of another generator; the tolerance is the Monte Carlo error of a quantile.
    interval = statistics.stratified_bootstrap(scores, statistic, repetitions=20_000)
    assert interval == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize(
    ("scores", "statistic", "expected"),
    [
        # Without the infinite run (probability (3/4)^4 = .32) the lowest 2.5 % lie as they do for 1, 2, 3.
        ([math.inf, 1, 2, 3], statistics.mean, (1.5, math.inf)),
        ([-math.inf, 1, 2, 3], statistics.mean, (-math.inf, 2.5)),
        ([math.inf, -math.inf, 2, 3], statistics.mean, (-math.inf, math.inf)),
        ([math.inf, math.inf, math.inf], statistics.mean, (math.inf, math.inf)),
        ([math.inf, *range(1, 40)], statistics.iqm, None),
        ([math.nan, 1, 2, 3], statistics.mean, (math.nan, math.nan)),
    ],
)
def test_bootstrap_of_infinite_scores(scores, statistic, expected):
    low, high = statistics.stratified_bootstrap(scores, statistic)
    if expected is None:  # the infinite run is cut, as every score of 40 or more would be
        expected = statistics.stratified_bootstrap([1e6, *scores[1:]], statistic)
    np.testing.assert_equal((float(low), float(high)), tuple(map(float, expected)))


def test_iqm_of_ten_drops_two_at_each_end():
    assert statistics.iqm([-1000, 0, 1, 2, 3, 4, 5, 6, 7, 1e6]) == pytest.approx(3.5)


def test_ties_count_one_half():
    assert statistics.probability_of_improvement([1.0, 2.0], [2.0, 2.0, 0.0]) == pytest.approx(
        (0 + 0 + 1 + 0.5 + 0.5 + 1) / 6
    )


def test_the_interval_of_an_improvement_holds_it_and_is_certain_where_every_run_is_better():
    low, high = statistics.improvement_interval(OURS, THEIRS)
    assert 0 < low < statistics.probability_of_improvement(OURS, THEIRS) < high < 1
    assert statistics.improvement_interval([3.0, 4.0], [1.0, 2.0]) == (1, 1)
    # Of two runs each, of which one pair in four is lost: drawn anew, all four pairs may be that one.
    assert statistics.improvement_interval([1.0, 3.0], [0.0, 2.0]) == (0, 1)
    assert np.isnan(statistics.improvement_interval([3.0], [1.0, 2.0])).all()
    assert np.isnan(statistics.improvement_interval([3.0, math.nan], [1.0, 2.0])).all()


def test_infinite_scores_count_as_what_they_are():
    assert statistics.probability_of_improvement([math.inf, 1], [math.inf, 0]) == (0.5 + 1 + 0 + 1) / 4
    np.testing.assert_array_equal(statistics.performance_profile([math.inf, -math.inf], [0.0]), [0.5])


@given(some_scores, some_scores)
def test_probabilities_of_improvement_of_two_methods_sum_to_one(x, y):
    x, y = x[:, :1], y[:, :1]
    forth, back = statistics.probability_of_improvement(x, y), statistics.probability_of_improvement(y, x)
    assert forth + back == pytest.approx(1.0)


def test_one_run_has_no_interval():
    low, high = statistics.stratified_bootstrap([[3.0]], statistics.iqm)
    assert np.isnan(low)
    assert np.isnan(high)
    assert statistics.iqm([[3.0]]) == 3.0


def test_a_diverged_run_is_not_dropped():
    scores = [1.0, 2.0, 3.0, 4.0, float("nan"), 5.0, 6.0, 7.0]
    assert np.isnan(statistics.iqm(scores))
    assert np.isnan(statistics.mean(scores))
    assert math.isnan(statistics.probability_of_improvement(scores, scores))
    assert np.isnan(statistics.performance_profile(scores, [0.0])).all()
    assert np.isnan(statistics.stratified_bootstrap(scores, statistics.iqm, repetitions=50)[0])


def test_bootstrap_is_stratified():
    # Runs of a task agree, tasks differ: resampling within tasks changes nothing, across tasks it would.
    low, high = statistics.stratified_bootstrap(np.tile([0.0, 100.0], (5, 1)), statistics.mean, repetitions=200)
    assert low == high == 50.0


def test_points_of_a_curve_share_their_draws():
    curve = np.stack([OURS, OURS + 10.0])
    low, high = statistics.stratified_bootstrap(curve, statistics.mean, repetitions=300)
    assert low[1] - low[0] == pytest.approx(10.0)
    assert high[1] - high[0] == pytest.approx(10.0)
    alone = statistics.stratified_bootstrap(OURS, statistics.mean, repetitions=300)
    np.testing.assert_allclose((low[0], high[0]), alone)


def test_same_seed_same_interval_and_another_differs():
    first = statistics.stratified_bootstrap(OURS, statistics.iqm, repetitions=100, seed=1)
    assert first == statistics.stratified_bootstrap(OURS, statistics.iqm, repetitions=100, seed=1)
    assert first != statistics.stratified_bootstrap(OURS, statistics.iqm, repetitions=100, seed=2)


@given(some_scores, st.floats(-100, 100))
def test_aggregates_shift_with_the_scores_and_stay_inside_them(scores, shift):
    for statistic in (statistics.iqm, statistics.mean):
        value = statistic(scores)
        assert scores.min() - 1e-9 <= value <= scores.max() + 1e-9
        assert statistic(scores + shift) == pytest.approx(value + shift, abs=1e-6)


@given(some_scores)
def test_higher_confidence_is_never_narrower(scores):
    low, high = statistics.stratified_bootstrap(scores, statistics.mean, repetitions=50, confidence=0.5)
    lower, higher = statistics.stratified_bootstrap(scores, statistics.mean, repetitions=50, confidence=0.95)
    if len(scores) > 1:
        assert lower <= low <= high <= higher
    else:
        assert np.isnan([lower, low, high, higher]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: statistics.iqm([]), "hold no run"),
        (lambda: statistics.probability_of_improvement(OURS, THEIRS[:, :2]), "same tasks"),
        (lambda: statistics.stratified_bootstrap(OURS, statistics.iqm, confidence=95), "between 0 and 1"),
        (lambda: statistics.stratified_bootstrap(OURS, statistics.iqm, repetitions=0), "at least 1"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(FedraxError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662), (0, 0, 0.0, 1.0)],
)
def test_wilsons_interval(successes, count, low, high):
    """81 of 263 is the example of Newcombe (1998), "Two-sided confidence intervals for the single proportion"."""
    np.testing.assert_allclose(statistics.wilson(successes, count), (low, high), atol=6e-5)
