"""One command per published figure: train what is missing, draw ours beside theirs, tell the difference."""

from __future__ import annotations

import csv
import dataclasses
import math
import re
import shlex
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.evaluation.measure import apart, measure, why_apart
from fedrax.report import published as library
from fedrax.report.curves import STATISTICS, aggregate_at
from fedrax.report.experiments import FIGURES, Experiment, Setup, experiment
from fedrax.report.figures import curves_figure, panels_figure
from fedrax.report.html import report_html
from fedrax.report.published import Published, Series
from fedrax.report.runs import Group, Run, is_run, load_run
from fedrax.report.style import save
from fedrax.report.tables import MISSING, Estimate, number
from fedrax.report.templating import Section, figure_html, joined, part, table_html

__all__ = ["FIGURES", "Comparison", "Train", "compare", "reproduce"]

Train = Callable[[str, list[str], int, Path], Path]
"""``train(preset, overrides, seeds, directory)`` trains or resumes a run in ``directory`` and returns it."""

STATISTIC = "mean"
"""The published curves are means over seeds; an IQM beside them would be another quantity."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Ours beside the published value at one point of one curve."""

    panel: str
    label: str
    x: float
    seeds: int
    ours: Estimate
    """NaN where a seed has not reached ``x``."""
    published: float

    @property
    def difference(self) -> float:
        """Ours minus theirs, in the unit of the return."""
        return self.ours.value - self.published


def reproduce(
    name: str,
    out: Path,
    *,
    train: Train,
    seeds: int | None = None,
    overrides: Sequence[str] = (),
    console: Console | None = None,
) -> Path:
    """Trains a figure's setups and writes ``figure.png``, ``figure.svg``, ``table.csv`` and ``report.html``.

    Finished runs in ``out/runs`` made with the same overrides and number of seeds are used as they are.

    Args:
        name: a key of :data:`fedrax.report.experiments.FIGURES`.
        out: the directory to write into.
        train: trains one run; an unfinished directory is handed to it again.
        seeds: number of seeds; unset, the published number.
        overrides: ``key=value`` on top of every setup, such as a smaller budget.
        console: where the table is printed; unset, standard output.

    Returns:
        The report's path.

    Raises:
        FedraxError: an unknown figure, fewer than one seed, setups that are evaluated differently, or a
            ``train`` that did not finish its run.
    """
    figure = experiment(name)
    count = figure.seeds if seeds is None else seeds
    if count < 1:
        raise FedraxError(f"seeds = {count} is not allowed: it must be at least 1")
    _check_one_measure(figure, overrides)
    groups = [
        Group(setup.label, (_run(figure, setup, count, overrides, out / "runs", train),)) for setup in figure.setups
    ]
    reference = library.load(figure.published) if figure.published else None
    rows = compare(figure, groups, reference)
    drawn = _draw(figure, groups, reference)
    save(drawn, out / "figure.png", out / "figure.svg")
    _write_csv(out / "table.csv", rows)
    command = ["fedrax", "reproduce", name, "--seeds", str(count), *overrides]
    report = out / "report.html"
    report.write_text(
        report_html(
            [
                Group(f"{setup.panel}: {group.label}" if setup.panel else group.label, group.runs)
                for setup, group in zip(figure.setups, groups, strict=True)
            ],
            title=figure.title,
            statistic=STATISTIC,
            commands=[
                shlex.join(command),
                *(_command(figure, setup, count, overrides) for setup in figure.setups),
            ],
            lead=[Section("Ours beside the published figure", _lead(figure, drawn, rows, reference))],
        ),
        encoding="utf-8",
    )
    if rows:
        (console or Console()).print(_rich_table(figure, rows))
    return report


def _check_one_measure(figure: Experiment, overrides: Sequence[str]) -> None:
    """Refuses, before anything is trained, setups whose returns could not be drawn on one axis."""
    configs = [(setup.label, resolve(figure.preset, [*setup.overrides, *overrides])) for setup in figure.setups]
    measures = [
        (label, measure(config.model_dump(mode="json"), personal=False))  # A resolved one says it.
        for label, config in configs
    ]
    parts = apart(measures)
    if len(parts) > 1:
        raise FedraxError(f"{why_apart(parts)} Set evaluation.environments=registered, or train them one by one")


def compare(figure: Experiment, groups: Sequence[Group], reference: Published | None) -> list[Comparison]:
    """Ours and the published value at every point that was read off, in the order of the setups."""
    rows = []
    for setup, group in zip(figure.setups, groups, strict=True):
        if reference is None or setup.published is None:
            continue
        series = reference[setup.published]
        ours = aggregate_at(group, series.x, series.axis, statistic=STATISTIC)
        for x, theirs, value, low, high in zip(series.x, series.y, *ours, strict=True):
            estimate = Estimate(float(value), float(low), float(high))
            rows.append(Comparison(setup.panel, setup.label, x, len(group.histories), estimate, theirs))
    return rows


