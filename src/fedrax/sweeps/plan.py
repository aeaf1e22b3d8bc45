"""From a sweep's file to its jobs: every setup resolved, so that a mistake in the last one shows at once."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedrax import names
from fedrax.config import Config, parse_override, presets, resolve
from fedrax.errors import FedraxError, shown, unknown
from fedrax.evaluation.measure import apart, measure, why_apart
from fedrax.kinds import DEFAULT_KINDS
from fedrax.other_names import keys_called
from fedrax.parsing import is_deep, parsed_json, parsed_toml, text_of
from fedrax.plugins import located_in
from fedrax.records.files import reason
from fedrax.registry import LARGEST
from fedrax.sweeps.flags import translate
from fedrax.sweeps.grouping import MOST_SEEDS, folder_of, grouped, most_together
from fedrax.sweeps.names import check_name

REFERENCE_PRESET = "fedppo/simple-crossing"
"""What the reference's experiment files change, as they name no preset."""

KEYS = ("preset", "seeds", "seeds_per_run", "out", "jobs", "cores_per_job", "set", "setups", "grid")
REFERENCE_KEYS = ("preset", "num_runs", "seeds_per_run", "out", "jobs", "cores_per_job", "setups")

MANY_RUNS, MOST_RUNS = 1000, 100_000
"""More runs than the first are asked about, and than the second refused, before any is made."""


@dataclasses.dataclass(frozen=True)
class Setup:
    """One configuration of a sweep, but for the seed."""

    name: str
    preset: str | None
    """None: the defaults."""
    overrides: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of a sweep: a setup with one seed, or with several that train together."""

    setup: Setup
    seeds: tuple[int, ...]
    """They follow one another."""
    config: Config
    directory: Path
    grown: tuple[str, ...] = ()
    """``key=value``, by which a run that an earlier stage of a search finished is extended."""

    @property
    def name(self) -> str:
        """What lines and tables call it."""
        first, last = self.seeds[0], self.seeds[-1]
        return f"{self.setup.name} {f'seed {first}' if first == last else f'seeds {first} to {last}'}"

    @property
    def log(self) -> Path:
        """What its processes print."""
        return self.directory.with_name(f"{self.directory.name}.log")

    @property
    def overrides(self) -> tuple[str, ...]:
        """The setup's, and the seeds."""
        return (*self.setup.overrides, f"seeds={len(self.seeds)}", f"seed={self.seeds[0]}")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a sweep's file asks for."""

    file: Path
    out: Path
    at_once: int
    """Jobs at once."""
    cores_per_job: int
    jobs: tuple[Job, ...]
    """Every setup's first run before any second one, so that every setup has a first result early."""
    notes: tuple[str, ...]
    """What the user should know before it starts, a line each."""
    wanted_at_once: int
    """Jobs at once, had it enough."""

    @property
    def setups(self) -> tuple[Setup, ...]:
        """The setups in the file's order."""
        return tuple(dict.fromkeys(job.setup for job in self.jobs))


def cores() -> list[int]:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def read_plan(file: Path | str, *, jobs: int | None = None, many: bool = False) -> Plan:
    """The plan in a TOML file, or in a JSON file of the reference; ``jobs`` replaces the file's.

    Args:
        many: whether there may be more than :data:`MANY_RUNS`.

    Raises:
        FedraxError: one line that names the file, and the setup where one is at fault; or so many runs.
    """
    file = Path(file)
    table = read_table(file)
    try:
        return plan_of(file, table, jobs, many=many)
    except FedraxError as error:
        raise FedraxError(f"{file}: {error}") from None


def read_table(file: Path) -> dict[str, Any]:
    """The table of a file.

    Raises:
        FedraxError: it cannot be read, or is none.
    """
    try:
        text = text_of(file)
        table = parsed_json(text) if file.suffix == ".json" else parsed_toml(text)
        if is_deep(table):
            raise ValueError("it is nested too deeply")
    except OSError as error:
        raise FedraxError(f"cannot read the sweep {file}: {reason(error)}; give a TOML or a JSON file") from None
    except ValueError as error:
        raise FedraxError(f"{file} is not valid {'JSON' if file.suffix == '.json' else 'TOML'}: {error}") from None
    if not isinstance(table, dict):
        raise FedraxError(f"{file} is not a sweep: it must hold num_runs and setups")
    return table


