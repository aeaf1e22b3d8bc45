"""The server's correspondence: nodes join whenever they come, and a round's letters are answered in time or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from fedrax.arrays import DecodeError
from fedrax.runtime.remote.checks import Rejected
from fedrax.runtime.remote.letters import JOIN, STRANGER, Letter
from fedrax.runtime.remote.members import Members
from fedrax.runtime.remote.post import Answer, Lost, Post

JOIN_SECONDS = 60.0
"""How long a node may take to answer that it joins: the first time it compiles nothing, but starts."""
LOOK_SECONDS = 1.0
"""Between two looks at which nodes there are."""
AGAIN_SECONDS = 10.0
"""Before a node that could not join is asked again."""

ANSWERED, LATE, ABSENT, EXCLUDED, DROPPED = "answered", "late", "absent", "excluded", "dropped"


class Record(NamedTuple):
    """What became of one agent's letter."""

    agent: int
    node: str
    """Its node's name; empty where there was none."""
    outcome: str
    """``answered``; ``late``: not before the deadline; ``absent``: no node, or it was lost; ``excluded``; ``dropped``:
    its collection, which was not finite."""
    seconds: float
    """From the letter to its answer."""
    work_seconds: float
    """That the node worked."""
    bytes_down: int
    bytes_up: int
    reason: str


class Question(NamedTuple):
    """A letter to one agent and what its answer must be."""

    letter: Letter
    check: Callable[[Letter], Any]
    """The answer's content, or :class:`Rejected`."""


class Parcel(NamedTuple):
    """A letter and where it is to go."""

    address: int
    agent: int | None
    """None for a letter that asks a node to join."""
    letter: Letter


class Pending(NamedTuple):
    """A letter under way."""

    address: int
    agent: int | None
    """None for a letter that asks a node to join."""
    sent: float
    size: int
    owner: Correspondent | None
    """Who is told of the answer; nobody of a letter that asks a node to join."""


class Correspondent(Protocol):
    """Whoever sends letters through an office."""

    def take(self, pending: Pending, answer: Answer, ticket: str) -> None:
        """Takes the answer to a letter of its."""


class Office:
    """Sends letters, waits for answers, and keeps the list of members."""

    def __init__(
        self,
        post: Post,
        members: Members,
        *,
        run: str,
        config: str,
        note: Callable[[str], None],
        poll: float = 0.05,
    ) -> None:
        """Args:
        run: the run's name, which every letter bears.
        config: the configuration as TOML, which nodes get when they join.
        note: told what people should know, one line at a time.
        poll: seconds between two looks for answers.
        """
        self.post, self.members, self.run, self.config = post, members, run, config
        self.note, self.poll = note, poll
        self.pending: dict[str, Pending] = {}
        self.not_before: dict[int, float] = {}
        self.looked = -LOOK_SECONDS

    def gather(self, wanted: int, enough: int, seconds: float) -> None:
        """Waits until ``wanted`` agents have joined; after ``seconds``, until ``enough`` have."""
        started, told = self.post.now(), False
        while len(self.members.present) < wanted:
            waited = self.post.now() - started
            if waited >= seconds and len(self.members.present) >= enough:
                return
            if not told and waited > seconds:
                told = True
                self.note(f"{len(self.members.present)} agents of at least {enough} have joined; waiting for more")
            self.turn()

    def ask(
        self, questions: Mapping[int, Question], *, enough: int, seconds: float
    ) -> tuple[dict[int, Any], list[Record]]:
        """Asks agents and waits for what they answer.

        It ends when nobody is left to wait for, or after ``seconds``, but never before ``enough`` answers are there.
        Who comes (back) meanwhile is asked too. Answers that fail their check are not used.

        Returns:
            The answers' contents by agent, and a record for each agent asked.
        """
        inquiry = Inquiry(self, dict(questions))
        deadline = self.post.now() + seconds
        told = False
        while inquiry.open:
            in_time = self.post.now() < deadline
            reached = len(inquiry.results) >= enough
            if reached and (not in_time or not inquiry.waiting):
                break
            if not in_time and not told:
                told = True
                count = len(inquiry.results)
                self.note(f"{count} agents of at least {enough} answered within {seconds:g} s; waiting for more")
            inquiry.send(max(deadline - self.post.now(), 1.0) if in_time else seconds)
            self.turn()
        return inquiry.results, inquiry.close()

    def turn(self) -> None:
        """Looks once at who is there and what has arrived."""
        if self.post.now() - self.looked >= LOOK_SECONDS:
            self.looked = self.post.now()
            self._look()
        arrived = self.post.collect(list(self.pending))
        for ticket, answer in arrived:
            pending = self.pending.pop(ticket)
            if pending.owner is None:
                self._joined(pending, answer)
            else:
                pending.owner.take(pending, answer, ticket)
        if not arrived:
            self.post.wait(self.poll)

    def _look(self) -> None:
        addresses = self.post.addresses()
        for member in list(self.members.present.values()):
            if member.address not in addresses:
                self.note(f"agent {member.index} is gone")
        self.members.forget(addresses)
        known = self.members.by_address()
        asked = {pending.address for pending in self.pending.values() if pending.agent is None}
        strangers = addresses - set(known) - asked
        letter = Letter(JOIN, {"run": self.run, "config": self.config})
        welcome = [
            Parcel(address, None, letter)
            for address in strangers
            if self.not_before.get(address, 0.0) <= self.post.now()
        ]
        self.send(welcome, JOIN_SECONDS, None)

    def _joined(self, pending: Pending, answer: Answer) -> None:
        try:
            if not isinstance(answer, Letter):
                raise Rejected(str(answer))
            member = self.members.admit(pending.address, answer, run=self.run, addresses=self.post.addresses())
            self.note(f"agent {member.index} has joined")
        except Rejected as error:
            self.note(f"a node cannot join: {error}")
            self.not_before[pending.address] = self.post.now() + AGAIN_SECONDS

    def expel(self, index: int) -> None:
        """Forgets where an agent is: it has to join again."""
        self.members.present.pop(index, None)

    def send(self, parcels: Sequence[Parcel], seconds: float, owner: Correspondent | None) -> list[str]:
        """Sends letters, each worth answering for so long; their ``owner`` takes the answers. Returns their tickets."""
        if not parcels:
            return []
        tickets = self.post.send([(parcel.address, parcel.letter) for parcel in parcels], seconds=seconds)
        for ticket, parcel in zip(tickets, parcels, strict=True):
            self.pending[ticket] = Pending(parcel.address, parcel.agent, self.post.now(), parcel.letter.size, owner)
        return tickets


