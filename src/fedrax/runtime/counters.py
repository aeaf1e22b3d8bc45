"""Running totals of a run, kept as Python integers: they outgrow 32 bits, and they survive a resume."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fedrax.environments.faults import NOTHING, Fault, recorded
from fedrax.environments.success import LAST, SHARE, SUCCESS
from fedrax.evaluation.pairs import AFTER, AROUND, BEFORE

SUMMED = (
    "trajectories",
    "agent_trajectories",
    "server_trajectories",
    "agent_steps",
    "server_steps",
    "gradient_steps",
)
EVALUATED = (
    "return",
    "return_worst",
    "return_median",
    "episode_length",
    "agent_returns",
    "agent_own_returns",
    *(f"{kind}{of}" for kind in (SUCCESS, LAST, SHARE) for of in ("", "_worst")),
    *(f"{of}_{kind}" for of in ("agent", "agent_own") for kind in (SUCCESS, LAST, SHARE)),
    *(f"{name}_{when}" for when in (BEFORE, AFTER) for name in AROUND),
)
"""Metrics of an evaluation, where there are agents to tell apart and others' environments beside their own."""

TRAINING_SUCCESS = ("train_success", "agent_train_success")
"""Metrics that are in a row where the environment tells of success and an episode has ended."""
EPISODE_RETURNS = "agent_episode_returns"


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
    """Usable messages."""
    bytes_up: int = 0
    """Of all agents' usable messages."""
    bytes_down: float = 0.0
    """Of everything that agents received."""
    seconds: float = 0.0
    final_return: float = math.nan
    evaluated: int = 0
    """Rounds done at the last evaluation."""
    best_return: float = math.nan
    final_worst: float = math.nan
    """The worst agent's return in the last evaluation; NaN where agents were not evaluated one by one."""
    final_evaluation: dict[str, Any] = dataclasses.field(default_factory=dict)
    """All of the last evaluation, as in a row of the log."""
    dropped_collections: int = 0
    """Rounds of agents, and of the server, that were void because an environment's numbers were not finite."""
    lost_rounds: int = 0
    """The last rounds, in a row, of which no message was usable and some collection or message was not finite."""

    @classmethod
    def restored(cls, saved: Mapping[str, Any], message_bytes: tuple[float, float] = (0, 0)) -> Counters:
        """The totals of a checkpoint's meta.

        Earlier versions wrote NaN as ``null``, and counted messages instead of bytes: ``message_bytes`` are those of
        one message, up and down.
        """
        known: dict[str, Any] = {name: math.nan if value is None else value for name, value in saved.items()}
        messages_down = known.pop("messages_down", 0)
        if "bytes_up" not in known:
            up, down = message_bytes
            known |= {"bytes_up": round(known.get("messages_up", 0) * up), "bytes_down": messages_down * down}
        return cls(**known)

    def row(
        self,
        seed: int,
        metrics: dict[str, Any],
        *,
        agents: int,
        participants: int,
        message_bytes: tuple[int, float],
        readers: float | None,
        episodic: bool,
        updates: int,
    ) -> dict[str, Any]:
        """Adds one round's metrics and returns its row for the log.

        ``participants`` are those of a round whose metrics do not say how many took part.
        The metrics are scalars, ``excluded`` ``bool[agents]``, and the faults ``dropped`` ``int32[agents, 4]`` and
        ``server_dropped`` ``int32[4]``; ``message_bytes`` are those of one message and of what one agent receives;
        ``readers`` as :attr:`fedrax.strategies.base.Strategy.readers`; ``episodic`` and ``updates`` as in
        :func:`fedrax.environments.faults.recorded`.
        """
        for name in SUMMED:
            setattr(self, name, getattr(self, name) + int(metrics[name]))
        up, down = message_bytes
        self.messages_up += int(metrics["present"])
        self.bytes_up += int(metrics["present"]) * up
        self.bytes_down += int(metrics.get("participants", participants)) * down
        self.seconds += float(metrics["seconds"])
        row: dict[str, Any] = {"seed": seed, "round": self.rounds}
        self.rounds += 1
        row |= self.note(metrics)
        row["train_return"] = float(metrics["train_return"])
        row |= {name: _number(metrics[name]) for name in TRAINING_SUCCESS if np.isfinite(metrics[name]).any()}
        row |= {**self.totals(agents, readers), "seconds": self.seconds}
        known = {*row, *SUMMED, *EVALUATED, *TRAINING_SUCCESS, "active", "excluded", "dropped", "server_dropped"}
        known.add(EPISODE_RETURNS)
        row |= {name: _number(value) for name, value in metrics.items() if name not in known}
        if EPISODE_RETURNS in metrics:
            row[EPISODE_RETURNS] = [each[~np.isnan(each)].tolist() for each in metrics[EPISODE_RETURNS]]
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

    def note(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Takes up an evaluation, and returns its part of the row: nothing in rounds without one, which have no length.

        The best return so far is that of the evaluation as configured, in whichever environments, and the median over
        agents where that decides; one that is not finite was measured, and is never the best.
        """
        if math.isnan(float(metrics["episode_length"])):
            return {}
        evaluated = float(metrics["return"])
        self.final_return, self.evaluated = evaluated, self.rounds
        self.final_worst = float(metrics.get("return_worst", math.nan))
        score = float(metrics.get("return_median", evaluated))
        if math.isfinite(score) and not score <= self.best_return:
            self.best_return = score
        self.final_evaluation = {name: _number(metrics[name]) for name in EVALUATED if name in metrics}
        return self.final_evaluation

    def totals(self, agents: int, readers: float | None) -> dict[str, int]:
        """Every cost so far; bytes are per agent, and in a mesh where messages have ``readers``."""
        mesh = {} if readers is None else {"bytes_mesh": round(self.bytes_up * readers / agents)}
        return {
            **{name: getattr(self, name) for name in SUMMED},
            "total_trajectories": self.agent_trajectories + self.server_trajectories,
            "total_steps": self.agent_steps + self.server_steps,
            "bytes_up": round(self.bytes_up / agents),
            "bytes_down": round(self.bytes_down / agents),
            **mesh,
        }


def _number(value: Any) -> Any:
    """A whole number, a real one, or lists of them."""
    array = np.asarray(value)
    return array.astype(np.int64 if array.dtype.kind in "iub" else np.float64).tolist()
