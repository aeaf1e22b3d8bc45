"""How large messages and the server's steps have been of late: what is far beyond that is not used.

It bounds what one lie can do where the rule is a mean: a message of 3e38 is not used, and a combination that is not
finite, or leaps, is not kept. A lie of the usual size passes; robust rules (``aggregator=``) are there for it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from fedrax.errors import FedraxError
from fedrax.message import is_real
from fedrax.records.files import read_json, write_json

ROUNDS = 10
"""Rounds that count as recent."""
LONGER: Mapping[str, float] = {"update": 30.0, "statistics": 1e6, "individual": 1e6}
"""How many times as long as usual a part of a message may be. Updates of honest agents were at most 7 times as long as
their round's median in FedPG-BR, FedAvg and FedTD3; sums over observations differ as these do."""
NAMES = {"update": "an update", "statistics": "statistics", "individual": "an individual part"}
LARGER = 100.0
"""How many times as long as the longest of recent rounds the server's step may be."""
KNOWN = 3
"""Steps of the server after which they are compared."""
LARGEST_FIRST = 1e6
"""The longest step before, in units of what the server holds."""


class Measured(NamedTuple):
    """A number of a round."""

    round: int
    value: float


class Recent:
    """Median norms of the parts of messages, and lengths of the server's steps, in recent rounds; kept in a file."""

    def __init__(self, path: Path) -> None:
        """A file that is there is read: a server that was restarted judges as it did before."""
        self.path = path
        self.series = {name: deque[Measured](maxlen=ROUNDS) for name in (*LONGER, "step")}
        if path.exists():
            table = read_json(path, "list of recent norms")
            try:
                for name, series in self.series.items():
                    series.extend(Measured(int(round), float(value)) for round, value in table[name])
            except (KeyError, TypeError, ValueError):
                raise FedraxError(f"{path} is damaged; delete it and resume the run") from None

    def begin(self, round: int) -> None:
        """Forgets what was measured in this round or later: it is done again."""
        for name, series in self.series.items():
            self.series[name] = deque((each for each in series if each.round < round), maxlen=ROUNDS)

    def too_long(self, round: int, norms: Mapping[int, Mapping[str, float]], model: float) -> dict[int, str]:
        """Why messages are not used, by agent, of those with a part that is far longer than usual.

        Usual is the longest of the (lower) median of this round and those of recent rounds, where parts of norm 0 do
        not count. What is no longer than the model passes in any case: where half of few agents lie, a median is
        theirs to choose.

        Args:
            norms: of each agent's message, by part.
            model: the norm of the server's policy; 0 where it has none.
        """
        reasons: dict[int, str] = {}
        for part, factor in LONGER.items():
            of_part = {agent: table[part] for agent, table in norms.items()}
            usual = max([_median(of_part.values()), *(each.value for each in self.series[part])])
            limit = max(factor * usual, model)
            for agent, length in of_part.items():
                if length > limit:
                    reasons[agent] = (
                        f"{NAMES[part]} of norm {length:.3g}, over the limit of {limit:.3g}: {factor:g} times what is "
                        "usual (runtime.flower.max_norm sets another, a number or none)"
                    )
            kept = _median(length for agent, length in of_part.items() if agent not in reasons)
            if kept:
                self.series[part].append(Measured(round, kept))
        return reasons

    def wrong(self, round: int, before: PyTree, after: PyTree) -> str | None:
        """Why what a round's messages were combined to must not be kept; None where it may.

        Args:
            before, after: the server's state; numbers that were not finite before may stay so.
        """
        step = size = 0.0
        for old, new in zip(_real(before), _real(after), strict=True):
            known = np.isfinite(old)
            if not np.isfinite(new[known]).all():
                return "the combined model is not finite"
            step = math.hypot(step, np.linalg.norm(new[known] - old[known]))
            size = math.hypot(size, np.linalg.norm(old[known]))
        steps = self.series["step"]
        limit = LARGER * max(each.value for each in steps) if len(steps) >= KNOWN else LARGEST_FIRST * (1.0 + size)
        if step > limit:
            return f"the combined model is {step:.3g} away from the last one, over the limit of {limit:.3g}"
        if step:
            steps.append(Measured(round, step))
        return None

    def save(self) -> None:
        """Writes the file."""
        write_json(self.path, {name: list(series) for name, series in self.series.items()}, private=True)


def _median(values: Iterable[float]) -> float:
    """The lower median of the numbers that are not 0; 0 where there is none."""
    known = sorted(value for value in values if value)
    return known[(len(known) - 1) // 2] if known else 0.0


def _real(tree: PyTree) -> list[np.ndarray]:
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(jax.device_get(tree)) if is_real(leaf)]
