"""Reading run directories, finished or not, and grouping them by configuration."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedrax.errors import FedraxError
from fedrax.evaluation.measure import apart, measure, recorded_code, recorded_engine, why_apart
from fedrax.migration import present_keys
from fedrax.parsing import parsed_toml, text_of
from fedrax.records.encoding import decoded
from fedrax.records.rows import Row, read_by_seed
from fedrax.records.rundir import SWEEP
from fedrax.records.summary import rounds_done, with_evaluation_at_the_end
from fedrax.report.labels import labels_of, run_labels

JOB = re.compile(r"seed-\d+|seeds-\d+-\d+")
"""What a sweep calls the runs of a setup."""
REPETITION = frozenset({"seed", "seeds", "name"})
"""Settings in which repetitions of one experiment may differ."""


@dataclasses.dataclass(frozen=True)
class History:
    """What one seed of a run recorded, in order of rounds."""

    seed: int
    rows: tuple[Row, ...]
    agents: int | None
    """Number of agents of the run, where its configuration says."""

    done: int | None = None
    """Rounds of a finished run, as its summary says."""

    @property
    def missing(self) -> Iterator[int]:
        """Rounds that are not recorded: before the last recorded one, and of a finished run after it as well."""
        recorded = {row["round"] for row in self.rows}
        return (round for round in range(max(self.done or 0, *recorded, 0)) if round not in recorded)


@dataclasses.dataclass(frozen=True)
class Run:
    """A run directory as read: whatever is not written yet is empty."""

    path: Path
    config: dict[str, Any]
    manifest: dict[str, Any]
    summary: dict[str, Any]
    histories: tuple[History, ...]
    setup: str = ""
    """Its setup's name, where it is one of a sweep's runs."""

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.path.name

    @property
    def finished(self) -> bool:
        """Whether the run reached its end: it writes its summary last."""
        return bool(self.summary)

    @property
    def seeds(self) -> list[int]:
        """Its seeds in ascending order; while it has no row, those that its configuration names."""
        if self.histories:
            return [history.seed for history in self.histories]
        first, count = self.config.get("seed", 0), self.config.get("seeds", 1)
        return list(range(first, first + count)) if isinstance(first, int) and isinstance(count, int) else []

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration as ``section.key -> value``, without seeds and names; plugins with their content.

        With who stepped environments outside of JAX as ``environment.engine``.
        """
        found = {key: value for key, value in _flatten(self.config) if key not in REPETITION}
        codes = recorded_code(self.manifest, "plugins")
        # A plugin is the same wherever it lies, and another where it was edited.
        if names := dict.fromkeys(name for code in codes for name in code):
            found["plugins"] = [
                f"{name} {', then '.join(dict.fromkeys(code[name] for code in codes if name in code))}"
                for name in names
            ]
        # What `auto` comes to depends on what is installed.
        if engine := recorded_engine(self.manifest):
            found["environment.engine"] = engine
        return found

    @property
    def measure(self) -> dict[str, str]:
        """What its returns are returns of; runs with equal measures may be compared."""
        return measured(self.config, self.manifest)

    def kind(self, section: str) -> str | None:
        """What the configuration chose in a section (``strategy``, ``environment`` ...), where it says."""
        table = self.config.get(section, {})
        return table.get("kind", table.get("id"))


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs of one configuration: repetitions that differ in their seeds only."""

    label: str
    runs: tuple[Run, ...]

    @property
    def histories(self) -> tuple[History, ...]:
        """One history per seed, sorted by seed."""
        return tuple(history for _, history in self.members)

    @property
    def members(self) -> tuple[tuple[Run, History], ...]:
        """Each of :attr:`histories` with its run.

        A seed that was run twice is one observation, and counting it twice would narrow every interval: the
        longer history stands.
        """
        longest: dict[int, tuple[Run, History]] = {}
        for run in self.runs:
            for history in run.histories:
                known = longest.get(history.seed)
                if known is None or len(history.rows) > len(known[1].rows):
                    longest[history.seed] = (run, history)
        return tuple(longest[seed] for seed in sorted(longest))

    @property
    def seeds(self) -> list[int]:
        """Those that were begun, in ascending order."""
        return sorted({seed for run in self.runs for seed in run.seeds})

    @property
    def repeated(self) -> bool:
        """Whether some seed was run more than once."""
        return sum(len(run.histories) for run in self.runs) > len(self.histories)

    @property
    def finished(self) -> bool:
        """Whether every run reached its end."""
        return all(run.finished for run in self.runs)

    @property
    def measure(self) -> dict[str, str]:
        """That of its runs, which is one."""
        return self.runs[0].measure


def parts_of(groups: Sequence[Group]) -> list[tuple[dict[str, str], list[Group]]]:
    """The groups by what their returns measure, each part with the settings that tell it from the others."""
    return apart((group, group.measure) for group in groups)


def difference(groups: Sequence[Group]) -> str:
    """One sentence that says which runs were evaluated how; empty where all were evaluated alike."""
    parts = parts_of(groups)
    if len(parts) < 2:
        return ""
    return why_apart([(telling, [group.label for group in members]) for telling, members in parts])


def check_one_measure(groups: Sequence[Group]) -> None:
    """Raises :class:`FedraxError` where the groups' returns cannot share an axis."""
    if said := difference(groups):
        raise FedraxError(f"{said} Draw each by itself")


