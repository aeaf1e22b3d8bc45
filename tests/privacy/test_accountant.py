"""What Gaussian releases cost: numbers of dp-accounting, closed forms, and what must hold for all inputs."""

import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrax.errors import FedraxError
from fedrax.privacy.accountant import LARGEST, Releases, epsilon, most_releases, noise_for
from fedrax.privacy.pld import epsilon_pld

# noise, sampling, count, delta, epsilon: dp-accounting 0.6.0, RdpAccountant and PLDAccountant, add-or-remove.
WITHOUT_SAMPLING = [
    (1, 1, 1e-5, 4.3772),
    (2, 1, 1e-5, 1.9931),
    (0.5, 1, 1e-5, 9.9973),
    (4, 1, 1e-5, 0.9263),
    (8, 1, 1e-5, 0.4344),
    (11, 291, 1e-5, 7.3385),
]
SAMPLED = [
    (1, 0.01, 1000, 1e-5, 2.1014, 1.8282),
    (2, 0.1, 300, 1e-5, 4.5643, 4.1833),
    (4, 0.1, 300, 1e-5, 1.9331, 1.7699),
    (1.1, 0.01, 291, 1e-6, 1.3871, 1.0183),
    (0.8, 0.01, 291, 1e-6, 3.1414, 2.5214),
]

noises = st.floats(-3, 6).map(lambda x: 10**x)
rates = st.one_of(st.just(1.0), st.floats(-6, 0).map(lambda x: 10**x))
counts = st.one_of(st.integers(1, 1000), st.floats(0, math.log10(LARGEST)).map(lambda x: int(10**x)))
deltas = st.floats(-12, math.log10(0.5)).map(lambda x: 10**x)
SLACK = 1 + 1e-9
few = settings(max_examples=50)


@pytest.mark.parametrize(("noise", "count", "delta", "expected"), WITHOUT_SAMPLING)
def test_without_sampling_it_is_the_tight_number(noise, count, delta, expected):
    assert epsilon([Releases(noise, count)], delta) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("noise", "sampling", "count", "delta", "renyi", "tight"), SAMPLED)
def test_sampled_releases_cost_no_less_than_the_tight_number(noise, sampling, count, delta, renyi, tight):
    own = epsilon([Releases(noise, count, sampling)], delta)
    assert tight <= own <= 1.04 * renyi


@pytest.mark.parametrize(("noise", "sampling", "count", "delta"), [row[:4] for row in SAMPLED])
def test_dp_accounting_agrees(noise, sampling, count, delta):
    accounting = pytest.importorskip("dp_accounting")
    rdp = pytest.importorskip("dp_accounting.rdp")
    event = accounting.PoissonSampledDpEvent(sampling, accounting.GaussianDpEvent(noise))
    own = epsilon([Releases(noise, count, sampling)], delta)
    assert own >= epsilon_pld([Releases(noise, count, sampling)], delta)
    assert own <= 1.04 * rdp.RdpAccountant().compose(event, count).get_epsilon(delta)
    same_orders = rdp.RdpAccountant(orders=range(2, 65)).compose(event, count).get_epsilon(delta)
    assert own == pytest.approx(same_orders, rel=1e-3)


def test_dp_accounting_agrees_on_what_is_mixed():
    pytest.importorskip("dp_accounting")
    unsampled = [Releases(3.0, 4), Releases(8.0, 20)]
    assert epsilon(unsampled, 1e-5) == pytest.approx(epsilon_pld(unsampled, 1e-5), abs=1e-3)
    mixed = [Releases(3.0, 4), Releases(1.5, 100, 0.05)]
    assert epsilon_pld(mixed, 1e-5) <= epsilon(mixed, 1e-5) <= 1.2 * epsilon_pld(mixed, 1e-5)


def test_without_dp_accounting_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(FedraxError, match=r"pip install 'fedrax\[dp\]'"):
        epsilon_pld([Releases(1.0, 1)], 1e-5)


def test_the_definition_holds():
    """delta(epsilon) of two unit Gaussians, integrated: what of one lies above e^epsilon times the other."""
    noise, count, delta = 2.0, 5, 1e-3
    distance = math.sqrt(count) / noise
    x = np.linspace(-20, 20, 400_001)
    there, here = (np.exp(-((x - mean) ** 2) / 2) / math.sqrt(2 * math.pi) for mean in (distance, 0.0))
    excess = np.maximum(there - math.exp(epsilon([Releases(noise, count)], delta)) * here, 0.0)
    assert excess.sum() * (x[1] - x[0]) == pytest.approx(delta, rel=1e-4)


