"""The server's part in the secure sums of a run: four exchanges a round, of which it learns a sum."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int32, PyTree

from fedrax.config import Config
from fedrax.federation import Federation
from fedrax.message import Message
from fedrax.privacy.secure_sum.quantise import restored
from fedrax.privacy.secure_sum.server import Summation
from fedrax.privacy.secure_sum.terms import SecureSumError, Terms
from fedrax.records.files import owner_only
from fedrax.records.rundir import RunDirectory
from fedrax.runtime.distributed.checks import Counts, Rejected, Worked, check_envelope, check_keyed
from fedrax.runtime.distributed.dispatcher import ANSWERED, Dispatcher, Question, Record
from fedrax.runtime.distributed.envelopes import MASK, SHARE, UNMASK, Envelope, Field
from fedrax.runtime.distributed.secure_terms import ANSWERS, context_of, digest_of, terms_of
from fedrax.trees import tree_size, unravel_like

SHORT_SECONDS = 60.0
"""Of an exchange of keys and shares, at most: they are small, and no agent works for them."""
AUTHENTICATED, NOT_AUTHENTICATED = "authenticated by registered keys", "keys not authenticated"
Content = TypeVar("Content")


class SecureServer:
    """Sums up the updates of each round, and keeps ``sums.jsonl``, a line for each."""

    def __init__(
        self,
        config: Config,
        federation: Federation,
        dispatcher: Dispatcher,
        directory: RunDirectory,
        note: Callable[[str], None],
        *,
        message: Message,
        report: PyTree,
    ) -> None:
        """``message`` and ``report`` are one agent's as bare shapes."""
        self.config, self.dispatcher, self.note, self.message, self.report = config, dispatcher, note, message, report
        self._terms: Callable[[int, bytes], Terms] = partial(
            terms_of,
            config,
            dispatcher.run,
            participants=federation.participants,
            length=tree_size(message.update),
        )
        self.terms = self._terms(0, b"")
        """Of the round under way."""
        self.path = directory.path / "sums.jsonl"
        self.withheld = federation.protection.unit is not None
        self.told = False
        """Whether people know that keys are not authenticated."""
        self.lost: list[int] = []
        """Whose updates are in no sum of the last round, as it was lost."""

    @property
    def threshold(self) -> int:
        """Agents without whom there is no sum."""
        return self.terms.threshold

    def begin(self, round: int, broadcast: bytes) -> None:
        """Begins a round, in which everybody is sent this."""
        self.terms = self._terms(round, context_of(self.dispatcher.config, digest_of(broadcast)))

    def checked(self, counts: Counts) -> Callable[..., Worked]:
        """``check(answer, agent, turn)`` for answers to orders of work: reports and keys.

        It raises :class:`~fedrax.runtime.distributed.checks.Rejected`.
        """
        return partial(self._checked, counts)

    def _checked(self, counts: Counts, answer: Envelope, agent: int, turn: int) -> Worked:
        worked = check_keyed(
            answer, self.report, run=self.dispatcher.run, round=turn, agent=agent, counts=counts, withheld=self.withheld
        )
        if worked.keys:
            _accepted(Summation(self.terms).check_keys, agent, worked.keys)
        return worked

    def means(self, keys: Mapping[int, bytes], records: list[Record]) -> dict[int, Message]:
        """The mean update of those who stayed, by each of them; nobody where the round is lost.

        Args:
            keys: of the agents that may be in the sum.
            records: of the round so far, to which what the further exchanges come to is added.
        """
        sum, why, round = Summation(self.terms), "", self.terms.round
        means: dict[int, Message] = {}
        try:
            total = self._exchanged(sum, keys, records)
            vector = restored(jnp.asarray(total), self._clip, self.terms.bits) / len(sum.survivors)
            means = dict.fromkeys(sum.survivors, unravel_like(self.message, vector))
        except SecureSumError as error:
            why = str(error)
            self.note(f"round {round + 1} is lost, and nobody's update is known: {why}")
        self.lost = sorted(keys) if why else []
        self._write(round, sum, why)
        return means

    @property
    def _clip(self) -> float:
        assert self.config.privacy.clip is not None
        return self.config.privacy.clip

    def _exchanged(self, sum: Summation, keys: Mapping[int, bytes], records: list[Record]) -> Int32[np.ndarray, " d"]:
        """The total; raises :class:`SecureSumError` where there is none."""
        ask = partial(self._ask, records)
        roster = sum.enrol({agent: sum.check_keys(agent, own) for agent, own in keys.items() if own})
        if not sum.authenticated and not self.told:
            self.told = True
            self.note(f"secure sums: {NOT_AUTHENTICATED}; a lying server could pose as nodes (fedrax node --peers)")
        sealed = sum.relay(ask(SHARE, dict.fromkeys(sum.roster, roster), sum.check_shares))
        survivors = sum.add(ask(MASK, sealed, sum.check_masked))
        return sum.total(ask(UNMASK, dict.fromkeys(sum.survivors, survivors), sum.check_unmasked))

    def _ask(
        self,
        records: list[Record],
        kind: str,
        payloads: Mapping[int, bytes],
        check: Callable[[int, bytes], Content],
    ) -> dict[int, Content]:
        """One exchange with these agents: what those answered who did in time."""
        fields: dict[str, Field] = {"run": self.dispatcher.run, "round": self.terms.round}

        def question(agent: int, payload: bytes) -> Question:
            own = fields | {"agent": agent}

            def checked(answer: Envelope) -> Content:
                check_envelope(answer, ANSWERS[kind], own)
                return _accepted(check, agent, answer.payload)

            return Question(Envelope(kind, own, payload), checked)

        seconds = self.config.runtime.flower.deadline
        if kind != MASK:
            seconds = min(seconds, SHORT_SECONDS)
        questions = {agent: question(agent, payload) for agent, payload in payloads.items()}
        answers, rows = self.dispatcher.ask(questions, enough=0, seconds=seconds)
        _put(records, kind, rows)
        return answers

    def _write(self, round: int, sum: Summation, why: str) -> None:
        line: dict[str, Any] = {
            "round": round,
            "enrolled": sorted(sum.roster),
            "summed": [] if why else sum.survivors,
            "lost": why or None,
            "keys": AUTHENTICATED if sum.authenticated else NOT_AUTHENTICATED,
        }
        with open(self.path, "a", encoding="utf-8", opener=owner_only) as file:
            file.write(json.dumps(line) + "\n")


def _accepted(check: Callable[[int, bytes], Content], agent: int, answer: bytes) -> Content:
    try:
        return check(agent, answer)
    except SecureSumError as error:
        raise Rejected(str(error)) from None


def _put(records: list[Record], kind: str, rows: list[Record]) -> None:
    """Adds what became of an exchange's requests to the records of the round."""
    more = {row.agent: row for row in rows}
    for number, record in enumerate(records):
        row = more.get(record.agent)
        if row is None:
            continue
        records[number] = record._replace(
            seconds=record.seconds + row.seconds,
            bytes_down=record.bytes_down + row.bytes_down,
            bytes_up=record.bytes_up + row.bytes_up,
        )
        if row.outcome != ANSWERED:
            reason = f"in the exchange {kind!r}: {row.reason}"
            records[number] = records[number]._replace(outcome=row.outcome, reason=reason)