def measured(config: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, str]:
    """What the returns of a run with this configuration and this manifest are returns of.

    Raises:
        FedraxError: an evaluation that there is not.
    """
    personal, kind = False, config.get("strategy", {}).get("kind", "")
    # Only runs of earlier versions do not say whose environments it is in, which followed from whose the policies are.
    if kind and "environments" not in config.get("evaluation", {}):
        from fedrax.strategies.base import strategies

        personal = kind in strategies and strategies[kind].personal and not strategies[kind].needs.pooled
    return measure(config, personal=personal, manifest=manifest)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def is_run(path: Path) -> bool:
    """Whether the directory holds a run: its resolved configuration is written first."""
    return (path / "config.toml").is_file()


def load_run(path: Path | str) -> Run:
    """Reads one run directory.

    Raises:
        FedraxError: the path is no run, nothing was trained in it, or one of its files is damaged other than by a torn
            last line.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise FedraxError(
            f"{path} is no run: it is a file, and a run is a directory that fedrax train wrote; give that, or a folder "
            "of runs"
        )
    if not path.is_dir():
        raise FedraxError(f"{path} is no run: there is no such directory; give a directory that fedrax train wrote")
    if not is_run(path):
        raise FedraxError(f"{path} is no run: it has no config.toml; give a directory that fedrax train wrote")
    try:
        config = present_keys(parsed_toml(text_of(path / "config.toml")))
    except ValueError as error:
        raise FedraxError(f"{path / 'config.toml'} cannot be read: {error}; restore the file or train anew") from None
    manifest = _json_object(path / "manifest.json")
    if manifest.get("imported"):
        raise FedraxError(
            f"{path} holds imported networks, of which there is nothing to report; train from them "
            f"(fedrax train {path / 'config.toml'} learner.initial={path}), or evaluate them (fedrax evaluate {path})"
        )
    agents = config.get("federation", {}).get("agents")
    summary = _json_object(path / "summary.json")
    done = rounds_done(summary)
    histories = {
        seed: History(seed, tuple(with_evaluation_at_the_end(rows, summary)), agents, done.get(seed))
        for seed, rows in read_by_seed(path / "metrics.jsonl").items()
    }
    return Run(
        path=path,
        config=config,
        manifest=manifest,
        summary=summary,
        histories=tuple(histories[seed] for seed in sorted(histories)),
    )


def load_runs(paths: Iterable[Path | str]) -> list[Run]:
    """Reads the runs at these paths; a directory that is no run stands for the runs inside it.

    They may lie directly inside it, or, as a sweep's do, in a folder of each setup. What a sweep wrote
    (``sweep.json``) says which runs are one setup's, also where a setup's folder or one of its runs is given.

    Raises:
        FedraxError: a path is neither, or no path is given.
    """
    found: list[Run] = []
    for path in map(Path, paths):
        setups = _setups(path)
        runs = [load_run(child) for child in _runs_in(path)] or [load_run(path)]
        runs = [dataclasses.replace(run, setup=setups.get(run.path.resolve(), "")) for run in runs]
        order = _order(path)
        found += sorted(runs, key=lambda run: order.index(run.setup) if run.setup in order else len(order))
    if not found:
        raise FedraxError("no run is given; name one or more directories that fedrax train wrote")
    return found


def _runs_in(path: Path) -> list[Path]:
    """The runs that a directory stands for; none where it is a run itself, or holds none."""
    if not path.is_dir() or is_run(path):
        return []
    folders = [child for child in sorted(path.iterdir(), key=_natural) if child.is_dir()]
    return [run for run in folders if is_run(run)] + [
        run for folder in folders if not is_run(folder) for run in sorted(folder.iterdir(), key=_natural) if is_run(run)
    ]


def _natural(path: Path) -> list[tuple[int, str]]:
    """What sorts ``run-9`` before ``run-10``."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if place % 2 else (0, part) for place, part in enumerate(parts)]


