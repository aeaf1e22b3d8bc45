"""Requests to nodes: nodes join at any time, and a request is answered before its deadline or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from fedrax.parsing import DecodeError
from fedrax.records.refusals import REFUSALS, Refusal, Refusals
from fedrax.runtime.distributed.checks import LONGEST_TEXT, Rejected, check_envelope
from fedrax.runtime.distributed.envelopes import END, JOIN, JOINED, UNFIT, UNKNOWN_RUN, Envelope, Field
from fedrax.runtime.distributed.membership import Membership
from fedrax.runtime.distributed.transport import Answer, DeliveryError, Transport

JOIN_SECONDS = 60.0
"""How long a node may take to answer that it joins: the first time it compiles nothing, but starts."""
LOOK_SECONDS = 1.0
"""Between two looks at which nodes there are."""
END_SECONDS = 10.0
"""How long nodes may take to answer that they know of the run's end."""
AGAIN_SECONDS = 10.0
"""Before a node that could not join, or is lost again and again, is asked again."""
LOST_TIMES, LOST_SECONDS = 3, 60.0
"""A node that was lost so often within so many seconds is not asked to join at once: it may fail at every request."""

ANSWERED, LATE, ABSENT, EXCLUDED = "answered", "late", "absent", "excluded"
DROPPED, PAUSED, STALE = "dropped", "paused", "stale"


class Record(NamedTuple):
    """What became of one agent's request."""

    agent: int
    node: str
    """Its node's name; empty where there was none."""
    outcome: str
    """``answered``; ``late``: not before the deadline; ``absent``: no node, or it was lost; ``excluded``; ``dropped``:
    its collection, which was not finite; ``paused``: it was not asked (:mod:`.back_off`); ``stale``: of too
    old a model, where rounds overlap."""
    seconds: float
    """From the request to its answer."""
    work_seconds: float
    """That the node worked."""
    bytes_down: int
    bytes_up: int
    reason: str


class Question(NamedTuple):
    """An envelope for one agent, and what its answer must be."""

    envelope: Envelope
    check: Callable[[Envelope], Any]
    """The answer's content, or :class:`Rejected`."""


class Outgoing(NamedTuple):
    """An envelope and its destination."""

    address: int
    agent: int | None
    """None where a node is asked to join."""
    envelope: Envelope


class Pending(NamedTuple):
    """A request that has not been answered yet."""

    address: int
    agent: int | None
    """None where a node is asked to join."""
    sent: float
    size: int
    owner: Receiver | None
    """Who receives the answer; None where a node is asked to join."""


class Receiver(Protocol):
    """Sends requests through a dispatcher, and receives the answers."""

    def take(self, pending: Pending, answer: Answer, ticket: str) -> None:
        """Receives the answer to one of its requests."""


