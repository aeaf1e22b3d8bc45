"""Final returns with the values of some settings as rows and those of others as columns, as papers print them."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
from collections.abc import Iterable, Sequence

from fedrax.errors import SOME, FedraxError, near, shown
from fedrax.evaluation.measure import said
from fedrax.other_names import keys_called
from fedrax.report.cells import DAGGER, STATISTIC, cell, latex, latex_notes, latex_numbers, numbers
from fedrax.report.curves import STATISTICS
from fedrax.report.labels import telling_keys
from fedrax.report.personal import return_of
from fedrax.report.runs import REPETITION, Group, parts_of
from fedrax.report.tables import MISSING, Result, estimates, result

Values = tuple[str, ...]
"""Of the keys of a row, or of a column."""
Places = dict[str, tuple[Values, Values]]
"""By a group's label, its row and its column."""
Parts = Sequence[tuple[dict[str, str], list[Group]]]
"""Groups by what they were evaluated with."""


@dataclasses.dataclass(frozen=True)
class Crossing:
    """Results by row and column."""

    rows: tuple[str, ...]
    """Keys of settings, as are ``columns``."""
    columns: tuple[str, ...]
    results: dict[tuple[Values, Values], Result]
    """In the order of the groups."""
    measures: dict[Values, tuple[str, ...]]
    """How what is in each row was evaluated, as far as that tells results apart, and what its return is the mean of
    where agents keep their own policies; nothing where all were alike and policies are shared."""

    @property
    def heads(self) -> tuple[list[Values], list[Values]]:
        """The values of every row and those of every column, in order of appearance."""
        return list(dict.fromkeys(row for row, _ in self.results)), list(dict.fromkeys(col for _, col in self.results))


def crossed(groups: Sequence[Group], rows: str, columns: str) -> list[Crossing]:
    """The results of groups by two keys of their settings, or several with commas between them.

    They are one table where every row or every column was evaluated alike, else one for each way of evaluation.

    Raises:
        FedraxError: no such setting, one of rows and of columns too, or a cell with several groups.
    """
    by, across = _keys("rows", rows, groups), _keys("columns", columns, groups)
    if both := set(by) & set(across):
        raise FedraxError(f"--rows and --columns both have {sorted(both)[0]}: give it to one of them")
    places = {group.label: (_values(group, by), _values(group, across)) for group in groups}
    cells: dict[tuple[Values, Values], list[Group]] = {}
    for group in groups:
        cells.setdefault(places[group.label], []).append(group)
    for place, members in cells.items():
        if len(members) > 1:
            raise _shared(by, across, place, members)
    parts = parts_of(groups)
    whole = any(_is_of_one_measure(parts, places, axis) for axis in (0, 1))
    tables = [parts] if whole else [[one] for one in parts]
    return [_crossing(by, across, places, table) for table in tables]


def _crossing(by: tuple[str, ...], across: tuple[str, ...], places: Places, parts: Parts) -> Crossing:
    measures: dict[Values, tuple[str, ...]] = {}
    for telling, members in parts:
        for group in members:
            row, _ = places[group.label]
            own = (f"{group.runs[0].kind('strategy')}: {told}" for told in [return_of(group)] if told)
            measures[row] = tuple(dict.fromkeys((*measures.get(row, ()), *filter(None, [said(telling)]), *own)))
    there = {group.label: group for _, members in parts for group in members}
    # In the order of all groups, whichever part each is of.
    results = {place: result(there[label], STATISTIC) for label, place in places.items() if label in there}
    return Crossing(by, across, results, measures)


def crossed_csv(tables: Sequence[Crossing]) -> str:
    """A line for each row, with six columns of numbers for each column."""
    name = STATISTICS[STATISTIC][0]
    what = (name, "low", "high", "seeds", "seeds begun", "state")
    across = list(dict.fromkeys(column for table in tables for column in table.heads[1]))
    heads = [f"{', '.join(column)}, {each}" for column, each in itertools.product(across, what)]
    lines = [[*tables[0].rows, "evaluated with", *heads]]
    for table in tables:
        for row in table.heads[0]:
            there = [table.results.get((row, column)) for column in across]
            cells = [text for one in there for text in (_csv_cells(one) if one else [""] * len(what))]
            lines.append([*row, "; ".join(table.measures[row]), *cells])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def crossed_latex(tables: Sequence[Crossing]) -> str:
    """Tables of the package booktabs; a cell is a final return with its interval, as in the table without columns."""
    return "\n".join(map(_latex, tables))


