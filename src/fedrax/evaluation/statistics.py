"""Honest statistics of a few runs: robust aggregates with bootstrap intervals.

Scores have the shape ``[..., runs, tasks]``; a vector is one task's runs. Aggregates reduce the last two
axes, so one call treats a whole curve ``[points, runs, tasks]`` or all resamples of a bootstrap. A NaN score,
such as a diverged run's, makes the aggregate and its interval NaN: it is never dropped in silence. Infinite scores
count as what they are; a mean over infinities of both signs is NaN.

Source: Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 2021.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from fedrax.errors import FedraxError

Scores = npt.NDArray[np.float64]
Statistic = Callable[[Scores], Scores]
"""``[..., runs, tasks] -> [...]``."""


def _as_scores(scores: npt.ArrayLike) -> Scores:
    """``float64[..., runs, tasks]`` with at least one run and one task."""
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim < 2 or array.shape[-1] == 0 or array.shape[-2] == 0:
        raise FedraxError(f"scores of shape {array.shape} hold no run; give scores[runs] or scores[runs, tasks]")
    return array


def mean(scores: npt.ArrayLike) -> Scores:
    """The mean over runs and tasks, ``[..., runs, tasks] -> [...]``, in the scores' unit."""
    with np.errstate(invalid="ignore"):
        # NumPy makes a number of an array without axes.
        return np.asarray(np.mean(_as_scores(scores), axis=(-2, -1)))


def iqm(scores: npt.ArrayLike) -> Scores:
    """The interquartile mean over runs and tasks, ``[..., runs, tasks] -> [...]``, in the scores' unit.

    The mean of what is left when the lowest and the highest quarter of all scores, rounded down, are cut
    (Agarwal et al. 2021, section 4.3). With fewer than four scores nothing is cut, and it is the mean.
    """
    array = _as_scores(scores)
    ordered = np.sort(array.reshape(*array.shape[:-2], -1), axis=-1)
    count = ordered.shape[-1]
    cut = count // 4
    with np.errstate(invalid="ignore"):
        middle = ordered[..., cut : count - cut].mean(axis=-1)
    # Sorting puts NaN last, where the cut would hide it.
    return np.where(np.isnan(ordered[..., -1]), np.nan, middle)


def stratified_bootstrap(
    scores: npt.ArrayLike,
    statistic: Statistic,
    repetitions: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[Scores, Scores]:
    """The percentile interval of ``statistic`` when runs are drawn anew, with replacement, within each task.

    Args:
        scores: ``[..., runs, tasks]``. Every leading position (a point of a curve) sees the same draws,
            because a run is drawn whole.
        statistic: reduces ``[..., runs, tasks]`` to ``[...]``, as :func:`iqm` and :func:`mean` do.
        repetitions: number of resamples.
        confidence: coverage of the interval, inside (0, 1).
        seed: of the resampling.

    Returns:
        ``(low, high)``, each ``[...]``. One run says nothing about other runs, so its interval is NaN, and so is that
        of scores with a NaN. With infinite scores a bound is infinite where that share of the resamples is; one whose
        statistic is not defined (a mean over infinities of both signs) widens the interval on both sides.

    Raises:
        FedraxError: ``confidence`` or ``repetitions`` is out of range.
    """
    if not 0 < confidence < 1:
        raise FedraxError(f"confidence = {confidence!r} is not allowed: it must lie strictly between 0 and 1")
    if repetitions < 1:
        raise FedraxError(f"repetitions = {repetitions!r} is not allowed: it must be at least 1")
    array = _as_scores(scores)
    runs, tasks = array.shape[-2:]
    if runs == 1:
        undefined = np.full(array.shape[:-2], np.nan)
        return undefined, undefined.copy()
    drawn = np.random.default_rng(seed).integers(0, runs, size=(repetitions, runs, tasks))
    tail = (1 - confidence) / 2
    # One position at a time: all resamples of a whole curve would fill the memory.
    bounds = np.array(
        [
            _percentiles(statistic(position[drawn, np.arange(tasks)]), tail)
            if not np.isnan(position).any()
            else (np.nan, np.nan)
            for position in array.reshape(-1, runs, tasks)
        ]
    ).reshape(-1, 2)
    shape = array.shape[:-2]
    return bounds[:, 0].reshape(shape), bounds[:, 1].reshape(shape)


def wilson(successes: float, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a probability of which ``count`` independent trials had so many successes (Wilson, 1927).

    Unlike the mean plus or minus its deviations, it is right at 0 and 1 too. No trial says nothing: (0, 1).
    """
    if count == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / count
    centre = share + z**2 / (2 * count)
    reach = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    scale = 1 + z**2 / count
    return max((centre - reach) / scale, 0.0), min((centre + reach) / scale, 1.0)


def _percentiles(values: Scores, tail: float) -> tuple[float, float]:
    """The quantiles ``tail`` and ``1 - tail`` of ``values[n]``, interpolated between finite neighbours only.

    Between others, where interpolation would be NaN, the bound is the outer one of the two.
    """
    bounds = []
    for level, undefined, outer in ((tail, -np.inf, "lower"), (1 - tail, np.inf, "higher")):
        known = np.where(np.isnan(values), undefined, values)
        neighbours = [np.quantile(known, level, method=method) for method in ("lower", "higher")]
        finite = np.isfinite(neighbours).all()
        bounds.append(float(np.quantile(known, level) if finite else neighbours[outer == "higher"]))
    return bounds[0], bounds[1]