class Inquiry:
    """One question to many agents."""

    def __init__(self, office: Office, questions: dict[int, Question]) -> None:
        self.office = office
        self.questions = questions
        self.results: dict[int, Any] = {}
        self.records: dict[int, Record] = {}
        self.tickets: dict[int, str] = {}
        """The letter under way to each agent."""

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
        present = self.office.members.present
        return any(
            self._may_answer(agent) and (agent in self.tickets or (agent in present and agent not in self.records))
            for agent in self.questions
        )

    def send(self, seconds: float) -> None:
        """Asks whoever is there and has not been asked."""
        office = self.office
        asked = [
            (agent, Parcel(member.address, agent, self.questions[agent].letter))
            for agent, member in sorted(office.members.present.items())
            if agent in self.questions and self._may_answer(agent) and agent not in self.tickets
        ]
        tickets = office.send([parcel for _, parcel in asked], seconds, self)
        self.tickets |= {agent: ticket for (agent, _), ticket in zip(asked, tickets, strict=True)}

    def take(self, pending: Pending, answer: Answer, ticket: str) -> None:
        """Uses an answer, or says why not."""
        agent = pending.agent
        assert agent is not None
        del self.tickets[agent]
        seconds = self.office.post.now() - pending.sent
        size = answer.size if isinstance(answer, Letter) else 0
        work = 0.0
        if isinstance(answer, Lost) or (isinstance(answer, Letter) and answer.kind == STRANGER):
            # It joins anew before it is asked again, in this round if there is time.
            outcome, reason = ABSENT, str(answer) if isinstance(answer, Lost) else "its process has started anew"
            self.office.expel(agent)
        else:
            try:
                if isinstance(answer, DecodeError):
                    raise Rejected(str(answer))
                content = self.questions[agent].check(answer)
                self.results[agent] = content
                work = float(answer.fields.get("seconds", 0.0))
                outcome, reason = ANSWERED, ""
            except Rejected as error:
                outcome, reason = EXCLUDED, str(error)
        self.records[agent] = Record(
            agent, self.office.members.name_of(agent), outcome, seconds, work, pending.size, size, reason
        )
        if reason:
            self.office.note(f"agent {agent} {outcome}: {reason}")

    def close(self) -> list[Record]:
        """A record for every agent asked; letters still under way are no longer waited for."""
        for agent in self.questions:
            if agent in self.tickets:
                pending = self.office.pending.pop(self.tickets[agent])
                seconds = self.office.post.now() - pending.sent
                reason = "no answer before the deadline"
                self.records[agent] = Record(
                    agent, self.office.members.name_of(agent), LATE, seconds, 0.0, pending.size, 0, reason
                )
                self.office.note(f"agent {agent} {LATE}: {reason}")
            elif agent not in self.records:
                self.records[agent] = Record(
                    agent, self.office.members.name_of(agent), ABSENT, 0.0, 0.0, 0, 0, "no node"
                )
        return [self.records[agent] for agent in sorted(self.records)]