def _latex(table: Crossing) -> str:
    by, across = table.heads
    width = len(table.rows) + len(across)
    # All numbers of a column have as many digits, as far as there are any.
    texts: dict[tuple[Values, Values], str] = {}
    for column in across:
        there = [place for place in table.results if place[1] == column]
        final = estimates([table.results[place].final for place in there])
        for place, text in zip(there, final, strict=True):
            texts[place] = latex_numbers(text) + ("" if table.results[place].finished else DAGGER)
    body = [
        " & ".join([*map(latex, row), *(texts.get((row, column), latex(MISSING)) for column in across)]) + r" \\"
        for row in by
    ]
    over = rf"\multicolumn{{{len(across)}}}{{c}}{{{latex(', '.join(table.columns))}}}"
    above = " & ".join([*[""] * len(table.rows), over])
    head = " & ".join([*map(latex, table.rows), *(latex(", ".join(column)) for column in across)])
    results = list(table.results.values())
    what = latex(f"final return, {STATISTICS[STATISTIC][0]} [95 %] of {_seeds(results)}")
    return "\n".join(
        [
            *(f"% {measure}" for measure in dict.fromkeys(itertools.chain(*table.measures.values()))),
            rf"\begin{{tabular}}{{{'l' * len(table.rows)}{'r' * len(across)}}}",
            r"\toprule",
            rf"{above} \\",
            rf"\cmidrule(lr){{{len(table.rows) + 1}-{width}}}",
            rf"{head} \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            *latex_notes(results, width, what),
            r"\end{tabular}",
            "",
        ]
    )


def _csv_cells(one: Result) -> list[str]:
    state = "finished" if one.finished else "unfinished"
    return [*map(cell, numbers(one.final)), str(one.seeds), str(one.begun), state]


def _seeds(results: Sequence[Result]) -> str:
    """``5 seeds``, or ``1 to 5 seeds`` where cells have different numbers."""
    counts = sorted({one.seeds for one in results})
    number = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    return f"{number} seed{'s' * (counts[-1] != 1)}"


def _keys(option: str, given: str, groups: Sequence[Group]) -> tuple[str, ...]:
    """The keys of an argument; a component's table stands for its name, as on the command line."""
    known = dict.fromkeys(key for group in groups for key in group.runs[0].settings)
    found = []
    for word in map(str.strip, given.split(",")):
        key = next((key for key in (word, f"{word}.kind", f"{word}.id") if key in known), None)
        if key is None:
            raise _no_setting(option, word, known, telling_keys([group.runs[0].settings for group in groups]))
        if key in found:
            raise FedraxError(f"--{option} {shown(given)} is not allowed: it has {key} twice")
        found.append(key)
    return tuple(found)


def _no_setting(option: str, word: str, known: Iterable[str], telling: Sequence[str]) -> FedraxError:
    """The error for what is no setting of these runs, ``known``; ``telling`` are those in which they differ."""
    differ = f"these setups differ in {', '.join(telling[:SOME])}" if telling else "these runs are all of one setup"
    if word in REPETITION:
        return FedraxError(
            f"--{option} {word} is not allowed: the runs of one setup are one result, over all of its seeds; give a "
            f"setting: {differ}"
        )
    meant = [key for key in keys_called(word.rpartition(".")[2]) if key in known]
    if not (meant := meant or near(word, known)):
        return FedraxError(f"unknown setting in --{option} {shown(word)}: {differ}")
    return FedraxError(
        f"unknown setting in --{option} {shown(word)} (did you mean {' or '.join(map(repr, meant[:SOME]))}?); {differ}"
    )


def _values(group: Group, keys: Sequence[str]) -> Values:
    """A dash for an option of another component than the group's."""
    settings = group.runs[0].settings
    return tuple(str(settings[key]) if key in settings else MISSING for key in keys)


def _is_of_one_measure(parts: Parts, places: Places, axis: int) -> bool:
    """Whether each row (axis 0), or each column (1), was evaluated in one way."""
    ways = [{places[group.label][axis] for group in members} for _, members in parts]
    return sum(map(len, ways)) == len(set().union(*ways))


def _shared(
    rows: Sequence[str], columns: Sequence[str], place: tuple[Values, Values], members: Sequence[Group]
) -> FedraxError:
    """The error for several groups in one cell: which, and by what they differ."""
    where = ", ".join(f"{key} = {value}" for key, value in zip((*rows, *columns), sum(place, ()), strict=True))
    names = ", ".join(group.label for group in members[:3]) + (" ..." if len(members) > 3 else "")
    keys = telling_keys([group.runs[0].settings for group in members])
    if not keys:
        return FedraxError(
            f"{len(members)} setups are of the cell {where} ({names}), with the same settings: give the folders of "
            "those that you want"
        )
    return FedraxError(
        f"{len(members)} setups are of the cell {where} ({names}), which differ in {', '.join(keys)}: add that to one "
        f"side, as --rows {','.join([*rows, keys[0]])}, or give the folders of those that you want"
    )
