"""Overlapped rounds: every node has a second order waiting while it works on the first, and the server waits for few.

An answer may then belong to an older model than the server's. It is used as long as it is at most so many rounds old;
FedAvg's updates are changes, which still mean something there (FedBuff: Nguyen et al., 2022).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from fedrax.parsing import DecodeError
from fedrax.runtime.distributed.checks import Rejected
from fedrax.runtime.distributed.dispatcher import (
    ABSENT,
    ANSWERED,
    EXCLUDED,
    STALE,
    Dispatcher,
    Outgoing,
    Pending,
    Record,
)
from fedrax.runtime.distributed.envelopes import UNKNOWN_RUN, Envelope
from fedrax.runtime.distributed.transport import Answer, DeliveryError

DEPTH = 2
"""Orders that a node has at a time: it works on one while the answer to the other travels."""


class Ordered(NamedTuple):
    """An order under way."""

    turn: int
    """Its number in the agent's own count, which is what the node calls a round."""
    version: int
    """The server's round whose model it was sent with."""


class Arrived(NamedTuple):
    """A usable answer that waits to be combined."""

    version: int
    content: Any
    record: Record


class Pipeline:
    """The orders of all agents, from round to round."""

    def __init__(
        self, dispatcher: Dispatcher, check: Callable[[Envelope, int, int], Any], *, staleness: int, seconds: float
    ) -> None:
        """Args:
        check: ``check(answer, agent, turn)``: the answer's content, or :class:`Rejected`.
        staleness: the most rounds by which an answer's model may be older than the server's.
        seconds: how long an order is worth doing.
        """
        self.dispatcher, self.check, self.staleness, self.seconds = dispatcher, check, staleness, seconds
        self.under_way: dict[str, Ordered] = {}
        self.orders: dict[int, set[str]] = {}
        """The tickets of each agent."""
        self.turns: dict[int, int] = {}
        self.arrived: dict[int, deque[Arrived]] = {}
        self.failed: list[Record] = []
        """Answers since the last round that are not used."""
        self.version = 0
        """The server's round."""
        self.refused: dict[int, int] = {}
        """The round in which an answer of an agent was last excluded."""

    def gather(
        self, version: int, order: Callable[[int, int], Envelope], *, agents: list[int], enough: int
    ) -> tuple[dict[int, Any], list[Record]]:
        """Waits until ``enough`` of the agents have answered, keeping all of them busy with ``order(agent, turn)``.

        Whose answer is excluded is not asked again in this round: who answers at once, and wrongly, would be for ever.
        It ends before ``enough`` have answered where nobody is left who may.

        Returns:
            One answer's content for each agent that has one, the oldest, and a record of each answer used or not.
        """
        started, told = self.dispatcher.transport.now(), False
        self.version = version
        while True:
            self._drop_stale(version)
            ready = [agent for agent in agents if self.arrived.get(agent)]
            if len(ready) >= enough or not any(self._may_answer(agent) for agent in set(agents) - set(ready)):
                break
            if not told and self.dispatcher.transport.now() - started > self.seconds:
                told = True
                self.dispatcher.note(f"{len(ready)} agents of at least {enough} answered; waiting for more")
            self._order(agents, version, order)
            self.dispatcher.turn()
        used = {agent: self.arrived[agent].popleft() for agent in ready}
        records, self.failed = [*self.failed, *(each.record for each in used.values())], []
        return {agent: each.content for agent, each in used.items()}, records

    def _may_answer(self, agent: int) -> bool:
        """Whether an order of this agent is under way, or may be sent in this round."""
        return bool(self.orders.get(agent)) or self.refused.get(agent) != self.version

    def _order(self, agents: list[int], version: int, order: Callable[[int, int], Envelope]) -> None:
        """Fills up the agents' orders."""
        missing: list[tuple[int, int, Outgoing]] = []
        for agent in agents:
            member = self.dispatcher.membership.present.get(agent)
            if member is None or self.refused.get(agent) == version:
                continue
            held = len(self.orders.setdefault(agent, set())) + len(self.arrived.get(agent, ()))
            for _ in range(DEPTH - held):
                turn = max(self.turns.get(agent, 0), member.done)
                missing.append((agent, turn, Outgoing(member.address, agent, order(agent, turn))))
                self.turns[agent] = turn + 1
        tickets = self.dispatcher.send([outgoing for _, _, outgoing in missing], self.seconds, self)
        for ticket, (agent, turn, _) in zip(tickets, missing, strict=True):
            self.under_way[ticket] = Ordered(turn, version)
            self.orders[agent].add(ticket)

    def take(self, pending: Pending, answer: Answer, ticket: str) -> None:
        """Keeps an answer, or says why not."""
        agent = pending.agent
        assert agent is not None
        turn, version = self.under_way.pop(ticket)
        self.orders[agent].discard(ticket)
        seconds = self.dispatcher.transport.now() - pending.sent
        size = answer.size if isinstance(answer, Envelope) else 0

        def record(outcome: str, reason: str, work: float = 0.0) -> Record:
            name = self.dispatcher.membership.name_of(agent)
            return Record(agent, name, outcome, seconds, work, pending.size, size, reason)

        if isinstance(answer, DeliveryError) or (isinstance(answer, Envelope) and answer.kind == UNKNOWN_RUN):
            reason = str(answer) if isinstance(answer, DeliveryError) else "its process has started anew"
            self._fail(record(ABSENT, reason))
            return
        try:
            if isinstance(answer, DecodeError):
                raise Rejected(str(answer))
            content = self.check(answer, agent, turn)
        except Rejected as error:
            self._fail(record(EXCLUDED, str(error)))
            return
        kept = Arrived(version, content, record(ANSWERED, "", float(answer.fields["seconds"])))
        self.arrived.setdefault(agent, deque()).append(kept)
        self.dispatcher.lost.pop(pending.address, None)

    def _fail(self, record: Record) -> None:
        self.failed.append(record)
        self.dispatcher.note(f"agent {record.agent} {record.outcome}: {record.reason}")
        if record.outcome == ABSENT:
            self.dispatcher.expel(record.agent)
        else:
            self.refused[record.agent] = self.version

    def _drop_stale(self, version: int) -> None:
        for waiting in self.arrived.values():
            while waiting and version - waiting[0].version > self.staleness:
                old = waiting.popleft()
                reason = f"{version - old.version} rounds old, and runtime.flower.staleness = {self.staleness}"
                self.failed.append(old.record._replace(outcome=STALE, reason=reason))
                self.dispatcher.note(f"agent {old.record.agent} {STALE}: {reason}")