def _run(figure: Experiment, setup: Setup, seeds: int, overrides: Sequence[str], runs: Path, train: Train) -> Run:
    """The setup's finished run, trained where it is missing."""
    settings = [*setup.overrides, *overrides]
    words = re.sub(r"[^a-z0-9]+", "-", f"{setup.panel} {setup.label}".lower()).strip("-")
    # The directory's name holds what the run depends on: other settings never pass for these.
    directory = runs / f"{words}-{zlib.crc32(repr((figure.preset, settings, seeds)).encode()):08x}"
    if is_run(directory) and (run := load_run(directory)).finished:
        return run
    run = load_run(train(figure.preset, settings, seeds, directory))
    if not run.finished:
        raise FedraxError(f"{run.path} was not finished; run the same command again to continue it")
    return run


def _draw(figure: Experiment, groups: Sequence[Group], reference: Published | None) -> Figure:
    shown: dict[str, dict[str, Series]] = {panel: {} for panel in figure.panels}
    ours: dict[str, list[Group]] = {panel: [] for panel in figure.panels}
    for setup, group in zip(figure.setups, groups, strict=True):
        ours[setup.panel].append(group)
        if reference is not None and setup.published is not None:
            shown[setup.panel][setup.label] = reference[setup.published]
    if len(ours) > 1:
        return panels_figure(ours, published=shown, title=figure.title, statistic=STATISTIC)
    return curves_figure(groups, published=shown[figure.panels[0]], title=figure.title, statistic=STATISTIC)


def _command(figure: Experiment, setup: Setup, seeds: int, overrides: Sequence[str]) -> str:
    return shlex.join(["fedrax", "train", figure.preset, *setup.overrides, *overrides, f"seeds={seeds}"])


HEADINGS = ("panel", "curve", "trajectories per agent", "seeds", "ours", "published", "difference")


def _cells(row: Comparison) -> list[str]:
    signed = MISSING if math.isnan(row.difference) else f"{row.difference:+,.0f}"
    return [row.panel, row.label, number(row.x), str(row.seeds), str(row.ours), number(row.published), signed]


def _without_panel(figure: Experiment, cells: Sequence[str]) -> Sequence[str]:
    return cells if len(figure.panels) > 1 else cells[1:]


def _lead(figure: Experiment, drawn: Figure, rows: Sequence[Comparison], reference: Published | None) -> Markup:
    parts = [figure_html(drawn, "published", figure.title)]
    if rows:
        parts.append(
            table_html(_without_panel(figure, HEADINGS), [_without_panel(figure, _cells(row)) for row in rows])
        )
    notes = [figure.note] if figure.note else []
    if reference is not None:
        notes += [
            f"Published: {reference.source}; {reference.figure}. Read off with an error of about "
            f"{number(reference.read_off_error)}.",
            f"Theirs: {reference.environment_note}",
            f"x: {reference.x_meaning}.",
            f"y: {reference.y_meaning}. Ours is the {STATISTICS[STATISTIC][0]} over seeds as well, with its "
            "95 % bootstrap interval; a dash where a seed has not come so far.",
            *reference.caveats,
        ]
    return joined([*parts, part("notes", notes)])


def _write_csv(path: Path, rows: Sequence[Comparison]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*HEADINGS[:4], "ours", "low", "high", "published", "difference"])
        for row in rows:
            values = (row.ours.value, row.ours.low, row.ours.high, row.published, row.difference)
            known = ["" if math.isnan(value) else f"{value:.6g}" for value in values]
            writer.writerow([row.panel, row.label, f"{row.x:g}", row.seeds, *known])


def _rich_table(figure: Experiment, rows: Sequence[Comparison]) -> Table:
    """Narrow enough for 80 columns: a curve's name stands in its first line only."""
    seeds = "/".join(str(count) for count in sorted({row.seeds for row in rows}))
    table = Table(
        title=f"{figure.title}: return, {STATISTICS[STATISTIC][0]} of {seeds} seeds",
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
    )
    table.add_column("curve")
    for heading in ("trajectories", "ours [95 %]", "published", "difference"):
        table.add_column(heading, justify="right", no_wrap=True)
    previous = ""
    for index, row in enumerate(rows):
        panel, label, x, _, *values = _cells(row)
        name = f"{label}, {panel}" if panel else label
        following = rows[index + 1] if index + 1 < len(rows) else None
        last = following is None or (following.panel, following.label) != (row.panel, row.label)
        table.add_row("" if name == previous else name, x, *values, end_section=last)
        previous = name
    return table
