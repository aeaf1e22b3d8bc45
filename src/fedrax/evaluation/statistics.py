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
MOST_NUMBERS = 2_000_000
"""Resampled scores in memory at once."""
RESAMPLES = 2000
"""Of a bootstrap."""
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


def probability_of_improvement(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """The chance that a run of ``x[runs, tasks]`` scores above a run of ``y[other runs, tasks]``.

    The Mann-Whitney statistic over the number of pairs, ties counting one half, averaged over tasks (Agarwal et al.
    2021, section 4.3). NaN with a NaN among the scores.

    Raises:
        FedraxError: ``x`` and ``y`` differ in their number of tasks.
    """
    ours, theirs = _comparable(x, y)
    if np.isnan(ours).any() or np.isnan(theirs).any():
        return math.nan
    return float(_wins(ours, theirs).mean())


def improvement_interval(
    x: npt.ArrayLike, y: npt.ArrayLike, repetitions: int = 2000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """The percentile interval of :func:`probability_of_improvement` when the runs of both are drawn anew.

    Args:
        x: ``[runs, tasks]``, drawn with replacement within each task.
        y: ``[other runs, tasks]``, drawn independently of ``x``.
        repetitions: number of resamples.
        confidence: coverage of the interval, inside (0, 1).
        seed: of the resampling.

    Returns:
        ``(low, high)``; NaN with a NaN among the scores, or where either has one run, which says nothing about others.
    """
    ours, theirs = _comparable(x, y)
    if min(len(ours), len(theirs)) < 2 or np.isnan(ours).any() or np.isnan(theirs).any():
        return math.nan, math.nan
    generator = np.random.default_rng(seed)

    def counts(runs: int) -> Scores:
        """How often each run is drawn in each resample."""
        return generator.multinomial(runs, np.full(runs, 1 / runs), size=repetitions).astype(np.float64)

    wins = np.moveaxis(_wins(ours, theirs), -1, 0)
    each = [((counts(len(ours)) @ task) * counts(len(theirs))).sum(axis=1) for task in wins]
    values = np.mean(each, axis=0) / (len(ours) * len(theirs))
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def performance_profile(scores: npt.ArrayLike, thresholds: npt.ArrayLike) -> Scores:
    """The fraction of scores above each threshold, ``[..., runs, tasks] -> [..., thresholds]``.

    Source: the run-score distribution of Agarwal et al. 2021, section 4.2.
    """
    array = _as_scores(scores)
    levels = np.asarray(thresholds, dtype=np.float64)
    above = array[..., None] > levels
    unknown = np.isnan(array).any(axis=(-2, -1))
    return np.where(np.expand_dims(unknown, -1), np.nan, above.mean(axis=(-3, -2)))


def _comparable(x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Scores, Scores]:
    ours, theirs = _as_scores(x), _as_scores(y)
    if ours.ndim != 2 or theirs.ndim != 2 or ours.shape[1] != theirs.shape[1]:
        raise FedraxError(
            f"scores of shape {ours.shape} and {theirs.shape} cannot be compared; give both as [runs, tasks] "
            "on the same tasks"
        )
    return ours, theirs


def _wins(x: Scores, y: Scores) -> Scores:
    """``[runs, other runs, tasks]``: 1 where ``x`` scores above ``y``, one half where they tie."""
    return (x[:, None] > y[None]) + (x[:, None] == y[None]) / 2


def resampled(runs: int, tasks: int = 1, repetitions: int = RESAMPLES, seed: int = 0) -> npt.NDArray[np.int64]:
    """Which runs each resample of a bootstrap consists of: numbers below ``runs``, ``[repetitions, runs, tasks]``."""
    return np.random.default_rng(seed).integers(0, runs, size=(repetitions, runs, tasks))


def stratified_bootstrap(
    scores: npt.ArrayLike,
    statistic: Statistic,
    repetitions: int = RESAMPLES,
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
    drawn = resampled(runs, tasks, repetitions, seed)
    tail = (1 - confidence) / 2
    positions = array.reshape(-1, runs, tasks)
    bounds = np.full((len(positions), 2), np.nan)
    finite = np.isfinite(positions).all(axis=(1, 2))
    # Some positions at a time: all resamples of a whole curve would fill the memory.
    together = max(1, MOST_NUMBERS // drawn.size)
    places = np.flatnonzero(finite)
    for start in range(0, len(places), together):
        some = places[start : start + together]
        values = statistic(positions[some][:, drawn, np.arange(tasks)])
        bounds[some] = np.quantile(values, [tail, 1 - tail], axis=-1).T
    for place in np.flatnonzero(~finite & ~np.isnan(positions).any(axis=(1, 2))):
        bounds[place] = _percentiles(statistic(positions[place][drawn, np.arange(tasks)]), tail)
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