class Dispatcher:
    """Sends requests, waits for answers, and keeps the membership."""

    def __init__(
        self,
        transport: Transport,
        membership: Membership,
        *,
        run: str,
        config: str,
        terms: Mapping[str, Field] = MappingProxyType({}),
        note: Callable[[str], None],
        poll: float = 0.05,
    ) -> None:
        """Args:
        run: the run's name, which is in every request.
        config: the configuration as TOML, which nodes get when they join.
        terms: what they must have in common with it, :class:`.Terms` as fields.
        note: told what people should know, one line at a time.
        poll: seconds between two looks for answers.
        """
        self.transport, self.membership, self.run, self.config = transport, membership, run, config
        self.terms = dict(terms)
        self.note, self.poll = note, poll
        self.pending: dict[str, Pending] = {}
        self.not_before: dict[int, float] = {}
        self.lost: dict[int, list[float]] = {}
        """When the node at an address was lost lately, since it gave an answer that was used."""
        self.refused: dict[int, str] = {}
        """Why there is no place for the node at an address, which it is told with the next request to join."""
        self.refusals = Refusals(membership.file.with_name(REFUSALS))
        self.looked = -LOOK_SECONDS
        self.gone: set[int] = set()
        """Addresses of nodes that have not answered and are not there any more."""

    def gather(self, wanted: int, enough: int, seconds: float) -> None:
        """Waits until ``wanted`` agents have joined; after ``seconds``, until ``enough`` have."""
        started, told = self.transport.now(), False
        if len(self.membership.present) < wanted:
            self.note(f"{len(self.membership.present)} of {wanted} agents have joined; waiting for nodes")
        while len(self.membership.present) < wanted:
            waited = self.transport.now() - started
            if waited >= seconds and len(self.membership.present) >= enough:
                return
            if not told and waited > seconds:
                told = True
                self.note(f"{len(self.membership.present)} agents of at least {enough} have joined; waiting for more")
            self.turn()

    def ask(
        self,
        questions: Mapping[int, Question],
        *,
        enough: int,
        wanted: int = 0,
        seconds: float,
        reserve: Mapping[int, Question] | None = None,
    ) -> tuple[dict[int, Any], list[Record]]:
        """Asks agents and waits for what they answer.

        It ends when nobody is left to wait for, or after ``seconds``, but never before ``enough`` answers are there.
        Until ``wanted`` are, it waits within its time for agents that have no node too.
        Who comes (back) meanwhile is asked too. Answers that fail their check are not used. The agents in ``reserve``
        are asked where the others are not enough in time, or nobody is left to wait for.

        Returns:
            The answers' contents by agent, and a record for each agent asked.
        """
        request = Request(self, dict(questions))
        deadline = self.transport.now() + seconds
        told = False
        while request.open or (reserve and len(request.results) < enough):
            in_time = self.transport.now() < deadline
            reached = len(request.results) >= enough
            complete = not request.waiting and len(request.results) >= wanted
            if reached and (complete or not in_time):
                break
            if reserve and not reached and (not in_time or not request.waiting):
                request.questions |= reserve
                reserve = None
            if not in_time and not told:
                told = True
                count = len(request.results)
                self.note(f"{count} agents of at least {enough} answered within {seconds:g} s; waiting for more")
            request.send(max(deadline - self.transport.now(), 1.0) if in_time else seconds)
            self.turn()
        return request.results, request.close()

    def end(self, rounds: int) -> None:
        """Tells the nodes that are there that the run is over after so many rounds, and waits a while for answers.

        Also those without a place: they wait for one until then. A server that was started again after the end has met
        nobody yet: it tells who comes back meanwhile.
        """
        envelope = Envelope(END, {"run": self.run, "rounds": rounds})
        known = set(self.membership.by_address())
        begun = looked = self.transport.now()
        there = {*known, *self.transport.addresses()}
        told, tickets = set[int](), set[str]()
        while there - told or tickets or not known:
            new = sorted(there - told)
            tickets |= set(self.transport.send([(address, envelope) for address in new], seconds=END_SECONDS))
            told |= there
            arrived = {ticket for ticket, _ in self.transport.collect(list(tickets))}
            tickets -= arrived
            if not arrived:
                self.transport.wait(self.poll)
            now = self.transport.now()
            if now - begun >= END_SECONDS:
                return
            if now - looked >= LOOK_SECONDS:
                looked, there = now, self.transport.addresses()

    def turn(self) -> None:
        """Looks once for new nodes and for answers."""
        looks = self.transport.now() - self.looked >= LOOK_SECONDS
        if looks:
            self.looked = self.transport.now()
            self._look()
        arrived = self.transport.collect(list(self.pending))
        if looks:
            # Part of an answer may be there, of which the rest never comes: who comes back is asked again.
            answered = {ticket for ticket, _ in arrived}
            arrived += [
                (ticket, DeliveryError("its node left before its answer was whole"))
                for ticket, pending in self.pending.items()
                if pending.owner is not None and pending.address in self.gone and ticket not in answered
            ]
        for ticket, answer in arrived:
            pending = self.pending.pop(ticket)
            if pending.owner is None:
                self._joined(pending, answer)
            else:
                pending.owner.take(pending, answer, ticket)
        if not arrived:
            self.transport.wait(self.poll)

    def _look(self) -> None:
        addresses = self.transport.addresses()
        for member in list(self.membership.present.values()):
            if member.address not in addresses:
                self.note(f"agent {member.index} is gone{self._whose(member.address)}")
        self.membership.forget(addresses)
        self.gone = {pending.address for pending in self.pending.values()} - addresses
        known = self.membership.by_address()
        asked = {pending.address for pending in self.pending.values() if pending.agent is None}
        newcomers = addresses - set(known) - asked
        self.refused = {address: why for address, why in self.refused.items() if address in addresses}
        self.refusals.look(addresses)
        envelope = Envelope(JOIN, {"run": self.run, "config": self.config, **self.terms})
        joining = [
            Outgoing(address, None, self._told_why(envelope, address))
            for address in newcomers
            if self.not_before.get(address, 0.0) <= self.transport.now()
        ]
        self.send(joining, JOIN_SECONDS, None)

    def _told_why(self, envelope: Envelope, address: int) -> Envelope:
        """The request to join, for a node that answered one and has no place: with the reason."""
        why = self.refused.get(address)
        return envelope if why is None else Envelope(JOIN, {**envelope.fields, "refused": why[:LONGEST_TEXT]})

    def _joined(self, pending: Pending, answer: Answer) -> None:
        address = pending.address
        try:
            if not isinstance(answer, Envelope):
                raise Rejected(str(answer))
            if answer.kind == UNFIT:
                check_envelope(answer, UNFIT, {"run": self.run})
                raise Rejected(f"it says: {answer.fields['reason']}")
            member = self.membership.admit(
                address, answer, run=self.run, addresses=self.transport.addresses(), key=self.transport.key(address)
            )
            self.refused.pop(address, None)
            self.refusals.remove(address, self.transport.key(address), member.name)
            self.note(f"agent {member.index} has joined{self._whose(address)}")
        except Rejected as error:
            if not isinstance(answer, Envelope) or self._refuse(address, answer, str(error)):
                self.note(f"a node{self._whose(address)} cannot join: {error}")
            told = address in self.refused
            if isinstance(answer, Envelope) and answer.kind == JOINED:
                self.refused[address] = str(error)
                if not told:
                    # It is told at once.
                    return
            self.not_before[address] = self.transport.now() + AGAIN_SECONDS

    def _refuse(self, address: int, answer: Envelope, why: str) -> bool:
        """Records that the node that gave this answer is not in the run; whether that is news."""
        known = answer.fields if answer.kind in (JOINED, UNFIT) else {}
        node, agent = known.get("node"), known.get("agent")
        refusal = Refusal(
            why,
            self.transport.site(address),
            node if isinstance(node, str) and node.isalnum() and len(node) <= LONGEST_TEXT else "",
            agent if type(agent) is int and 0 <= agent < self.membership.count else -1,
            stays=answer.kind != UNFIT,
        )
        return self.refusals.add(address, self.transport.key(address), refusal)

    def _whose(self, address: int) -> str:
        """By what name people know the node there, if they do: they gave out its key, and not its agent's number."""
        site = self.transport.site(address)
        return f" (key {site})" if site else ""

    def expel(self, index: int) -> None:
        """Removes an agent's node from the membership: it has to join again."""
        member = self.membership.present.pop(index, None)
        if member is None:
            return
        now = self.transport.now()
        lost = [*(time for time in self.lost.get(member.address, ()) if now - time < LOST_SECONDS), now]
        self.lost[member.address] = lost
        if len(lost) >= LOST_TIMES:
            self.not_before[member.address] = now + AGAIN_SECONDS

    def send(self, batch: Sequence[Outgoing], seconds: float, owner: Receiver | None) -> list[str]:
        """Sends envelopes that expire after so many seconds; ``owner`` receives the answers. Returns their tickets."""
        if not batch:
            return []
        tickets = self.transport.send([(outgoing.address, outgoing.envelope) for outgoing in batch], seconds=seconds)
        for ticket, outgoing in zip(tickets, batch, strict=True):
            self.pending[ticket] = Pending(
                outgoing.address, outgoing.agent, self.transport.now(), outgoing.envelope.size, owner
            )
        return tickets


