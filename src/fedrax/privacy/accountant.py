"""How much privacy noisy sums cost: (epsilon, delta) of any number of Gaussian releases.

Without sampling the answer is exact: Gaussian releases compose to one, whose epsilon the analytic Gaussian mechanism
gives (Balle and Wang, 2018, Theorem 8; Dong, Roth and Su, 2022, for the composition). With Poisson sampling it is an
upper bound by Renyi differential privacy at integer orders (Mironov, Talwar and Zhang, 2019, Section 3.3), turned into
epsilon by Canonne, Kamath and Steinke (2020, Proposition 12); :mod:`fedrax.privacy.pld` computes a tighter one.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.special import erfcx, gammaln, ndtr, ndtri

from fedrax.errors import FedraxError

LARGEST = 2**31 - 1
"""Most releases that are counted."""
LEAST_NOISE = 1e-100
"""Less counts as none: its square is not a number any more."""
PRECISION = 1e-10
"""Relative, of :func:`noise_for`."""
FIRST, LAST = 128, 1024
ORDERS = np.unique([*range(2, FIRST + 1), *np.geomspace(FIRST, LAST, 81).round().astype(int)]).astype(float)
"""Of the Renyi divergences: every one up to 128, then 2.6 % apart, where epsilon hardly depends on them."""


@dataclasses.dataclass(frozen=True)
class Releases:
    """Equal Gaussian releases: sums over units of privacy, each of which is clipped, plus noise in every coordinate.

    The amplification by ``sampling`` holds where neighbours differ by a unit added or removed. Where one is replaced by
    another, count with ``sampling=1``.
    """

    noise: float
    """Standard deviation of the noise on the sum, in units of the sum's sensitivity under the neighbouring relation."""
    count: int
    """How many."""
    sampling: float = 1.0
    """The probability with which each unit takes part in one, whoever else does (Poisson); 1: no amplification."""

    def __post_init__(self) -> None:
        if not self.noise >= 0:
            raise FedraxError(f"noise = {self.noise} is not allowed: give a standard deviation, 0 or more")
        if not 0 <= self.count <= LARGEST:
            raise FedraxError(f"count = {self.count} is not allowed: give a number of releases, 0 to {LARGEST}")
        if not 0 < self.sampling <= 1:
            raise FedraxError(f"sampling = {self.sampling} is not allowed: give a probability above 0, at most 1")


def epsilon(releases: Sequence[Releases], delta: float) -> float:
    """The least epsilon known for which all the releases together are (epsilon, delta)-differentially private.

    Exact where nothing is sampled, else an upper bound; infinite where a release has no noise.

    Raises:
        FedraxError: ``delta`` is no probability between 0 and 1.
    """
    check_delta(delta)
    releases = [each for each in releases if each.count > 0]
    if any(each.noise < LEAST_NOISE for each in releases):
        return math.inf
    # Sampling never costs privacy, and the bound by Renyi divergences is loose where it gains little.
    unsampled = _gaussian_epsilon(math.sqrt(sum(each.count / each.noise / each.noise for each in releases)), delta)
    if all(each.sampling == 1 for each in releases):
        return unsampled
    divergences = [each.count * _renyi_divergences(each.noise, each.sampling) for each in releases]
    return min(unsampled, _converted(np.sum(divergences, axis=0), delta))


def noise_for(target: float, delta: float, count: int, sampling: float = 1.0) -> float:
    """The least noise with which ``count`` releases stay within epsilon = ``target``, to one part in 10^10.

    Raises:
        FedraxError: ``target`` is not above 0 or not finite, or as :func:`epsilon` and :class:`Releases`.
    """
    _check_target(target)

    def within(noise: float) -> bool:
        return epsilon([Releases(noise, count, sampling)], delta) <= target

    if within(0.0):
        return 0.0
    high = 1.0
    while not within(high):
        high *= 2
    low = high / 2
    while within(low):
        low, high = low / 2, low
    while high > low * (1 + PRECISION):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if within(middle) else (middle, high)
    return high


