"""What transports envelopes between server and nodes: the protocol, and an implementation within one process."""

from __future__ import annotations

import abc
import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from fedrax.parsing import DecodeError
from fedrax.runtime.distributed.envelopes import Envelope, from_bytes, to_bytes


class DeliveryError(Exception):
    """There will be no answer to an envelope; the text says why."""


Answer = Envelope | DeliveryError | DecodeError


class Transport(abc.ABC):
    """Sends envelopes to addresses and collects the answers; nothing here blocks."""

    @abc.abstractmethod
    def addresses(self) -> set[int]:
        """The addresses at which there are nodes now."""

    def key(self, address: int) -> str:
        """The digest of the key that the node at an address has proved to hold; empty where nodes have none."""
        return ""

    def site(self, address: int) -> str:
        """The name by which the server's owner knows that key; empty where it has none."""
        return ""

    @abc.abstractmethod
    def send(self, envelopes: Sequence[tuple[int, Envelope]], *, seconds: float) -> list[str]:
        """Sends envelopes to addresses, which expire after so many seconds; the tickets of their answers."""

    @abc.abstractmethod
    def collect(self, tickets: Iterable[str]) -> list[tuple[str, Answer]]:
        """The answers to these tickets that have arrived."""

    def now(self) -> float:
        """Seconds, from any origin."""
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        """Lets so much time pass."""
        time.sleep(seconds)


class InProcessTransport(Transport):
    """Nodes as functions in this process; every envelope is encoded to bytes, which ``observe`` is called with."""

    def __init__(
        self, nodes: Mapping[int, Callable[[Envelope], Envelope]], observe: Callable[[bytes], None] = lambda data: None
    ) -> None:
        self.nodes = dict(nodes)
        self.observe = observe
        self._numbers = itertools.count()
        self._answers: dict[str, Answer] = {}
        self._passed = 0.0

    def addresses(self) -> set[int]:
        """Every node."""
        return set(self.nodes)

    def send(self, envelopes: Sequence[tuple[int, Envelope]], *, seconds: float) -> list[str]:
        """Asks the nodes at once."""
        return [self._ask(address, envelope) for address, envelope in envelopes]

    def _ask(self, address: int, envelope: Envelope) -> str:
        ticket = str(next(self._numbers))
        if address not in self.nodes:
            self._answers[ticket] = DeliveryError("there is no node")
            return ticket
        sent = to_bytes(envelope)
        self.observe(sent)
        try:
            answer = to_bytes(self.nodes[address](from_bytes(sent)))
        except DeliveryError as error:
            self._answers[ticket] = error
            return ticket
        self.observe(answer)
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
