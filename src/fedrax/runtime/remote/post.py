"""What carries letters: a protocol, and the simplest carrier, which calls the nodes in this process."""

from __future__ import annotations

import abc
import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from fedrax.arrays import DecodeError
from fedrax.runtime.remote.letters import Letter, from_bytes, to_bytes


class Lost(Exception):
    """There will be no answer to a letter; the text says why."""


Answer = Letter | Lost | DecodeError


class Post(abc.ABC):
    """Carries letters to addresses and brings answers back; nothing here blocks."""

    @abc.abstractmethod
    def addresses(self) -> set[int]:
        """Where there are nodes now."""

    @abc.abstractmethod
    def send(self, letters: Sequence[tuple[int, Letter]], *, seconds: float) -> list[str]:
        """Sends letters to addresses, each worth answering for so long; the tickets that their answers will bear."""

    @abc.abstractmethod
    def collect(self, tickets: Iterable[str]) -> list[tuple[str, Answer]]:
        """The answers to these tickets that have arrived."""

    def now(self) -> float:
        """Seconds, from any origin."""
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        """Lets so much time pass."""
        time.sleep(seconds)


class LocalPost(Post):
    """Nodes as functions in this process; every letter goes through bytes, which ``watch`` sees."""

    def __init__(
        self, nodes: Mapping[int, Callable[[Letter], Letter]], watch: Callable[[bytes], None] = lambda data: None
    ) -> None:
        self.nodes = dict(nodes)
        self.watch = watch
        self._numbers = itertools.count()
        self._answers: dict[str, Answer] = {}
        self._passed = 0.0

    def addresses(self) -> set[int]:
        """Every node."""
        return set(self.nodes)

    def send(self, letters: Sequence[tuple[int, Letter]], *, seconds: float) -> list[str]:
        """Asks the nodes at once."""
        return [self._ask(address, letter) for address, letter in letters]

    def _ask(self, address: int, letter: Letter) -> str:
        ticket = str(next(self._numbers))
        if address not in self.nodes:
            self._answers[ticket] = Lost("there is no node")
            return ticket
        sent = to_bytes(letter)
        self.watch(sent)
        try:
            answer = to_bytes(self.nodes[address](from_bytes(sent)))
        except Lost as lost:
            self._answers[ticket] = lost
            return ticket
        self.watch(answer)
        self._answers[ticket] = from_bytes(answer)
        return ticket

    def collect(self, tickets: Iterable[str]) -> list[tuple[str, Answer]]:
        """All of them."""
        return [(ticket, self._answers.pop(ticket)) for ticket in tickets if ticket in self._answers]

    def now(self) -> float:
        """Only :meth:`wait` lets time pass."""
        return self._passed

    def wait(self, seconds: float) -> None:
        """Passes at once."""
        self._passed += seconds
