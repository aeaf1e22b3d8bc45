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
LONGEST = 200
"""Characters shown of a reason."""
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
        self._missed: dict[int, int] = {}
        self._reasons: dict[int, str] = {}
        """By agent, why its last answer was not used, where it has given none since."""

    def read(self) -> None:
        """Takes in the lines that came since."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            file.seek(self.place)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.place += len(whole)
        for row in parsed_exchanges(whole):
            agent = row["agent"]
            self.last[agent] = row
            self.round = max(self.round, row["round"])
            rounds, answered = self._rounds.setdefault(agent, {}), row["outcome"] == ANSWERED
            before = rounds.get(row["round"])
            rounds[row["round"]] = answered or bool(before)
            # A round that is done again may be made good.
            gone = (before is None and not answered) - (before is False and answered)
            self._missed[agent] = self._missed.get(agent, 0) + gone
            if answered:
                self._reasons.pop(agent, None)
            elif row["outcome"] != PAUSED:
                self._reasons[agent] = row["reason"]
            totals = self.totals.setdefault(agent, dict.fromkeys(("asked", "answered", "bytes_up", "bytes_down"), 0))
            totals["asked"] += row["outcome"] != PAUSED
            totals["answered"] += answered
            totals["bytes_up"] += row["bytes_up"]
            totals["bytes_down"] += row["bytes_down"]

    def why(self, agent: int, *, over: bool) -> str:
        """Why the agent's last answer was not used, and, unless the run is over, until when it pauses if it does."""
        row = self.last[agent]
        if row["outcome"] != PAUSED:
            return str(row["reason"])
        known = self._reasons.get(agent)
        parts = [shortened(known)] if known else []
        return "; ".join(parts if over else [*parts, row["reason"]])

    def missed(self, agent: int) -> int:
        """Rounds in which the agent was to take part and its answer was not used, or it paused for its failures."""
        return self._missed.get(agent, 0)


def shortened(text: str) -> str:
    """The beginning of a long reason, which is whole in the file."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def parsed_exchanges(data: bytes) -> Iterator[dict[str, Any]]:
    """The lines that are whole, each with :data:`COLUMNS`."""
    for line in data.decode(errors="replace").splitlines():
        try:
            row = parsed_json(line)
            yield {name: kind(row[name]) for name, kind in COLUMNS.items()}
        except (ValueError, KeyError, TypeError, OverflowError):
            # A server was killed over this line, and the next one went on from there.
            continue