def most_releases(target: float, delta: float, noise: float, sampling: float = 1.0) -> int:
    """The most releases within epsilon = ``target``; at most :data:`LARGEST`, and 0 where one is too many.

    Raises:
        FedraxError: as :func:`noise_for`.
    """
    _check_target(target)
    known, beyond = 0, LARGEST + 1
    while beyond - known > 1:
        middle = (known + beyond) // 2
        if epsilon([Releases(noise, middle, sampling)], delta) <= target:
            known = middle
        else:
            beyond = middle
    return known


def check_delta(delta: float) -> None:
    """Raises :class:`FedraxError` for a delta that is no probability between 0 and 1."""
    if not 0 < delta < 1:
        raise FedraxError(f"delta = {delta} is not allowed: give a probability between 0 and 1, for example 1e-5")


def _check_target(target: float) -> None:
    if not 0 < target < math.inf:
        raise FedraxError(f"epsilon = {target} is not allowed: give a number above 0")


def _gaussian_epsilon(mean: float, delta: float) -> float:
    """Epsilon of two unit Gaussians whose means are so far apart, the inverse of noise over sensitivity.

    delta(epsilon) = Phi(a) - exp(epsilon) Phi(a - mean) with a = mean/2 - epsilon/mean. It is solved for a: an epsilon
    is as large as the square of mean, and a never much larger than mean.
    """
    if mean == 0:
        return 0.0
    if math.isinf(mean):
        return math.inf
    low, high = min(float(ndtri(delta)), mean / 2), mean / 2
    if _gaussian_delta(high, mean) <= delta:
        return 0.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _gaussian_delta(middle, mean) <= delta else (low, middle)
    return (mean / 2 - low) * mean


def _gaussian_delta(a: float, mean: float) -> float:
    """delta of epsilon = mean (mean/2 - a).

    exp(epsilon) Phi(a - mean) is written as the density at a times a ratio, which neither overflows nor vanishes.
    """
    ratio = float(erfcx((mean - a) / math.sqrt(2)))
    if a < 0:
        return 0.5 * math.exp(-a * a / 2) * (float(erfcx(-a / math.sqrt(2))) - ratio)
    return float(ndtr(a)) - 0.5 * math.exp(-a * a / 2) * ratio


@functools.lru_cache(maxsize=64)
def _renyi_divergences(noise: float, sampling: float) -> Float[np.ndarray, " orders"]:
    """Of one Gaussian release, at each of :data:`ORDERS`; Poisson-sampled where ``sampling`` is below 1."""
    if sampling == 1:
        return ORDERS / 2 / noise / noise
    taking, log_binomials = _binomials()
    exponent = taking * (taking - 1) / 2 / noise / noise
    with np.errstate(under="ignore"):
        # log(exp(x) - 1): the terms of 0 and 1 vanish, and what is left does not drown in a sum that is nearly 1.
        log_excess = exponent + np.log(-np.expm1(-exponent))
    terms = log_binomials + (ORDERS[:, None] - taking) * math.log1p(-sampling) + taking * math.log(sampling)
    return np.logaddexp(0.0, np.logaddexp.reduce(terms + log_excess, axis=1)) / (ORDERS - 1)


@functools.cache
def _binomials() -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, "orders k"]]:
    """2 to the largest order, and the logarithms of how often so many of each order are chosen; -inf beyond it."""
    taking = np.arange(2.0, LAST + 1)
    rest = ORDERS[:, None] - taking
    chosen = gammaln(ORDERS[:, None] + 1) - gammaln(taking + 1) - gammaln(np.maximum(rest, 0.0) + 1)
    return taking, np.where(rest >= 0, chosen, -np.inf)


def _converted(divergences: Float[np.ndarray, " orders"], delta: float) -> float:
    """Epsilon at the order that gives the least."""
    each = divergences + np.log1p(-1 / ORDERS) - (math.log(delta) + np.log(ORDERS)) / (ORDERS - 1)
    return max(0.0, float(each.min()))
