"""Which agents are not asked for a while: those whose answers were not usable, or too late, again and again."""

from __future__ import annotations

from collections import deque
from typing import Any

WINDOW = 5
"""Rounds of an agent that count: those in which it was asked."""
FIRST, GROWTH, LONGEST = 4, 4, 64
"""Rounds of an agent's first pause, how many times as long each is as the one before, and rounds of the longest: whom a
short pause does not help costs the others the time of a whole request each time."""


class BackOff:
    """Counts failures by agent. After a pause, one failure begins the next, until a whole window has been good."""

    def __init__(self, failures: int | None) -> None:
        """``failures`` in a window begin a pause; None: nobody pauses."""
        self.failures = failures
        self.window: dict[int, deque[bool]] = {}
        """Of each agent's last rounds, whether it failed."""
        self.pauses: dict[int, int] = {}
        """How many there were since all was well."""
        self.until: dict[int, int] = {}
        """The round in which a pausing agent is asked again."""

    def paused(self, round: int) -> dict[int, int]:
        """The agents that are not to be asked in this round, and in which they will be."""
        if self.failures is None:
            return {}
        self.until = {agent: end for agent, end in self.until.items() if end > round}
        return dict(self.until)

    def saw(self, round: int, agent: int, *, failed: bool) -> str | None:
        """Takes in how an agent's part of a round ended; why it is not asked for a while, where that begins now."""
        if self.failures is None:
            return None
        window = self.window.setdefault(agent, deque(maxlen=WINDOW))
        window.append(failed)
        if not failed:
            if len(window) == WINDOW and not any(window):
                self.pauses.pop(agent, None)
            return None
        before = self.pauses.get(agent, 0)
        if sum(window) < self.failures and not before:
            return None
        rounds = min(FIRST * GROWTH**before, LONGEST)
        self.pauses[agent] = before + 1
        self.until[agent] = round + 1 + rounds
        why = f"lost, late or excluded in {sum(window)} of the last {len(window)} rounds in which it was asked"
        window.clear()
        return f"{why}; it is asked again in round {round + 2 + rounds} (runtime.flower.max_failures)"

    def state(self) -> dict[str, Any]:
        """All that it remembers, for a file."""
        return {
            "window": {str(agent): list(window) for agent, window in self.window.items()},
            "pauses": {str(agent): count for agent, count in self.pauses.items()},
            "until": {str(agent): end for agent, end in self.until.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Remembers what another one did.

        Raises:
            ValueError: it is no such state.
        """
        try:
            window = {int(agent): deque(seen, WINDOW) for agent, seen in state["window"].items()}
            pauses = {int(agent): count for agent, count in state["pauses"].items()}
            until = {int(agent): end for agent, end in state["until"].items()}
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"no state of pauses: {error}") from None
        numbers = [*window, *pauses, *until, *pauses.values(), *until.values()]
        if not all(type(number) is int and number >= 0 for number in numbers) or not all(
            type(failed) is bool for seen in window.values() for failed in seen
        ):
            raise ValueError("no state of pauses: a number that cannot be")
        self.window, self.pauses, self.until = window, pauses, until
