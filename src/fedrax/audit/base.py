"""What an attack is: a question, where it applies, and numbers that answer it."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

from jaxtyping import PRNGKeyArray

from fedrax.arguments import read_argument, whole
from fedrax.audit.setting import Setting

Answers = dict[str, float | bool | None]
"""What an attack measured, by name; None: not to be had."""

LEAST_SHADOWS, MOST_EFFORT = 6, 1_000_000


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much an attacker spends."""

    repetitions: int = 2000
    """Releases of the mechanism, half of them with a canary."""
    shadows: int = 192
    """Agents of the attacker's own, whose environments it knows."""
    steps: int = 10
    """Length at which episodes are cut that are to be reconstructed: short ones are easier."""
    iterations: int = 400
    """Steps of Adam on a reconstruction."""
    restarts: int = 4
    """Reconstructions from different starts, of which the one that fits best counts."""

    def __post_init__(self) -> None:
        """Raises :class:`~fedrax.errors.FedraxError` for numbers that no attacker can spend."""
        for field in dataclasses.fields(self):
            # Of shadows, some are learned from, and some tested.
            rule = whole(LEAST_SHADOWS if field.name == "shadows" else 1, MOST_EFFORT)
            read_argument(field.name, getattr(self, field.name), rule)


class Leak(abc.ABC):
    """One attack on messages."""

    id: ClassVar[str]
    question: ClassVar[str]
    headline: ClassVar[str]
    """The name of the answer that stands for all in a table of setups."""

    @abc.abstractmethod
    def inapplicable(self, setting: Setting) -> str | None:
        """Why the attack does not apply, in one line; None where it does."""

    @abc.abstractmethod
    def answers(self, setting: Setting, effort: Effort, key: PRNGKeyArray) -> Answers:
        """What the attack comes to; ``key`` is what the attacker, and what it attacks, draw from."""
