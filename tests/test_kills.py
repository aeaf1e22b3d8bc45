"""Simulations that are killed at random moments, again and again, end as one that is not (make test-faults)."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kills import Account, differences

pytestmark = pytest.mark.faults

KILLS = 25
"""Of every setup."""
EACH = 5
"""Of a run, which is then left to finish."""
POLL = 0.002

START, COMPILE, TRAIN, CHECKPOINT, END, EXIT = PHASES = (
    "at start-up",
    "compiling",
    "training",
    "writing a checkpoint",
    "after the last row",
    "after the summary",
)
"""Of a process, in their order; training and checkpoints alternate."""
LAST = (END,)
ANY = (START, COMPILE, TRAIN, CHECKPOINT)

SMALL = ["budget.trajectories=none", "environment.horizon=40", "evaluation.episodes=2"]
SETUPS = {
    "CartPole": [
        "fedpg-br/cartpole",
        *SMALL,
        *("federation.agents=4", "attack=random-noise", "attack.agents=1", "seeds=2"),
        *("strategy.batch_min=2", "strategy.batch_max=4", "federation.participation=0.75", "federation.dropout=0.2"),
        *("budget.rounds=300", "checkpoint.every=20"),
    ],
    "Pendulum": [
        "fedtd3/pendulum",
        *("budget.steps_per_agent=none", "environment.horizon=20", "evaluation.episodes=2", "evaluation.every=3"),
        *("federation.agents=3", "federation.local_updates=8"),
        *("learner.batch_size=8", "learner.learning_starts=8", "learner.buffer_size=64"),
        *(f"learner.{part}_layers=[8]" for part in ("actor", "feature", "head")),
        *("budget.rounds=300", "checkpoint.every=20"),
    ],
    "CartPole of Gymnasium": [
        "fedpg-br/cartpole",
        *SMALL,
        *("environment.native=false", "environment.backend=gymnasium", "environment.num_envs=2"),
        *("learner=ppo", "learner.num_steps=8", "learner.num_minibatches=2", "learner.update_epochs=2"),
        *("learner.hidden=[8]", "strategy=fedavg", "federation.agents=3"),
        *("budget.rounds=100", "checkpoint.every=5", "evaluation.every=5"),
    ],
}


class Training:
    """A run in a directory, trained by one process after the other."""

    seconds = dict.fromkeys(PHASES, 1.0)
    """How long each phase lasted when a process last went through it."""

    def __init__(self, run: Path, settings: list[str]) -> None:
        self.run, self.settings = run, settings
        (rounds,) = (text for text in settings if text.startswith("budget.rounds="))
        self.rounds = int(rounds.partition("=")[2])
        self.log = run.with_suffix(".log")

    def go_on(self) -> None:
        """Starts a process that trains the run from where it is."""
        begun = (self.run / "config.toml").exists()
        command = ["resume", str(self.run)] if begun else ["train", *self.settings, "--out", str(self.run)]
        self.table = self._table()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fedrax.cli", *command, "--quiet"], stdout=subprocess.DEVNULL, stderr=log
            )

    def phase(self) -> str:
        """What the process does now, as its files tell."""
        if (self.run / "summary.json").exists():
            return EXIT
        if self._table() == self.table:
            return COMPILE if f'"pid": {self.process.pid},' in self._lock() else START
        if any((self.run / "checkpoints").glob(".checkpoint-*")):
            return CHECKPOINT
        return END if self._recorded() == self.rounds else TRAIN

    def _table(self) -> tuple[int, int] | None:
        """The file that every process makes anew when it has compiled and begins to train."""
        with contextlib.suppress(FileNotFoundError):
            found = (self.run / "metrics.csv").stat()
            return found.st_ino, found.st_ctime_ns
        return None

    def _lock(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.run / ".lock").read_text()
        return ""

    def _recorded(self) -> int:
        with (self.run / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            return max((int(number) + 1 for number in re.findall(rb'"round": (\d+),', file.read())), default=0)

    def killed(self, phase: str, share: float) -> str | None:
        """Kills the process when this share of a phase has passed; in which phase that was.

        None: the process had ended before, in order.
        """
        seen, since, moment = START, time.monotonic(), None
        while self.process.poll() is None:
            now, before, seen = time.monotonic(), seen, self.phase()
            if seen != before and {seen, before} != {TRAIN, CHECKPOINT}:
                self.seconds[before] = now - since
                since = now
            reached = PHASES.index(seen) >= PHASES.index(TRAIN if phase == CHECKPOINT else phase)
            if moment is None and reached:
                moment = now + share * self._length(phase)
            if moment is not None and now >= moment and (phase, seen) != (CHECKPOINT, TRAIN):
                break
            time.sleep(POLL)
        self.process.kill()
        status = self.process.wait()
        assert status in (0, -signal.SIGKILL), self.log.read_text()
        return seen if status else None

    def _length(self, phase: str) -> float:
        """How long the moments of a phase last, of which one is drawn."""
        # A run trains on after all its kills but the last.
        return self.seconds[TRAIN] / EACH if phase in (TRAIN, CHECKPOINT) else self.seconds[phase]

    def finish(self) -> Path:
        """Trains the run to its end."""
        if not (self.run / "summary.json").exists():
            self.go_on()
            assert self.killed(EXIT, float("inf")) is None
        # A process that was killed after its summary has left a finished run.
        return self.run


@pytest.mark.parametrize("name", SETUPS)
def test_killed_at_random_moments_a_run_ends_as_if_it_were_not(tmp_path, record_property, name):
    settings, draw, account = SETUPS[name], random.Random(name), Account(name)
    # Those that are killed find compiled what this one compiles.
    whole = Training(tmp_path / "whole", settings).finish()
    history: dict[str, list[str]] = {}
    while account.count < KILLS:
        training = Training(tmp_path / f"run-{len(history)}", settings)
        kills = history[training.run.name] = []
        while len(kills) < EACH and account.count < KILLS:
            training.go_on()
            where = training.killed(draw.choice(LAST if len(kills) == EACH - 1 else ANY), draw.random())
            if where is None:
                break
            account.hit(where)
            kills.append(where)
        found = differences(training.finish(), whole)
        account.close(found)
        kills += found
    account.tell(record_property)
    assert account.equal == account.count, json.dumps(history, indent=1)
