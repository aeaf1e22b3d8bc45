"""How large messages and the server's steps have been of late: what is far beyond that is not used.

It bounds what one lie can do where the rule is a mean: a message of 3e38 is not used, and a combination that is not
finite, or leaps, is not kept. A lie of the usual size passes; robust rules (``aggregator=``) are there for it.
"""

from __future__ import annotations

import math
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
"""How many times as long as usual a part of a message may be. Updates of honest agents were at most 6 times as long as
their round's median in FedPG-BR, FedAvg and FedTD3; sums over observations differ as these do."""
FEWEST = 3
"""Norms of which one cannot move the median at will."""
NAMES = {"update": "an update", "statistics": "statistics", "individual": "an individual part"}
STEP = "step"
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
        self.series: dict[str, list[Measured]] = {name: [] for name in (*LONGER, STEP)}
        self.undone = 0
        """Rounds in a row whose result was wrong."""
        if path.exists():
            table = read_json(path, "list of recent norms")
            try:
                for name in self.series:
                    self.series[name] = [Measured(int(round), float(value)) for round, value in table[name]]
                    if not all(math.isfinite(each.value) for each in self.series[name]):
                        raise ValueError
            except (KeyError, TypeError, ValueError, OverflowError):
                raise FedraxError(f"{path} is damaged; delete it and resume the run") from None

    def before(self, name: str, round: int) -> list[float]:
        """What was measured in the last rounds before this one, oldest first."""
        return [each.value for each in self.series[name] if each.round < round][-ROUNDS:]

    def _put(self, name: str, round: int, value: float) -> None:
        """Takes in a number that is not 0, in place of what an earlier try of the round had."""
        kept = [each for each in self.series[name] if each.round < round]
        self.series[name] = [*kept[-ROUNDS:], *([Measured(round, value)] if value else [])]

    def too_long(self, round: int, norms: Mapping[int, Mapping[str, float]], model: float) -> dict[int, str]:
        """Why messages are not used, by agent, of those with a part that is far longer than usual.

        Usual is the longest of the (lower) median of this round and those of recent rounds, where parts of norm 0 do
        not count. Of two agents the median is either's to choose: what is no longer than the model passes then.

        Args:
            norms: of each agent's message, by part.
            model: the norm of a policy of the run.
        """
        reasons: dict[int, str] = {}
        for part, factor in LONGER.items():
            of_part = {agent: table[part] for agent, table in norms.items()}
            usual = max([_median(of_part.values()), *self.before(part, round)])
            few = sum(length > 0 for length in of_part.values()) < FEWEST
            limit = max(factor * usual, model if few else 0.0)
            for agent, length in of_part.items():
                if length > limit:
                    reasons[agent] = (
                        f"{NAMES[part]} of norm {length:.3g}, over the limit of {limit:.3g}: {factor:g} times what is "
                        "usual (runtime.flower.max_norm sets another, a number or none)"
                    )
            self._put(part, round, _median(length for agent, length in of_part.items() if agent not in reasons))
        return reasons

    def longest(self, norms: Mapping[int, Mapping[str, float]]) -> int:
        """The agent of whose message a part is longest beside the median of all."""
        medians = {part: _median(table[part] for table in norms.values()) for part in LONGER}
        known = [part for part, median in medians.items() if median]
        return max(norms, key=lambda agent: max((norms[agent][part] / medians[part] for part in known), default=0.0))

    def wrong(self, round: int, before: PyTree, after: PyTree) -> str | None:
        """Why what a round's messages were combined to must not be kept; None where it may.

        The limit on its step is ten times as high after every round in a row that was undone: what all agents say
        again and again is no slip.

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
        steps = self.before(STEP, round)
        limit = LARGER * max(steps) if len(steps) >= KNOWN else LARGEST_FIRST * (1.0 + size)
        limit *= 10.0**self.undone
        if step > limit:
            return f"the combined model is {step:.3g} away from the last one, over the limit of {limit:.3g}"
        self._put(STEP, round, step)
        return None

    def save(self) -> None:
        """Writes the file."""
        write_json(self.path, self.series, private=True)


def _median(values: Iterable[float]) -> float:
    """The lower median of the numbers that are not 0; 0 where there is none."""
    known = sorted(value for value in values if value)
    return known[(len(known) - 1) // 2] if known else 0.0


def _real(tree: PyTree) -> list[np.ndarray]:
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(jax.device_get(tree)) if is_real(leaf)]
