"""From an attacker's scores to how well it tells two worlds apart, and to the least epsilon that allows it."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy.special import betaincinv

Present = Float[np.ndarray, " p"]
"""Scores with the canary."""
Absent = Float[np.ndarray, " a"]
"""Scores without."""
CONFIDENCE = 0.95
THRESHOLDS = 200
"""That are tried."""


def auc(present: Present, absent: Absent) -> float:
    """The chance that a score with the canary is above one without it (ties count half): area under the ROC curve."""
    ordered = np.sort(absent)
    below, upto = np.searchsorted(ordered, present, "left"), np.searchsorted(ordered, present, "right")
    return float((below + upto).mean() / 2 / len(absent))


def auc_margin(value: float, present: int, absent: int) -> float:
    """Half the width of an AUC's 95 % interval, of so many scores each (Hanley and McNeil, 1982)."""
    first, second = value / (2 - value), 2 * value * value / (1 + value)
    variance = value * (1 - value) + (present - 1) * (first - value**2) + (absent - 1) * (second - value**2)
    return 1.96 * math.sqrt(max(variance, 0.0) / present / absent)


def true_positives_at(rate: float, present: Present, absent: Absent) -> float:
    """The share of present canaries that are found where at most ``rate`` of the absent are said to be there."""
    allowed = math.floor(rate * len(absent))
    threshold = np.sort(absent)[::-1][allowed]
    return float((present > threshold).mean())


def clopper_pearson(hits: int, trials: int, confidence: float) -> tuple[float, float]:
    """Bounds of a chance of which ``hits`` of ``trials`` came true, each exceeded with half of 1 - ``confidence``.

    Clopper and Pearson (1934).
    """
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(betaincinv(hits, trials - hits + 1, tail))
    high = 1.0 if hits == trials else float(betaincinv(hits + 1, trials - hits, 1 - tail))
    return low, high


def least_epsilon(present: Present, absent: Absent, delta: float) -> float:
    """A lower bound on the mechanism's epsilon at ``delta``, with 95 % confidence; 0 where nothing follows.

    A test of an (epsilon, delta)-private mechanism has TPR <= exp(epsilon) FPR + delta, and so for the complements.
    The threshold, and which of the two, are chosen on one half of the scores, and the bound is that of the other half:
    a rate below, and one above, by Clopper and Pearson at half of the error each (Jagielski et al., 2020).
    """
    tried = np.unique(np.quantile(np.concatenate([present[::2], absent[::2]]), np.linspace(0, 1, THRESHOLDS)))
    choices = [(threshold, reverse) for threshold in tried for reverse in (False, True)]
    best = max(choices, key=lambda choice: _bound(present[::2], absent[::2], delta, *choice))
    return max(0.0, _bound(present[1::2], absent[1::2], delta, *best))


def _bound(present: Present, absent: Absent, delta: float, threshold: float, reverse: bool) -> float:
    """log((p - delta) / q) of the least p and the largest q, the chances to be told apart rightly and wrongly."""
    rightly, wrongly = (
        (absent < threshold, present < threshold) if reverse else (present >= threshold, absent >= threshold)
    )
    p, _ = clopper_pearson(int(rightly.sum()), len(rightly), CONFIDENCE)
    _, q = clopper_pearson(int(wrongly.sum()), len(wrongly), CONFIDENCE)
    return math.log((p - delta) / q) if p > delta else -math.inf
