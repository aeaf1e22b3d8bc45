"""Rounds of which nothing is usable: named as they happen, and the end of a run that has too many in a row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedrax.config import Config
from fedrax.environments.faults import described
from fedrax.runtime.counters import Counters

BAD_EVALUATION = "the return of the evaluation was not finite; it cannot be the best"
NAMED = 5
"""Most that are described one by one: dropped collections of a round, seeds that lose their rounds."""


def troubles(row: Mapping[str, Any]) -> list[str]:
    """What of a round was not finite, as a row of the log says."""
    lines = losses(row, NAMED)
    if "return" in row and not math.isfinite(row["return"]):
        lines.append(BAD_EVALUATION)
    return lines


def losses(row: Mapping[str, Any], most: int) -> list[str]:
    """Whose part of a round was lost, and why: ``most`` collections one by one, the others by number."""
    lines = [described(entry) for entry in row.get("dropped", ())]
    if len(lines) > most:
        lines[most:] = [f"more dropped likewise: {len(lines) - most}"]
    if "excluded" in row:
        lines.append(f"excluded agents {row['excluded']}, whose messages could not be used")
    return lines


class LostRounds:
    """Watches for seeds that lose round after round."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.reasons: dict[int, str] = {}
        """Why each seed lost its last lost round."""

    def see(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Takes in new rows of the log."""
        for row in rows:
            if not row["present"] and ("dropped" in row or "excluded" in row):
                self.reasons[row["seed"]] = "; ".join(losses(row, 1))

    def verdict(self, counters: Sequence[Counters], active: Sequence[bool], directory: Path) -> str | None:
        """Why the run must stop here, and how to resume it; None where it need not.

        It stops when all seeds with budget left have lost so many rounds in a row: others are not kept from their
        budget. When that is used up, it fails for those that lost their last rounds or never had a usable message, and
        what the others came to is in the summary.
        The seeds that it stops for count from 0 again, so a resumed run goes on for as many rounds.
        """
        most = self.config.federation.max_lost_rounds
        if most is None:
            return None
        finished = not any(active)
        stuck = {
            seed: counter
            for seed, counter, going_on in zip(self.config.all_seeds, counters, active, strict=True)
            if (counter.lost_rounds >= most and (going_on or finished))
            or (finished and counter.lost_rounds and not counter.messages_up)
        }
        learning = [seed for seed, going_on in zip(self.config.all_seeds, active, strict=True) if going_on]
        if not stuck or any(seed not in stuck for seed in learning):
            return None
        lost = "; ".join(
            f"seed {seed}: nobody's message was usable for {counter.lost_rounds} rounds in a row "
            f"(latest: {self.reasons.get(seed, 'see metrics.jsonl')})"
            for seed, counter in list(stuck.items())[:NAMED]
        )
        if finished:
            return f"the budget is used up, and at its end nothing was learned: {lost}; mend that and train anew"
        for counter in stuck.values():
            counter.lost_rounds = 0
        rounds = max(counter.rounds for counter in counters)
        again = resume_text(self.config, directory)
        return f"stopped after {rounds} rounds, with all saved: {lost}; mend that, then {again} goes on"


def resume_text(config: Config, directory: Path) -> str:
    """How to go on with a run."""
    if config.runtime.kind == "flower":
        return f"`fedrax server` with the same --out (or `fedrax resume {directory}`, all on this machine)"
    return f"`fedrax resume {directory}`"
