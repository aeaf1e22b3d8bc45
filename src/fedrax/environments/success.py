"""Whether an episode reached its goal, where the environment says so, and what comes of that over an episode.

Gymnasium has no field for it. Goal environments say it in ``info``, under ``is_success`` (Gymnasium-Robotics) or
``success`` (Meta-World); MiniGrid by a positive reward at the end of an episode.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

NAMES = ("is_success", "success")
"""Keys of ``info``."""
SUCCESS, LAST, SHARE = "success", "success_last", "success_share"
"""Of an episode: success in any step, in the last one, and the share of steps in success."""
MEASURED = ("return", "length")
"""Of every episode."""


def told(info: Any) -> Any:
    """The success in an ``info``, of one environment or of several; None where it has none."""
    if not isinstance(info, Mapping):
        return None
    return next((info[name] for name in NAMES if name in info), None)


def is_true(value: Any) -> bool | None:
    """A copy's success, given as a truth or a number; None for anything else."""
    try:
        array = np.asarray(value)
        return bool(array.reshape(()) > 0) if array.size == 1 and array.dtype.kind in "biuf" else None
    except (TypeError, ValueError):
        return None


class SuccessCount:
    """Successes of one episode in each of ``count`` copies, step by step."""

    def __init__(self, count: int) -> None:
        self.ever = np.zeros(count, bool)
        self.last = np.zeros(count, bool)
        self.steps = np.zeros(count)
        self.known = False

    def add(self, success: np.ndarray | None, alive: np.ndarray) -> None:
        """One step of the copies that are ``alive``; None where the environment does not say."""
        if success is None:
            return
        self.known = True
        now = success & alive
        self.ever |= now
        self.last[alive] = now[alive]
        self.steps += now

    def arrays(self, lengths: np.ndarray) -> dict[str, np.ndarray]:
        """Named arrays ``float[count]``; none where the environment never said."""
        if not self.known:
            return {}
        share = self.steps / np.maximum(lengths, 1)
        return {SUCCESS: self.ever.astype(float), LAST: self.last.astype(float), SHARE: share}
