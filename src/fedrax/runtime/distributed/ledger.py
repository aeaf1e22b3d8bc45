"""What became of every request to a node, round by round: a file of lines, and whom it says not to ask for a while."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from fedrax.errors import FedraxError
from fedrax.records.files import owner_only, read_json, write_json
from fedrax.runtime.distributed.back_off import BackOff
from fedrax.runtime.distributed.dispatcher import ABSENT, EXCLUDED, LATE, PAUSED, STALE, Record

WORK, EVALUATION = "work", "evaluation"
"""What requests were for: each is judged once a round."""


class Ledger:
    """Keeps ``exchanges.jsonl``, a line for each agent of a round, and beside it ``pauses.json``.

    A server that was restarted goes on with the pauses that are in that file.
    """

    def __init__(self, path: Path, note: Callable[[str], None], *, max_failures: int | None) -> None:
        """Args:
        path: of the file.
        note: told who pauses.
        max_failures: of ``runtime.flower``.

        Raises:
            FedraxError: the file of pauses is damaged.
        """
        self.path, self.note, self.back_off = path, note, BackOff(max_failures)
        self.round = 0
        self.paused: dict[int, int] = {}
        """The agents that are not asked in this round, and the round in which they are again."""
        self.judged = dict.fromkeys((WORK, EVALUATION), -1)
        """The last round of which requests of each kind were judged."""
        self.pauses = path.with_name("pauses.json")
        if self.pauses.exists():
            table = read_json(self.pauses, "list of pauses")
            try:
                self.judged = {kind: int(table["judged"][kind]) for kind in self.judged}
                self.back_off.restore(table["agents"])
            except (KeyError, TypeError, ValueError):
                raise FedraxError(f"{self.pauses} is damaged; delete it and resume the run: nobody pauses") from None

    def asked(self, round: int, agents: Sequence[int], *, enough: int, present: Collection[int]) -> list[int]:
        """Which of a round's agents are to be asked: not those that pause, unless the others there are too few."""
        self.round = round
        self.paused = {agent: end for agent, end in self.back_off.paused(round).items() if agent in agents}
        if sum(agent in present for agent in agents if agent not in self.paused) < enough:
            self.paused = {}
        return [agent for agent in agents if agent not in self.paused]

    def write(self, round: int, records: Sequence[Record], name_of: Callable[[int], str]) -> None:
        """Appends a round's lines: the records of those who were asked, and of those who pause."""
        asked = {record.agent for record in records}
        pausing = [
            Record(agent, name_of(agent), PAUSED, 0.0, 0.0, 0, 0, f"asked again in round {end + 1}")
            for agent, end in self.paused.items()
            if agent not in asked
        ]
        with open(self.path, "a", encoding="utf-8", opener=owner_only) as file:
            for record in sorted([*records, *pausing], key=lambda record: record.agent):
                file.write(json.dumps({"round": round, **record._asdict()}) + "\n")
        self.judge(records, WORK)

    def judge(self, records: Sequence[Record], kind: str) -> None:
        """Takes in what became of requests in this round: who was asked, and lost, late or excluded, has failed.

        ``kind`` is what they were for. A round that a restarted server does again is not judged twice.
        """
        if self.round <= self.judged[kind]:
            return
        self.judged[kind] = self.round
        outcomes: dict[int, set[str]] = {}
        for record in records:
            if record.outcome != STALE and record.bytes_down:
                outcomes.setdefault(record.agent, set()).add(record.outcome)
        for agent, seen in outcomes.items():
            why = self.back_off.saw(self.round, agent, failed=seen <= {LATE, ABSENT, EXCLUDED})
            if why is not None:
                self.note(f"agent {agent} {PAUSED}: {why}")
        write_json(self.pauses, {"judged": self.judged, "agents": self.back_off.state()}, private=True)