class Request:
    """One request to many agents."""

    def __init__(self, dispatcher: Dispatcher, questions: dict[int, Question]) -> None:
        self.dispatcher = dispatcher
        self.questions = questions
        self.results: dict[int, Any] = {}
        self.records: dict[int, Record] = {}
        self.tickets: dict[int, str] = {}
        """The ticket of the request to each agent that is not answered yet."""

    @property
    def open(self) -> bool:
        """Whether any agent might still answer."""
        return any(self._may_answer(agent) for agent in self.questions)

    def _may_answer(self, agent: int) -> bool:
        record = self.records.get(agent)
        return agent not in self.results and (record is None or record.outcome == ABSENT)

    @property
    def waiting(self) -> bool:
        """Whether an answer is under way, or someone is there who has not been asked."""
        present = self.dispatcher.membership.present
        return any(
            self._may_answer(agent) and (agent in self.tickets or (agent in present and agent not in self.records))
            for agent in self.questions
        )

    def send(self, seconds: float) -> None:
        """Asks whoever is there and has not been asked."""
        dispatcher = self.dispatcher
        asked = [
            (agent, Outgoing(member.address, agent, self.questions[agent].envelope))
            for agent, member in sorted(dispatcher.membership.present.items())
            if agent in self.questions and self._may_answer(agent) and agent not in self.tickets
        ]
        tickets = dispatcher.send([outgoing for _, outgoing in asked], seconds, self)
        self.tickets |= {agent: ticket for (agent, _), ticket in zip(asked, tickets, strict=True)}

    def take(self, pending: Pending, answer: Answer, ticket: str) -> None:
        """Uses an answer, or says why not."""
        agent = pending.agent
        assert agent is not None
        del self.tickets[agent]
        seconds = self.dispatcher.transport.now() - pending.sent
        size = answer.size if isinstance(answer, Envelope) else 0
        work = 0.0
        if isinstance(answer, DeliveryError) or (isinstance(answer, Envelope) and answer.kind == UNKNOWN_RUN):
            # It joins anew before it is asked again, in this round if there is time.
            outcome, reason = (
                ABSENT,
                str(answer) if isinstance(answer, DeliveryError) else "its process has started anew",
            )
            self.dispatcher.expel(agent)
        else:
            try:
                if isinstance(answer, DecodeError):
                    raise Rejected(str(answer))
                content = self.questions[agent].check(answer)
                self.results[agent] = content
                work = float(answer.fields.get("seconds", 0.0))
                outcome, reason = ANSWERED, ""
                self.dispatcher.lost.pop(pending.address, None)
            except Rejected as error:
                outcome, reason = EXCLUDED, str(error)
        self.records[agent] = Record(
            agent, self.dispatcher.membership.name_of(agent), outcome, seconds, work, pending.size, size, reason
        )
        if reason:
            self.dispatcher.note(f"agent {agent} {outcome}: {reason}")

    def close(self) -> list[Record]:
        """A record for every agent asked; requests that are not answered are given up."""
        for agent in self.questions:
            if agent in self.tickets:
                pending = self.dispatcher.pending.pop(self.tickets[agent])
                seconds = self.dispatcher.transport.now() - pending.sent
                reason = "no answer before the deadline"
                self.records[agent] = Record(
                    agent, self.dispatcher.membership.name_of(agent), LATE, seconds, 0.0, pending.size, 0, reason
                )
                self.dispatcher.note(f"agent {agent} {LATE}: {reason}")
            elif agent not in self.records:
                self.records[agent] = Record(
                    agent, self.dispatcher.membership.name_of(agent), ABSENT, 0.0, 0.0, 0, 0, "no node"
                )
        return [self.records[agent] for agent in sorted(self.records)]
