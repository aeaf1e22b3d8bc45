"""What an audit has found before it ends, kept in the run's directory: attacks take minutes, and processes end."""

from __future__ import annotations

import contextlib
import dataclasses
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pydantic

from fedrax.audit.base import Effort
from fedrax.config import Config
from fedrax.errors import FedraxError
from fedrax.records.files import read_json, write_json

Result = dict[str, Any]
"""``answers`` of an attack, or why it is ``inapplicable``."""


class _Kept(pydantic.BaseModel):
    """What of the file is read."""

    of: dict[str, Any]
    results: dict[str, dict[str, Result]]


class Unfinished:
    """Results by setup and attack, those of an earlier start of the same audit included."""

    def __init__(self, path: Path, config: Config, *, effort: Effort, seed: int, rounds: int) -> None:
        """Args:
        path: of the file, which another audit's replaces, and which need not be there.
        config: of the run.
        effort: of the attacker.
        seed: of all that is drawn.
        rounds: of the run, which may have gone on since.
        """
        self.path = path
        self._of = {
            "config": config.digest(),
            "effort": dataclasses.asdict(effort),
            "seed": seed,
            "rounds": rounds,
            "fedrax": version("fedrax"),
        }
        self.results: dict[str, dict[str, Result]] = {}
        # What is damaged is found anew.
        with contextlib.suppress(FedraxError):
            kept = read_json(path, "unfinished audit", _Kept)
            if kept["of"] == self._of:
                self.results = kept["results"]

    def known(self, setup: str, attack: str) -> Result | None:
        """What an earlier start found; None: nothing."""
        return self.results.get(setup, {}).get(attack)

    def keep(self, setup: str, attack: str, result: Result) -> None:
        """Writes one more result to the file."""
        self.results.setdefault(setup, {})[attack] = result
        write_json(self.path, {"of": self._of, "results": self.results})

    def end(self) -> None:
        """Removes the file, when the audit's own is written."""
        self.path.unlink(missing_ok=True)