def plan_of(file: Path, table: Mapping[str, Any], jobs: int | None, *, many: bool, grown: tuple[str, ...] = ()) -> Plan:
    """The plan of a table, read from ``file``; ``grown`` is what its runs are extended by (:attr:`Job.grown`).

    Raises:
        FedraxError: one line, as for :func:`read_plan`, without the file's name.
    """
    reference = file.suffix == ".json"
    allowed = REFERENCE_KEYS if reference else KEYS
    for key in table:
        if key not in allowed:
            raise _unknown_key(key, allowed)
    setups = _table(table, "setups")
    # A grid alone is of the preset as it is.
    if not setups and (reference or not table.get("grid")):
        raise FedraxError(
            'no setups: give {"num_runs": 5, "setups": {"NAME": {FLAG: VALUE}}}'
            if reference
            else "no setups: add a table [setups.NAME] for each, empty for the preset as it is, or a [grid]"
        )
    out = table.get("out", str(Path("runs") / "sweeps" / file.stem))
    if not isinstance(out, str) or not out:
        raise FedraxError(f"out = {shown(out)} is not allowed: give the path of a directory")
    notes: tuple[str, ...] = ()
    if reference:
        count = _count(table, "num_runs", 1)
        _check_runs(len(setups), count, many)
        seeds: Sequence[int] = range(1, count + 1)  # The reference counts from 1.
        named, notes = _reference_setups(file, table, setups)
    else:
        seeds = _seeds(table.get("seeds", 1))
        points = math.prod(len(values) for _, values in _axes(_table(table, "grid")))
        _check_runs(max(len(setups), 1) * points, len(seeds), many)
        named = _setups(file, table, setups)
    for setup in named:
        check_name(setup.name, Path(out))
    per_job = min(_count(table, "cores_per_job", 1), len(cores()))
    at_once = _count(table if jobs is None else {"jobs": jobs}, "jobs", max(1, len(cores()) // per_job))
    configs = {setup: _resolved(setup) for setup in named}
    parts = apart(
        # A resolved configuration says where it is evaluated, whoever's the policies are.
        (setup.name, measure(config.model_dump(mode="json"), personal=False))
        for setup, config in configs.items()
    )
    if len(parts) > 1:
        notes = (*notes, why_apart(parts))
    wanted = _count(table, "seeds_per_run", MOST_SEEDS)
    planned = _jobs(configs, seeds, Path(out), wanted, at_once)
    planned = tuple(dataclasses.replace(job, grown=grown) for job in planned)
    if larger := [job for job in planned if len(job.seeds) > wanted]:
        notes = (*notes, _kept(wanted, larger))
    return Plan(file, Path(out), min(at_once, len(planned)), per_job, planned, notes, at_once)


def _unknown_key(key: str, allowed: Sequence[str]) -> FedraxError:
    """The error for a key that a sweep's file lacks, and a run's configuration or another library may have."""
    meant = [each for each in keys_called(key) if each in allowed]
    if meant:
        return FedraxError(f"unknown key {shown(key)} (did you mean {meant[0]!r}?)")
    if key in {*DEFAULT_KINDS, *(each.partition(".")[0] for each in names.plain_keys())}:
        return FedraxError(
            f"{key} is a setting of runs, not of their sweep: set it in the table [set], for all setups, or in a "
            "[setups.NAME]"
        )
    return unknown("key", key, allowed)


def _jobs(
    configs: Mapping[Setup, Config], seeds: Sequence[int], out: Path, wanted: int, at_once: int
) -> tuple[Job, ...]:
    """Every setup's first run, then every setup's second, and so on."""
    # Where there are fewer setups than runs at once, some seeds train beside others.
    parts = math.ceil(at_once / len(configs))
    by_setup, known = [], dict[str, int]()
    for setup, config in configs.items():
        together = min(
            wanted, most_together(config, at_once=at_once, known=known) if wanted > 1 and len(seeds) > 1 else 1
        )
        runs = grouped(seeds, out / setup.name, together=together, parts=parts)
        by_setup.append([_job(setup, config, run, out) for run in runs])
    return tuple(job for turn in itertools.zip_longest(*by_setup) for job in turn if job is not None)


def _kept(wanted: int, larger: Sequence[Job]) -> str:
    """That runs of an earlier start train more seeds together than the file says now."""
    first, more = larger[0].directory, f" and {len(larger) - 1} others" if len(larger) > 1 else ""
    return (
        f"seeds_per_run = {wanted} is not applied to what was begun with more seeds in a run ({first}{more}): that "
        "goes on as it is; move it away, or give the sweep another out, to train its seeds apart"
    )


def _job(setup: Setup, config: Config, seeds: tuple[int, ...], out: Path) -> Job:
    config = config.model_copy(update={"seed": seeds[0], "seeds": len(seeds)})
    return Job(setup, seeds, config, out / setup.name / folder_of(seeds))


def _setups(file: Path, table: Mapping[str, Any], setups: Mapping[str, Any]) -> list[Setup]:
    common = _overrides("set", table.get("set", {}))
    grid = _grid(_table(table, "grid"))
    found: list[Setup] = []
    for name, values in (setups or {"": {}}).items():
        own = dict(_table({f"setups.{name}": values}, f"setups.{name}"))
        preset, listed = own.pop("preset", table.get("preset")), own.pop("set", [])
        overrides = [*common, *_flat(own), *_overrides(f"setups.{name}.set", listed)]
        for point in grid:
            texts = (re.sub(r"[^A-Za-z0-9_.+=-]+", "-", text) for text in point)
            called = ",".join((*([name] if setups else []), *texts))
            found.append(_setup(file, called, preset, [*overrides, *point], [one.name for one in found]))
    return found


def _reference_setups(
    file: Path, table: Mapping[str, Any], setups: Mapping[str, Any]
) -> tuple[list[Setup], tuple[str, ...]]:
    found: list[Setup] = []
    skipped: set[str] = set()
    for name in setups:
        try:
            overrides, without = translate(_table(setups, name), file.parent)
        except FedraxError as error:
            raise FedraxError(f"setup {name!r}: {error}") from None
        skipped |= without
        preset = table.get("preset", REFERENCE_PRESET)
        texts = [override(key, value) for key, value in overrides.items()]
        found.append(_setup(file, name, preset, texts, [one.name for one in found]))
    note = f"{file}: flags without an equivalent are skipped: {', '.join(sorted(skipped))}"
    return found, (note,) if skipped else ()


def _setup(file: Path, name: str, preset: Any, overrides: list[str], taken: list[str]) -> Setup:
    same = next((one for one in taken if one.lower() == name.lower()), None)
    if same is not None:
        both = f"{name!r}" if same == name else f"{same!r} and {name!r}, which some file systems take for one folder"
        raise FedraxError(
            f"two setups are called {both}: give names, or values of the grid, that differ in letters, digits or _.+=-"
        )
    for text in overrides:
        clash = {"seed", "seeds"} & parse_override(text).keys()
        if clash:
            raise FedraxError(f"setup {name!r} sets {clash.pop()}: a sweep's seeds are those at the top of its file")
    source = None
    if preset is not None:
        beside = file.parent / str(preset)
        source = str(beside) if preset not in presets() and beside.is_file() else str(preset)
    return Setup(name, source, tuple(_located(text, file.parent) for text in overrides))


def _located(text: str, folder: Path) -> str:
    """The override with the plugins that it names beside the sweep's file, as any process finds them."""
    before = parse_override(text)
    after = located_in(before, folder)
    return text if after == before else "".join(override(key, value) for key, value in after.items())


def _resolved(setup: Setup) -> Config:
    try:
        return resolve(setup.preset, [*setup.overrides, "seeds=1"])
    except FedraxError as error:
        raise FedraxError(f"setup {setup.name!r}: {error}") from None


def _grid(table: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Every combination, as overrides; one empty combination without a grid."""
    return list(itertools.product(*([override(key, value) for value in values] for key, values in _axes(table))))


def _axes(table: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """Each key of a grid with its values."""
    for key, values in _leaves(table):
        if not isinstance(values, list) or not values:
            raise FedraxError(f"grid.{key} = {shown(values)} is not allowed: give a list of values")
        yield key, values


def _check_runs(setups: int, seeds: int, many: bool) -> None:
    runs = setups * seeds
    if runs > MOST_RUNS:
        raise FedraxError(f"{setups} setups with {seeds} seeds each are {runs} runs; at most {MOST_RUNS} are allowed")
    if runs > MANY_RUNS and not many:
        raise FedraxError(
            f"{setups} setups with {seeds} seeds each are {runs} runs, more than {MANY_RUNS}; give fewer, or --yes to "
            "train them all (fedrax sweep --dry-run lists them)"
        )


def _overrides(where: str, value: Any) -> list[str]:
    """What ``set`` holds: a table, or ``key=value`` texts."""
    if isinstance(value, Mapping):
        return _flat(value)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise FedraxError(f'{where} = {shown(value)} is not allowed: give a table or a list of "key=value"')
    return value


def _flat(table: Mapping[str, Any]) -> list[str]:
    return [override(key, value) for key, value in _leaves(table)]


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def override(key: str, value: Any) -> str:
    """``key=value`` as on the command line; quoted where the bare text would read as something else."""
    bare = isinstance(value, str) and parse_override(f"key={value}") == {"key": value}
    return f"{key}={value if bare else _toml(value)}"


def _toml(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, (bool, str)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{json.dumps(key)} = {_toml(item)}' for key, item in value.items())}}}"
    return str(value)


def _seeds(value: Any) -> Sequence[int]:
    if isinstance(value, list):
        whole = all(isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed <= LARGEST for seed in value)
        if not value or not whole or len(set(value)) < len(value):
            raise FedraxError(f"seeds = {shown(value)} is not allowed: give different numbers from 0 to {LARGEST}")
        return value
    return range(_count({"seeds": value}, "seeds", 1))


def _count(table: Mapping[str, Any], key: str, default: int) -> int:
    value = table.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise FedraxError(f"{key} = {shown(value)} is not allowed: give a whole number from 1")
    return value


def _table(table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        raise FedraxError(f"{key} = {shown(value)} is not allowed: it is a table")
    return value
