"""Running totals of a run, kept as Python integers: they outgrow 32 bits, and they survive a resume."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

SUMMED = (
    "trajectories",
    "agent_trajectories",
    "server_trajectories",
    "agent_steps",
    "server_steps",
    "gradient_steps",
)


@dataclasses.dataclass
class Counters:
    """One seed's totals so far."""

    rounds: int = 0
    trajectories: int = 0
    agent_trajectories: int = 0
    server_trajectories: int = 0
    agent_steps: int = 0
    server_steps: int = 0
    gradient_steps: int = 0
    messages_up: int = 0
    messages_down: int = 0
    seconds: float = 0.0
    final_return: float = math.nan
    best_return: float = math.nan

    @classmethod
    def restored(cls, saved: Mapping[str, Any]) -> Counters:
        """The totals of a checkpoint's meta; earlier versions wrote NaN as ``null``."""
        known: dict[str, Any] = {name: math.nan if value is None else value for name, value in saved.items()}
        return cls(**known)

    def row(
        self,
        seed: int,
        metrics: dict[str, Any],
        *,
        agents: int,
        participants: int,
        message_bytes: tuple[int, int],
    ) -> dict[str, Any]:
        """Adds one round's metrics (scalars, and ``excluded`` ``bool[agents]``) and returns its row for the log."""
        for name in SUMMED:
            setattr(self, name, getattr(self, name) + int(metrics[name]))
        self.messages_up += int(metrics["present"])
        self.messages_down += participants
        self.seconds += float(metrics["seconds"])
        row: dict[str, Any] = {"seed": seed, "round": self.rounds}
        self.rounds += 1
        evaluated = float(metrics["return"])
        if not math.isnan(evaluated):
            self.final_return = evaluated
            if not evaluated <= self.best_return:
                self.best_return = evaluated
            row |= {"return": evaluated, "episode_length": float(metrics["episode_length"])}
        row |= {"train_return": float(metrics["train_return"]), **self.totals(agents, message_bytes)}
        row["seconds"] = self.seconds
        known = {*row, *SUMMED, "active", "excluded", "episode_length", "return"}
        row |= {name: _number(value) for name, value in metrics.items() if name not in known}
        excluded = np.flatnonzero(metrics["excluded"]).tolist()
        if excluded:
            row["excluded"] = excluded
        return row

    def totals(self, agents: int, message_bytes: tuple[int, int]) -> dict[str, int]:
        """Every cost so far; bytes are per agent."""
        up, down = message_bytes
        return {
            **{name: getattr(self, name) for name in SUMMED},
            "total_trajectories": self.agent_trajectories + self.server_trajectories,
            "total_steps": self.agent_steps + self.server_steps,
            "bytes_up": round(self.messages_up * up / agents),
            "bytes_down": round(self.messages_down * down / agents),
        }


def _number(value: Any) -> int | float | list[float]:
    array = np.asarray(value)
    if array.ndim:
        return [float(number) for number in array]
    return int(array) if array.dtype.kind in "iub" else float(array)