def _order(path: Path) -> list[str]:
    """The setups of a sweep in the order of its file; empty elsewhere."""
    try:
        jobs = _json_object(path / SWEEP).get("jobs")
    except FedraxError:  # Damaged: the runs are there all the same, and the sweep writes it anew.
        return []
    return [str(job.get("setup")) for job in jobs if isinstance(job, Mapping)] if isinstance(jobs, list) else []


def _setups(path: Path) -> dict[Path, str]:
    """By resolved directory, the setup of every run of the sweep that the path is, or is in.

    A setup's folder is called after it. Where the sweep's own record is missing, as before the end of one by an earlier
    version, the log beside a run tells that a sweep trains it.
    """
    path = path.resolve()
    if is_run(path):
        inside, recorded = [path], (path.parent, path.parent.parent)
    else:
        inside = _runs_in(path)
        if inside and all(run.parent != path for run in inside):
            return {run: run.parent.name for run in inside}
        recorded = (path, path.parent)
    sweep = next((folder for folder in recorded if (folder / SWEEP).is_file()), None)
    if sweep is None:
        jobs = [run for run in inside if JOB.fullmatch(run.name) and run.with_name(f"{run.name}.log").is_file()]
        return {run: run.parent.name for run in jobs}
    return {run: run.relative_to(sweep).parts[0] for run in _runs_in(sweep)}


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Groups runs by configuration, ignoring seeds, in order of appearance.

    Their labels are those of :func:`fedrax.report.labels.labels_of`.
    """
    members: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        members.setdefault((run.setup, json.dumps(run.settings, sort_keys=True, default=str)), []).append(run)
    groups = list(members.values())
    first = [group[0] for group in groups]
    labels = labels_of([run.settings for run in first], [run.setup for run in first], [run.path for run in first])
    return [Group(label, tuple(group)) for label, group in zip(labels, groups, strict=True)]


def named_runs(groups: Sequence[Group]) -> list[tuple[str, Run]]:
    """Every run with what a report calls it, which is another name for each."""
    runs = [(group.label, run) for group in groups for run in group.runs]
    names = run_labels([(label, run.setup, run.seeds, run.path) for label, run in runs])
    return [(name, run) for name, (_, run) in zip(names, runs, strict=True)]


def _json_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = decoded(path.read_text(encoding="utf-8"))
    except ValueError as error:  # Not JSON, or not text.
        raise FedraxError(
            f"{path} is damaged: {error}; delete it: `fedrax resume` writes a missing summary again"
        ) from None
    return value if isinstance(value, dict) else {}
