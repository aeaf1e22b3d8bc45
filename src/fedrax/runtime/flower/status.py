"""What is going on in a federation: who answered in the last round, how fast, with how many bytes, and why not."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import rich.console
import rich.live
import rich.table
import rich.text

from fedrax.config import Config, resolve
from fedrax.opening import setup_line
from fedrax.records.exchanges import ANSWERED, Exchanges, shortened
from fedrax.records.files import read_json
from fedrax.records.progress import clock_time
from fedrax.records.refusals import REFUSALS, read_refusals
from fedrax.records.rundir import RunDirectory
from fedrax.records.sites import MEMBERS, site_names
from fedrax.records.standing import Progress
from fedrax.runtime.flower.run_lock import WHY, is_held
from fedrax.runtime.memory import size_text
from fedrax.wording import counted

LONG_SECONDS = 2.0
"""Of a round; a shorter one is not worth a word on how it may be shortened."""
SETTLED = 1
"""The round, from 0, from which on nodes have compiled what takes long."""


class Agents(Exchanges):
    """The exchanges of a run so far, as a table."""

    def table(self, title: str, *, over: bool) -> rich.table.Table:
        """One line for each agent; of a run that is over, nobody is asked again."""
        # What nodes say, and folders are called, is text, never Rich's markup.
        table = rich.table.Table(title=rich.text.Text(title), title_justify="left")
        names = site_names(self.path.parent)
        for column in (
            "agent",
            "site",
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
            table.add_column(column, justify="left" if column in ("site", "outcome", "why not") else "right")
        for agent, row in sorted(self.last.items()):
            totals = self.totals[agent]
            cells = (
                str(agent),
                names.get(agent, ""),
                str(row["round"] + 1),
                row["outcome"],
                f"{row['seconds']:.2f}",
                f"{row['work_seconds']:.2f}",
                size_text(totals["bytes_up"]),
                size_text(totals["bytes_down"]),
                f"{totals['answered']}/{totals['asked']}",
                str(self.missed(agent)),
                shortened(self.why(agent, over=over)),
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
        self.waiting: list[tuple[int, str]] = []
        """Rounds that are to be shown once they have ended, by what their agents did."""
        self.told = config.runtime.flower.fast
        """Whether waits have been spoken of."""
        if enabled and self.console.is_terminal:
            self.live = rich.live.Live(console=self.console, auto_refresh=False)

    def __enter__(self) -> Board:
        if self.live is not None:
            self.live.start()
        self.note(setup_line(self.config))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refresh()
        if self.live is not None:
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
        rows: list[dict[str, Any]] = []
        if self.agents.round > self.shown:
            self.shown = self.agents.round
            rows = [row for row in self.agents.last.values() if row["round"] == self.shown]
        if self.live is not None:
            title, over = f"{self.config.name}: {position(self.progress)}", self.progress.directory.summary.exists()
            self.live.update(self.agents.table(title, over=over), refresh=True)
        else:
            self._show_ended(rows)
        waits = None if self.told or self.shown < SETTLED else waits_text(rows)
        if waits is not None:
            self.told = True
            self.note(waits)

    def _show_ended(self, rows: list[dict[str, Any]]) -> None:
        """Shows rounds whose row is there: agents have answered before it is known what came of that."""
        if rows:
            answered = sum(row["outcome"] == ANSWERED for row in rows)
            slowest = max(row["seconds"] for row in rows)
            text = f"{answered} of {counted(len(rows), 'agent')} answered, the slowest in {slowest:.2f} s"
            self.waiting.append((self.shown, text))
        (standing,) = self.progress.standings().values()
        while self.waiting and self.waiting[0][0] < standing.rounds:
            round, text = self.waiting.pop(0)
            self.note(f"round {round + 1}: {text}; {position(self.progress)}")


def waits_text(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """What shortens a round's waits, where it was long and its agents worked little; ``rows`` are its exchanges."""
    answered = [row for row in rows if row["outcome"] == ANSWERED]
    seconds = max((row["seconds"] for row in answered), default=0.0)
    work = max((row["work_seconds"] for row in answered), default=0.0)
    if seconds < LONG_SECONDS or work > seconds / 2:
        return None
    return (
        f"of a round's {seconds:.1f} s agents worked {work:.1f} s, and waited for messages else: "
        "runtime.flower.fast=true (and fedrax node --fast) shortens the waits (docs/federation.md)"
    )


def position(progress: Progress) -> str:
    """How far a run with one seed is: share of its budget, rounds, return and time left."""
    (standing,) = progress.standings().values()
    parts = [f"{standing.fraction:.0%} done", counted(standing.rounds, "round")]
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
    members = read_json(folder / MEMBERS, "list of members") if (folder / MEMBERS).exists() else {}
    console = rich.console.Console(width=140, record=True, file=io.StringIO())
    joined = f"nodes of {len(members)} of {config.federation.agents} agents have joined so far"
    progress = Progress(directory)
    progress.read()
    title = f"{folder}: {state}; {position(progress)}; {joined}"
    console.print(agents.table(title, over=directory.summary.exists()))
    for refusal in read_refusals(folder / REFUSALS).values():
        console.print(refusal.line, markup=False, highlight=False, soft_wrap=True)
    return console.export_text().rstrip()
