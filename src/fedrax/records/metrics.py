"""The rows of a run: ``metrics.jsonl`` is the truth, and the table follows it.

So do files in another layout, where one is asked for, and live loggers. A resumed run cuts the rows back to its
checkpoint and makes the others anew from those left, so a run that was killed and resumed has the same records as one
that was not.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Any, BinaryIO, Protocol

from fedrax.errors import FedraxError
from fedrax.records.encoding import plain
from fedrax.records.files import reason, write_all, write_atomic
from fedrax.records.rows import PLACE, Addition, Row, last_rows, read_metrics, seed_of
from fedrax.records.rundir import RunDirectory


class RowFiles(Protocol):
    """Files, or loggers, that follow a run's rows."""

    def rewrite(self, rows: Iterable[Row]) -> None:
        """Makes all of them anew, of these rows."""

    def append(self, rows: Iterable[Row]) -> None:
        """Adds what these rows tell."""

    def amend(self, rows: Sequence[Row], additions: Sequence[Addition]) -> None:
        """Takes in what some of these rows, which are all, have more than when they were given."""

    def sync(self) -> None:
        """Makes what was written survive a power cut."""


class MetricsWriter:
    """Appends rows to ``metrics.jsonl`` and ``metrics.csv``, and hands them to what follows them.

    A row is a mapping from names to numbers, or to lists for what has no single number; it holds ``seed`` and
    ``round`` (from 0). NaN and infinities are written as ``null``.
    """

    def __init__(
        self,
        rundir: RunDirectory,
        resume_round: int | Mapping[int, int] = 0,
        *,
        without: Mapping[int, Collection[str]] = MappingProxyType({}),
        further: Sequence[RowFiles] = (),
    ) -> None:
        """Opens the files of ``rundir``.

        Args:
            rundir: the run.
            resume_round: rounds done at the checkpoint resumed from, by all seeds or by seed; rows of that round and
                later are dropped. 0: the run starts anew.
            without: by seed, names that are dropped from the last row that is kept: what :meth:`finish` added to it.
            further: what follows the rows too: files in another layout, live loggers.

        Raises:
            FedraxError: the files cannot be written, or the rows to keep are damaged.
        """
        self._rundir, self._further = rundir, further
        self._keep(resume_round, without)
        rows = read_metrics(rundir.metrics_jsonl)
        self._kept = f"{len(rows)} rows"
        with self._refusals():
            self._jsonl: BinaryIO = rundir.metrics_jsonl.open("ab", buffering=0)
            self._columns = _columns(rows)
            self._csv = self._rewritten_table(rows, self._columns)
            for each in further:
                each.rewrite(rows)

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends rows; they outlive the process, though not a power cut before the next :meth:`sync`.

        Raises:
            FedraxError: the operating system refused; whole rows up to then are kept, none is torn.
        """
        new: list[Row] = [plain(row) for row in rows]
        if not new:
            return
        with self._refusals():
            append(self._jsonl, _jsonl(new).encode())
            self._kept = f"rows up to round {new[-1].get('round')}"
            columns = _columns(new, self._columns)
            if columns == self._columns:
                append(self._csv, _table(new, columns).encode())
            else:
                everything = read_metrics(self._rundir.metrics_jsonl)
                old, self._csv = self._csv, self._rewritten_table(everything, columns)
                old.close()
                self._columns = columns
            for each in self._further:
                each.append(new)

    def finish(self, evaluations: Mapping[int, Row]) -> None:
        """Adds to each seed's last row what was measured after it, so that no file lacks how the run ended.

        Raises:
            FedraxError: the operating system refused; the rows are as before.
        """
        rows = read_metrics(self._rundir.metrics_jsonl)
        last = last_rows(rows)
        additions = []
        for seed, evaluation in evaluations.items():
            if evaluation and seed in last:
                row = rows[last[seed]]
                rows[last[seed]] = row | plain(evaluation)
                additions.append(Addition({name: row[name] for name in PLACE if name in row} | plain(evaluation)))
        if not additions:
            return
        with self._refusals():
            write_atomic(self._rundir.metrics_jsonl, _jsonl(rows))
            self._release()
            self._jsonl = self._rundir.metrics_jsonl.open("ab", buffering=0)
            self._columns = _columns(rows)
            self._csv = self._rewritten_table(rows, self._columns)
            for each in self._further:
                each.amend(rows, additions)

    def sync(self) -> None:
        """Makes the rows survive a power cut. Call it before saving a checkpoint, which counts on its rows.

        Raises:
            FedraxError: the operating system refused.
        """
        with self._refusals():
            os.fsync(self._jsonl.fileno())
            os.fsync(self._csv.fileno())
            for each in self._further:
                each.sync()

    def close(self) -> None:
        """Syncs and closes the files."""
        try:
            self.sync()
        finally:
            self._release()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            # The error under way says what went wrong; a second one from the same full disk would hide it.
            with contextlib.suppress(FedraxError):
                self.close()

    def _release(self) -> None:
        self._jsonl.close()
        self._csv.close()

    def _keep(self, rounds: int | Mapping[int, int], without: Mapping[int, Collection[str]]) -> None:
        """Cuts ``metrics.jsonl`` back to the rows before ``rounds``, the last of each seed ``without`` these names."""
        path = self._rundir.metrics_jsonl

        def done(row: Row) -> int:
            return rounds if isinstance(rounds, int) else rounds.get(seed_of(row), 0)

        some = rounds > 0 if isinstance(rounds, int) else any(rounds.values())
        rows = read_metrics(path) if some and path.exists() else []
        kept = [row for row in rows if row["round"] < done(row)]
        last = last_rows(kept)
        for seed, names in without.items():
            if seed in last:
                kept[last[seed]] = {name: value for name, value in kept[last[seed]].items() if name not in names}
        write_atomic(path, _jsonl(kept))

    def _rewritten_table(self, rows: list[Row], columns: list[str]) -> BinaryIO:
        """``metrics.csv`` with these rows and columns, open for appending."""
        header = line(columns) if columns else ""
        write_atomic(self._rundir.metrics_csv, header + _table(rows, columns))
        return self._rundir.metrics_csv.open("ab", buffering=0)

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FedraxError(
                f"cannot write the metrics of {self._rundir.path}: {reason(error)}; {self._kept} are kept in "
                f"{self._rundir.metrics_jsonl.name}; free space, then resume the run from its last checkpoint"
            ) from error


def missing_rounds(rundir: RunDirectory, rounds: Mapping[int, int]) -> list[str]:
    """What ``metrics.jsonl`` lacks of the rounds done by each seed, in words: ``"rounds 1 to 5 of seed 0"``.

    Raises:
        FedraxError: a line before the last is damaged.
    """
    rows = read_metrics(rundir.metrics_jsonl) if any(rounds.values()) and rundir.metrics_jsonl.exists() else []
    recorded = {(seed_of(row), row["round"]) for row in rows}
    return [
        f"{gap} of seed {seed}"
        for seed, done in rounds.items()
        for gap in spans(round for round in range(done) if (seed, round) not in recorded)
    ]


def rounds_recorded(rundir: RunDirectory) -> int:
    """The most rounds that ``metrics.jsonl`` has of a seed.

    Raises:
        FedraxError: a line before the last is damaged.
    """
    rows = read_metrics(rundir.metrics_jsonl) if rundir.metrics_jsonl.exists() else []
    return max((row["round"] + 1 for row in rows), default=0)


def spans(rounds: Iterable[int]) -> list[str]:
    """Ascending rounds in words, those in a row together: ``["round 3", "rounds 7 to 9"]`` for 2, 6, 7 and 8.

    Rows count rounds from 0, and what is told of them counts from 1.
    """
    # What stands in a row has the same distance from its position.
    groups = itertools.groupby(enumerate(rounds), lambda pair: pair[1] - pair[0])
    each = [[round for _, round in members] for _, members in groups]
    return [f"round {one[0] + 1}" if len(one) == 1 else f"rounds {one[0] + 1} to {one[-1] + 1}" for one in each]


def _jsonl(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)


def _columns(rows: Iterable[Row], known: Sequence[str] = ()) -> list[str]:
    """All names of ``known``, then those of ``rows``, in order of first appearance."""
    return list(dict.fromkeys([*known, *(name for row in rows for name in row)]))


def _table(rows: Iterable[Row], columns: Sequence[str]) -> str:
    return "".join(line([cell(row.get(name)) for name in columns]) for row in rows)


def line(cells: Sequence[str]) -> str:
    """One line of a table."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def cell(value: Any) -> str:
    """Empty for absent and ``null``; JSON for everything but text, so lists and numbers read back exactly."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def append(file: BinaryIO, data: bytes) -> None:
    """Appends all of ``data`` or, when refused halfway, nothing."""
    end = file.seek(0, os.SEEK_END)
    try:
        write_all(file.fileno(), data)
    except OSError:
        with contextlib.suppress(OSError):
            file.truncate(end)
        raise
