"""Running totals of a run, kept as Python integers: they outgrow 32 bits, and they survive a resume."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from fedrax.environments.faults import NOTHING, Fault, recorded

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
    dropped_collections: int = 0
    """Rounds of agents, and of the server, that were void because an environment's numbers were not finite."""
    lost_rounds: int = 0
    """The last rounds, in a row, of which no message was usable and some collection or message was not finite."""

    def __post_init__(self) -> None:
        # JSON knows no NaN: a checkpoint has null for a return that is not known, or not finite.
        for name in ("final_return", "best_return"):
            if getattr(self, name) is None:
                setattr(self, name, math.nan)

    def row(
        self,
        seed: int,
        metrics: dict[str, Any],
        *,
        agents: int,
        participants: int,
        message_bytes: tuple[int, int],
        episodic: bool,
        updates: int,
    ) -> dict[str, Any]:
        """Adds one round's metrics and returns its row for the log.

        The metrics are scalars, ``excluded`` ``bool[agents]``, and the faults ``dropped`` ``int32[agents, 4]`` and
        ``server_dropped`` ``int32[4]``; ``episodic`` and ``updates`` as in :func:`fedrax.environments.faults.recorded`.
        """
        for name in SUMMED:
            setattr(self, name, getattr(self, name) + int(metrics[name]))
        self.messages_up += int(metrics["present"])
        self.messages_down += participants
        self.seconds += float(metrics["seconds"])
        row: dict[str, Any] = {"seed": seed, "round": self.rounds}
        self.rounds += 1
        evaluated = float(metrics["return"])
        # A round without an evaluation has no length either; a return that is not finite still was measured.
        if not math.isnan(metrics["episode_length"]):
            self.evaluated(evaluated)
            row |= {"return": evaluated, "episode_length": float(metrics["episode_length"])}
        row |= {"train_return": float(metrics["train_return"]), **self.totals(agents, message_bytes)}
        row["seconds"] = self.seconds
        known = {*row, *SUMMED, "active", "excluded", "episode_length", "return", "dropped", "server_dropped"}
        row |= {name: _number(value) for name, value in metrics.items() if name not in known}
        excluded = np.flatnonzero(metrics["excluded"]).tolist()
        if excluded:
            row["excluded"] = excluded
        faults = {int(agent): metrics["dropped"][agent] for agent in np.flatnonzero(metrics["dropped"][:, 0])}
        dropped = [
            recorded(agent, Fault.of_row(fault), episodic=episodic, updates=updates) for agent, fault in faults.items()
        ]
        if metrics["server_dropped"][0] != NOTHING:
            dropped.append(recorded("server", Fault.of_row(metrics["server_dropped"]), episodic=True, updates=1))
        if dropped:
            row["dropped"] = dropped
            self.dropped_collections += len(dropped)
        if metrics["present"]:
            self.lost_rounds = 0
        elif excluded or metrics["dropped"].any():
            self.lost_rounds += 1
        return row

    def evaluated(self, value: float) -> None:
        """Takes in an evaluation's mean return; one that is not finite is never the best."""
        self.final_return = value
        if math.isfinite(value) and not value <= self.best_return:
            self.best_return = value

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
