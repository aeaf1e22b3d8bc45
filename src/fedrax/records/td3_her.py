"""The files of the TD3+HER reference (the repository Soheil66ir/FRL), agent by agent, made of a run's rows.

They lie in a folder of their own, ``td3-her``, as one agent's ``metrics.csv`` would take the place of the run's; with
several seeds, each has a folder in it. An epoch of the reference is a round here.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedrax.records.files import flush_to_disk, write_atomic
from fedrax.records.metrics import append, cell, line
from fedrax.records.rows import Addition, Row, seed_of

REWARDS = "episode_rewards"
RETURNS = "agent_episode_returns"
SUCCESS = "agent_train_success"
MEANS = {
    "success_rates": SUCCESS,
    "actor_losses": "agent_train_actor_loss",
    "critic_losses": "agent_train_critic_loss",
    "q1_values": "agent_train_value",
    "q2_values": "agent_train_second_value",
}
"""Columns that have one value a round, and the lists by agent that they are taken from."""
SETTINGS = {
    "actor_lr": "learning_rate",
    "critic_lr": "learning_rate",
    "discount": "discount",
    "tau": "tau",
    "batch_size": "batch_size",
    "epochs": "rounds",
    "episodes_per_epoch": None,
    "max_timesteps": "horizon",
    "policy_noise": "target_noise",
    "noise_clip": "target_noise_clip",
    "policy_freq": "policy_delay",
}
"""Columns of hyperparameters, and what each is called here; a round is a number of steps, not of episodes."""


@dataclasses.dataclass(frozen=True)
class TD3HERFiles:
    """``metrics[_ENV_AGENT].csv``, ``hyperparameters[_ENV_AGENT].csv`` and ``Success rate.csv`` of every seed.

    With one agent, names have no suffix. A row of metrics is a training episode, in the order in which they ended; what
    has one value a round stands in the first row of the round alone, and a cell that nothing is known for is empty.
    """

    folder: Path
    seeds: tuple[int, ...]
    environments: tuple[str, ...]
    """Each agent's, by Gymnasium id."""
    settings: Mapping[str, Any]
    """Hyperparameters by our names."""

    def rewrite(self, rows: Iterable[Row]) -> None:
        """Makes all files anew, of these rows.

        Raises:
            FedraxError: they cannot be written.
        """
        tables = self._tables(rows)
        settings = line([cell(None if ours is None else self.settings.get(ours)) for ours in SETTINGS.values()])
        for seed, agent in itertools.product(self.seeds, range(len(self.environments))):
            path = self._path(seed, "metrics", agent)
            write_atomic(path, line([REWARDS, *MEANS]) + tables.get(path, ""))
            write_atomic(self._path(seed, "hyperparameters", agent), line([*SETTINGS]) + settings)
        for seed in self.seeds:
            path = self._path(seed, "Success rate")
            write_atomic(path, line(self._names()) + tables.get(path, ""))

    def append(self, rows: Iterable[Row]) -> None:
        """Adds what these rows tell.

        Raises:
            OSError: the operating system refused; no line is torn.
        """
        for path, text in self._tables(rows).items():
            with path.open("ab", buffering=0) as file:
                append(file, text.encode())

    def amend(self, rows: Sequence[Row], additions: Sequence[Addition]) -> None:
        """Makes all files anew: what was added is anywhere in them.

        Raises:
            FedraxError: they cannot be written.
        """
        self.rewrite(rows)

    def sync(self) -> None:
        """Makes what was written survive a power cut.

        Raises:
            OSError: the operating system refused.
        """
        for path in sorted(self.folder.rglob("*.csv")):
            flush_to_disk(path)

    def _tables(self, rows: Iterable[Row]) -> dict[Path, str]:
        """The lines of these rows, by file."""
        tables: dict[Path, str] = {}
        for row in rows:
            seed, agents = seed_of(row), range(len(self.environments))
            texts = {self._path(seed, "metrics", agent): _episodes(row, agent) for agent in agents}
            texts[self._path(seed, "Success rate")] = line([cell(_of_agent(row, SUCCESS, agent)) for agent in agents])
            for path, text in texts.items():
                tables[path] = tables.get(path, "") + text
        return {path: text for path, text in tables.items() if text}

    def _path(self, seed: int, name: str, agent: int | None = None) -> Path:
        folder = self.folder / f"seed_{seed}" if len(self.seeds) > 1 else self.folder
        if agent is None or len(self.environments) == 1:
            return folder / f"{name}.csv"
        # Ids may hold a module's name and a namespace, MODULE:NAMESPACE/NAME.
        environment = re.sub(r"[^\w.-]", "-", self.environments[agent])
        return folder / f"{name}_{environment}_{agent}.csv"

    def _names(self) -> list[str]:
        """Each agent's task, numbered from 1 among those of the same: ``FetchPush-v4 2``."""
        before = [self.environments[:agent].count(name) for agent, name in enumerate(self.environments)]
        return [f"{name} {number + 1}" for name, number in zip(self.environments, before, strict=True)]


def _episodes(row: Row, agent: int) -> str:
    """An agent's lines of a round: one for each episode, and one without where there is something else to tell."""
    returns = _of_agent(row, RETURNS, agent) or []
    means = [_of_agent(row, name, agent) for name in MEANS.values()]
    if not returns and all(value is None for value in means):
        return ""
    first, *others = returns or [None]
    lines = [[first, *means], *([value, *[None] * len(means)] for value in others)]
    return "".join(line([cell(value) for value in each]) for each in lines)


def _of_agent(row: Row, name: str, agent: int) -> Any:
    """The agent's of a list by agent; None where the row has no such list."""
    return row[name][agent] if name in row else None
