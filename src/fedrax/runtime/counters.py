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
EVALUATED = ("return", "return_worst", "episode_length", "agent_returns", "agent_own_returns")
"""Metrics of an evaluation, where there are agents to tell apart and others' environments beside their own."""


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
    final_worst: float = math.nan
    """The worst agent's return in the last evaluation; NaN where agents were not evaluated one by one."""

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
        row |= self.note(metrics)
        row |= {"train_return": float(metrics["train_return"]), **self.totals(agents, message_bytes)}
        row["seconds"] = self.seconds
        known = {*row, *SUMMED, *EVALUATED, "active", "excluded"}
        row |= {name: _number(value) for name, value in metrics.items() if name not in known}
        excluded = np.flatnonzero(metrics["excluded"]).tolist()
        if excluded:
            row["excluded"] = excluded
        return row

    def note(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Takes up an evaluation, and returns its part of the row: nothing in rounds without one, whose return is NaN.

        The best return so far is that of the evaluation as configured, in whichever environments.
        """
        evaluated = float(metrics["return"])
        if math.isnan(evaluated):
            return {}
        self.final_return = evaluated
        self.final_worst = float(metrics.get("return_worst", math.nan))
        if not evaluated <= self.best_return:
            self.best_return = evaluated
        return {name: _number(metrics[name]) for name in EVALUATED if name in metrics}

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
