"""What an attack is: a question, where it applies, and numbers that answer it."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

from jaxtyping import PRNGKeyArray

from fedrax.audit.setting import Setting

Answers = dict[str, float | bool | None]
"""What an attack measured, by name; None: not to be had."""


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