def test_a_sampled_release_satisfies_its_definition():
    """The mixture against the single Gaussian, both ways, integrated: delta is no more than asked for."""
    noise, sampling, delta = 0.7, 0.2, 1e-4
    factor = math.exp(epsilon([Releases(noise, 1, sampling)], delta))
    x = np.linspace(-15, 15, 300_001)
    taking, absent = (np.exp(-(((x - mean) / noise) ** 2) / 2) / noise / math.sqrt(2 * math.pi) for mean in (1.0, 0.0))
    mixture = (1 - sampling) * absent + sampling * taking
    both = [
        np.maximum(one - factor * other, 0.0).sum() * (x[1] - x[0])
        for one, other in ((mixture, absent), (absent, mixture))
    ]
    assert 0 < max(both) <= delta


def test_what_has_no_noise_and_what_is_not_released():
    assert epsilon([], 1e-5) == 0
    assert epsilon([Releases(0.0, 0)], 1e-5) == 0
    assert epsilon([Releases(0.0, 1)], 1e-5) == math.inf
    assert epsilon([Releases(1.0, 3), Releases(0.0, 1, 0.01)], 1e-5) == math.inf
    assert noise_for(1.0, 1e-5, 0) == 0
    assert most_releases(1.0, 1e-5, 0.0) == 0
    assert most_releases(1.0, 1e-5, 1e6, 1e-6) == LARGEST


def test_equal_releases_may_be_told_in_any_way():
    together = epsilon([Releases(5.0, 30)], 1e-6)
    assert epsilon([Releases(5.0, 10), Releases(5.0, 20)], 1e-6) == pytest.approx(together, rel=1e-12)
    assert epsilon([Releases(5.0 / math.sqrt(30), 1)], 1e-6) == pytest.approx(together, rel=1e-12)


@few
@given(noises, counts, rates, deltas)
def test_it_is_a_number_and_no_more_than_without_sampling(noise, count, rate, delta):
    found = epsilon([Releases(noise, count, rate)], delta)
    assert 0 <= found < math.inf
    assert found <= epsilon([Releases(noise, count)], delta)


@few
@given(noises, counts, rates, deltas, st.floats(1.001, 10))
def test_it_grows_with_what_is_told_and_falls_with_noise_and_delta(noise, count, rate, delta, factor):
    found = epsilon([Releases(noise, count, rate)], delta)
    assert epsilon([Releases(noise * factor, count, rate)], delta) <= found * SLACK
    assert epsilon([Releases(noise, min(LARGEST, math.ceil(count * factor)), rate)], delta) >= found / SLACK
    assert epsilon([Releases(noise, count, min(1.0, rate * factor))], delta) >= found / SLACK
    assert epsilon([Releases(noise, count, rate)], min(0.5, delta * factor)) <= found * SLACK
    assert epsilon([Releases(noise, count, rate), Releases(noise * factor, 1, rate)], delta) >= found / SLACK


@few
@given(st.floats(-2, 3).map(lambda x: 10**x), deltas, counts, rates)
def test_the_noise_for_a_target_meets_it_and_no_less_does(target, delta, count, rate):
    noise = noise_for(target, delta, count, rate)
    assert epsilon([Releases(noise, count, rate)], delta) <= target
    assert epsilon([Releases(noise * (1 - 1e-6), count, rate)], delta) > target


@few
@given(st.floats(-2, 3).map(lambda x: 10**x), deltas, noises, rates)
def test_the_most_releases_within_a_target(target, delta, noise, rate):
    most = most_releases(target, delta, noise, rate)
    assert epsilon([Releases(noise, most, rate)], delta) <= target
    if most < LARGEST:
        assert epsilon([Releases(noise, most + 1, rate)], delta) > target


def test_the_noise_for_many_releases_allows_as_many():
    for sampling in (1.0, 0.1):
        assert most_releases(3.0, 1e-5, noise_for(3.0, 1e-5, 300, sampling), sampling) == 300


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: Releases(-1.0, 1), "noise = -1"),
        (lambda: Releases(math.nan, 1), "noise = nan"),
        (lambda: Releases(1.0, -1), "count = -1"),
        (lambda: Releases(1.0, 2**31), "count = 2147483648"),
        (lambda: Releases(1.0, 1, 0.0), "sampling = 0"),
        (lambda: Releases(1.0, 1, 1.5), r"sampling = 1\.5"),
        (lambda: epsilon([], 0.0), "delta = 0"),
        (lambda: epsilon([], 1.0), "delta = 1"),
        (lambda: noise_for(0.0, 1e-5, 1), "epsilon = 0"),
        (lambda: most_releases(math.inf, 1e-5, 1.0), "epsilon = inf"),
    ],
)
def test_what_cannot_be_is_one_line(call, what):
    with pytest.raises(FedraxError, match=what) as error:
        call()
    assert "\n" not in str(error.value)
