"""What ``fedrax report`` writes: a page with its figure, a figure alone, or the table of results for a paper."""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fedrax.errors import FedraxError
from fedrax.evaluation.measure import said
from fedrax.records.files import check_writable
from fedrax.report.attack_figures import QUALITY, filter_scores
from fedrax.report.cells import DAGGER, STATISTIC, cell, latex, latex_notes, latex_numbers, numbers
from fedrax.report.crossed import crossed, crossed_csv, crossed_latex
from fedrax.report.curves import STATISTICS, natural_axis
from fedrax.report.draws import drawn_apart
from fedrax.report.figures import curves_figure
from fedrax.report.html import write_page
from fedrax.report.notes import lost_records
from fedrax.report.personal import SHARED_BY_ALL, return_of, returns_of
from fedrax.report.runs import Group, difference, group_runs, load_runs, parts_of
from fedrax.report.style import save
from fedrax.report.tables import COSTS, Estimate, alike, estimates, mean_costs, result

logger = logging.getLogger(__name__)

TABLES = {"csv": ".csv", "latex": ".tex"}
"""Formats of a table, with their suffixes."""
FIGURES = ("pdf", "svg", "png")
SUFFIXES = (".html", *TABLES.values(), *(f".{name}" for name in FIGURES))


def suffix_of(out: Path | None, table: str | None, figure: str | None) -> str:
    """The suffix of what is to be written: as asked for, or as the file's name says.

    Raises:
        FedraxError: the name has another suffix, or the two do not agree.
    """
    asked = TABLES[table] if table else f".{figure}" if figure else None
    if out is None:
        return asked or ".html"
    if out.suffix not in SUFFIXES:
        raise FedraxError(
            f"--out {out} is not allowed: a report is written as .html, a table as .csv or .tex, a figure as .pdf, "
            ".svg or .png"
        )
    if asked and out.suffix != asked:
        raise FedraxError(f"--out {out} is not allowed with --{'table' if table else 'figure'}: it must end in {asked}")
    return out.suffix


def write_outputs(
    runs: Sequence[Path],
    suffix: str,
    out: Path | None,
    *,
    title: str = "",
    smoothing: int = 1,
    crossing: tuple[str, str] | None = None,
) -> Iterable[str]:
    """Writes what the suffix says, and yields what to print: notes, and the files; without a file, the table itself.

    Every point of a drawn curve is the mean of a seed's last ``smoothing`` evaluations; tables are of final returns.
    ``crossing`` holds the keys of a table's rows and of its columns (:func:`.crossed.crossed`); unset, each group is a
    row.

    Raises:
        FedraxError: a path is no run, a run's files are damaged, or a file cannot be written.
    """
    groups = group_runs(load_runs(runs))
    for lost in lost_records(groups):
        logger.warning("%s", lost)
    if suffix in TABLES.values():
        if crossing is not None:
            tables = crossed(groups, *crossing)
            text = crossed_csv(tables) if suffix == ".csv" else crossed_latex(tables)
        else:
            text = table_csv(groups) if suffix == ".csv" else table_latex(groups)
        if suffix == ".tex" and (told := drawn_apart(groups)):
            text = f"% {told}\n{text}"
        if out is None:
            yield text.removesuffix("\n")
            return
        check_writable(out)
        out.write_text(text, encoding="utf-8")
        yield str(out)
        return
    path = out or runs[0] / f"report{suffix}"
    if suffix == ".html":
        write_page(groups, path, title=title, smoothing=smoothing)
    yield from filter(None, [difference(groups), drawn_apart(groups)])
    figure = path.with_suffix(".png") if suffix == ".html" else path
    check_writable(figure)
    for place, (_, members) in enumerate(parts_of(groups), start=1):
        # Runs that were evaluated differently have no axis in common.
        file = figure if place == 1 else figure.with_name(f"{figure.stem}-{place}{figure.suffix}")
        save(curves_figure(members, natural_axis(members), title=title, smoothing=smoothing), file)
        yield str(file)
    if suffix == ".html":
        yield str(path)


def table_csv(groups: Sequence[Group]) -> str:
    """Results, costs and what a filter found, as numbers.

    Of groups that were evaluated differently, with what tells them apart.
    """
    name = STATISTICS[STATISTIC][0]
    columns = [f"{which} return{what}" for which in ("final", "best") for what in (f", {name}", ", low", ", high")]
    policies = {group.label: return_of(group) for group in groups}
    told = ["return of"] if any(policies.values()) else []
    rows: list[list[Any]] = [
        ["name", "evaluated with", "seeds", "seeds begun", *columns, "state", *COSTS_IN_TABLE, *QUALITY, *told]
    ]
    for telling, members in parts_of(groups):
        for group in members:
            line = result(group, STATISTIC)
            costs = mean_costs(group)
            rows.append(
                [
                    line.label,
                    said(telling),
                    line.seeds,
                    line.begun,
                    *(cell(value) for each in (line.final, line.best) for value in numbers(each)),
                    "finished" if line.finished else "unfinished",
                    *(cell(costs.get(heading, math.nan)) for heading in COSTS),
                    *(cell(Estimate.of(filter_scores(group, column), "mean").value) for column in QUALITY),
                    *(policies[group.label] or SHARED_BY_ALL for _ in told),
                ]
            )
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


COSTS_IN_TABLE = [
    heading + {"up per agent": ", bytes", "down per agent": ", bytes", "training time": ", s"}.get(heading, "")
    for heading in COSTS
]
"""Costs with their units: numbers of a table have none beside them."""


def table_latex(groups: Sequence[Group]) -> str:
    """Final returns with their intervals as tables of the package booktabs, one for each way of evaluation."""
    name = STATISTICS[STATISTIC][0]
    tables = []
    for telling, members in parts_of(groups):
        lines = [result(group, STATISTIC) for group in members]
        steps = [mean_costs(group).get("steps per agent", math.nan) for group in members]
        cells = zip(lines, estimates([line.final for line in lines]), alike(*steps), strict=True)
        rows = [
            [latex(line.label) + ("" if line.finished else DAGGER), *map(latex_numbers, (line.counted, final, count))]
            for line, final, count in cells
        ]
        head = list(map(latex, ("", "seeds", f"final return, {name} [95 %]", "steps per agent")))
        body = [" & ".join(row) + r" \\" for row in (head, *rows)]
        above = [*([f"% {said(telling)}"] if telling else []), *(f"% {told}" for told in returns_of(members))]
        opening = [*above, r"\begin{tabular}{lrrr}", r"\toprule", body[0], r"\midrule"]
        below = latex_notes(lines, 4, *map(latex, returns_of(members, "")))
        tables.append("\n".join([*opening, *body[1:], r"\bottomrule", *below, r"\end{tabular}", ""]))
    return "\n".join(tables)
