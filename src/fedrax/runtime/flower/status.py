"""What is going on in a federation: who answered in the last round, how fast, with how many bytes, and why not."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import TracebackType

import rich.console
import rich.live
import rich.table
import rich.text

from fedrax.config import Config, resolve
from fedrax.records.exchanges import Exchanges
from fedrax.records.files import read_json
from fedrax.records.progress import clock_time
from fedrax.records.rundir import RunDirectory
from fedrax.records.standing import Progress
from fedrax.runtime.flower.run_lock import WHY, is_held
from fedrax.runtime.memory import size_text


class Agents(Exchanges):
    """The exchanges of a run so far, as a table."""

    def table(self, title: str) -> rich.table.Table:
        """One line for each agent."""
        # What nodes say, and folders are called, is text, never Rich's markup.
        table = rich.table.Table(title=rich.text.Text(title), title_justify="left")
        for column in (
            "agent",
            "round",
            "outcome",
            "seconds",
            "of them work",
            "up",
            "down",
            "answered",
            "missed",
            "why not",
        ):
            table.add_column(column, justify="left" if column in ("outcome", "why not") else "right")
        for agent, row in sorted(self.last.items()):
            totals = self.totals[agent]
            cells = (
                str(agent),
                str(row["round"] + 1),
                row["outcome"],
                f"{row['seconds']:.2f}",
                f"{row['work_seconds']:.2f}",
                size_text(totals["bytes_up"]),
                size_text(totals["bytes_down"]),
                f"{totals['answered']}/{totals['asked']}",
                str(self.missed(agent)),
                row["reason"][:80],
            )
            table.add_row(*map(rich.text.Text, cells))
        return table


class Board:
    """The live table of a server; plain lines where there is no terminal. A context manager."""

    def __init__(self, folder: Path, config: Config, *, enabled: bool) -> None:
        self.agents = Agents(folder)
        self.progress = Progress(RunDirectory(folder))
        self.config, self.enabled = config, enabled
        self.console = rich.console.Console(file=sys.stdout)
        self.live: rich.live.Live | None = None
        # What an earlier server did is no news.
        self.agents.read()
        self.shown = self.agents.round
        if enabled and self.console.is_terminal:
            self.live = rich.live.Live(console=self.console, auto_refresh=False)

    def __enter__(self) -> Board:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.refresh()
            self.live.stop()

    def note(self, text: str) -> None:
        """A line that stays."""
        if self.enabled:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def refresh(self) -> None:
        """Shows the rounds that ended since."""
        if not self.enabled:
            return
        self.agents.read()
        self.progress.read()
        if self.live is not None:
            self.live.update(self.agents.table(f"{self.config.name}: {position(self.progress)}"), refresh=True)
        elif self.agents.round > self.shown:
            self.shown = self.agents.round
            rows = [row for row in self.agents.last.values() if row["round"] == self.shown]
            answered = sum(row["outcome"] == "answered" for row in rows)
            slowest = max(row["seconds"] for row in rows)
            self.note(
                f"round {self.shown + 1}: {answered} of {len(rows)} agents answered, the slowest in {slowest:.2f} s; "
                f"{position(self.progress)}"
            )


def position(progress: Progress) -> str:
    """How far a run with one seed is: share of its budget, rounds, return and time left."""
    (standing,) = progress.standings().values()
    parts = [f"{standing.fraction:.0%} done", f"{standing.rounds} rounds"]
    if standing.last_return is not None:
        parts.append(f"return {standing.last_return:.1f}")
    if standing.left is not None:
        parts.append(f"left {clock_time(standing.left)}")
    return ", ".join(parts)


def show_status(folder: Path) -> str:
    """A run's state as text.

    Raises:
        FedraxError: it is no run.
    """
    directory = RunDirectory.open(folder)
    config = resolve(directory.config)
    if directory.summary.exists():
        state = "finished"
    elif is_held(folder):
        state = "training"
    elif (folder / WHY).exists():
        state = f"stopped: {(folder / WHY).read_text(encoding='utf-8').strip()}"
    else:
        state = "not running; `fedrax server` with this --out continues it"
    agents = Agents(folder)
    agents.read()
    members = read_json(folder / "members.json", "list of members") if (folder / "members.json").exists() else {}
    console = rich.console.Console(width=140, record=True, file=io.StringIO())
    joined = f"nodes of {len(members)} of {config.federation.agents} agents have joined so far"
    progress = Progress(directory)
    progress.read()
    console.print(agents.table(f"{folder}: {state}; {position(progress)}; {joined}"))
    return console.export_text().rstrip()
