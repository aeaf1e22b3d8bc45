"""Reading ``exchanges.jsonl``: what became of every request to a node of a federation, a line per agent and round."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fedrax.parsing import parsed_json

EXCHANGES = "exchanges.jsonl"
COLUMNS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("agent", "round", "bytes_up", "bytes_down"), int),
    **dict.fromkeys(("seconds", "work_seconds"), float),
    **dict.fromkeys(("outcome", "reason"), str),
}
"""What is read of a line."""
ANSWERED, PAUSED = "answered", "paused"


class Exchanges:
    """The exchanges of a run so far, by agent; reads only what is new."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / EXCHANGES
        self.place = 0
        self.last: dict[int, dict[str, Any]] = {}
        """Each agent's last exchange."""
        self.totals: dict[int, dict[str, int]] = {}
        """By agent, how often it was ``asked`` and has ``answered``, and bytes."""
        self.round = -1
        self._rounds: dict[int, dict[int, bool]] = {}
        """By agent, whether its answer of a round was used: rounds since the last checkpoint are done again."""

    def read(self) -> None:
        """Takes in the lines that came since."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            file.seek(self.place)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.place += len(whole)
        for row in _parsed(whole):
            agent = row["agent"]
            self.last[agent] = row
            self.round = max(self.round, row["round"])
            rounds = self._rounds.setdefault(agent, {})
            rounds[row["round"]] = rounds.get(row["round"], False) or row["outcome"] == ANSWERED
            totals = self.totals.setdefault(agent, dict.fromkeys(("asked", "answered", "bytes_up", "bytes_down"), 0))
            totals["asked"] += row["outcome"] != PAUSED
            totals["answered"] += row["outcome"] == ANSWERED
            totals["bytes_up"] += row["bytes_up"]
            totals["bytes_down"] += row["bytes_down"]

    def missed(self, agent: int) -> int:
        """Rounds in which the agent was to take part and its answer was not used, or it paused for its failures."""
        return sum(not used for used in self._rounds.get(agent, {}).values())


def _parsed(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.decode(errors="replace").splitlines():
        try:
            row = parsed_json(line)
            yield {name: kind(row[name]) for name, kind in COLUMNS.items()}
        except (ValueError, KeyError, TypeError, OverflowError):
            # A server was killed over this line, and the next one went on from there.
            continue
