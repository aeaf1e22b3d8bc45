"""The Python API: train, resume, load, evaluate. The command line is a thin layer over it.

>>> import fedrax
>>> run = fedrax.train("fedpg-br/cartpole", ["budget.rounds=100"])
>>> run.summary()["final_return"]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fedrax.arguments import OVERRIDES, PLUGINS, flag, instance, path, takes, whole
from fedrax.arguments import source as a_source
from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.records.audits import Record
from fedrax.records.lock import held
from fedrax.records.manifest import read_manifest
from fedrax.records.rundir import RunDirectory, default_directory
from fedrax.records.summary import read_summary
from fedrax.registry import LARGEST
from fedrax.run import Run
from fedrax.runtime.continuation import changed, continued, move_plugins
from fedrax.runtime.library import Programs
from fedrax.runtime.make import make_runtime
from fedrax.runtime.training import send_rest, train_run
from fedrax.signals import orderly
from fedrax.sweeps.board import show_plan
from fedrax.sweeps.checks import checked
from fedrax.sweeps.plan import read_plan
from fedrax.sweeps.runner import Outcome, opened, run_plan
from fedrax.sweeps.search import Searching, is_search
from fedrax.sweeps.tasks import tasks_of

LIBRARY = instance(Programs, "a fedrax.runtime.library.Programs")


@takes(
    source=a_source(),
    overrides=OVERRIDES,
    seeds=whole(1, LARGEST),
    out=path(),
    progress=flag(),
    plugins=PLUGINS,
    library=LIBRARY,
)
def train(
    source: str | Path | Mapping[str, Any] | None,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    seeds: int | None = None,
    out: Path | str | None = None,
    progress: bool = True,
    plugins: Iterable[str] = (),
    library: Programs | None = None,
) -> Run:
    """Trains what a preset, a TOML file or a table describes, or the defaults, under ``key=value`` overrides.

    Args:
        overrides: a list of ``key=value``, or a table of values by key, ``{"learner.discount": 0.9}``.
        seeds: how many seeds to train at once; unset, as configured.
        out: the run directory; it must be empty or not exist. Unset, ``runs/NAME-TIME``.
        progress: show live progress on standard output.
        plugins: files and modules to load, beside those of the configuration.
        library: compiled programs of earlier runs: one that differs in numbers alone compiles nothing.

    Raises:
        FedraxError: one line, before anything is trained, where the configuration cannot run.
    """
    changes = [*overrides, *([] if seeds is None else [f"seeds={seeds}"])]
    plugins = list(plugins)
    config = resolve(source, changes, plugins=plugins)
    directory = Path(out) if out is not None else default_directory(config.name)
    if config.runtime.kind == "flower":
        RunDirectory(directory).check_new()
        return _train_on_nodes(source, changes, directory, progress=progress, plugins=plugins)
    runtime = make_runtime(config, library=library)
    try:
        rundir = RunDirectory.create(directory)
        with held(rundir.path):
            rundir.check_new()
            train_run(config, runtime, rundir, progress=progress)
    finally:
        runtime.close()
    return Run(directory)


def _train_on_nodes(
    source: str | Path | Mapping[str, Any] | None,
    overrides: Iterable[str],
    out: Path,
    *,
    progress: bool,
    plugins: Iterable[str] = (),
) -> Run:
    """A whole federation of processes on this machine: a new run, or the one in ``out`` that goes on."""
    from fedrax.runtime.flower import needed

    needed()
    from fedrax.runtime.flower.local import train_locally
    from fedrax.runtime.flower.serving import prepared

    directory = prepared(source, overrides, out, plugins=plugins)
    with held(directory.path), orderly():
        train_locally(directory, progress=progress)
    return Run(directory.path)


@takes(run=path(), overrides=OVERRIDES, progress=flag(), plugins=PLUGINS, library=LIBRARY)
def resume(
    run: Path | str,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    progress: bool = True,
    plugins: Iterable[str] = (),
    library: Programs | None = None,
) -> Run:
    """Continues a run from its last checkpoint; a finished run is returned as it is.

    Args:
        overrides: ``key=value``, or a table of values by key: what changes from here on. That is the budget, which
            extends a finished run, intervals between evaluations or checkpoints, and other settings that do not make it
            another experiment (:data:`fedrax.runtime.continuation.CHANGEABLE`). The former configuration and summary
            are kept in the manifest's ``history``.
        plugins: where plugins of the run are now that are not where they were, which the run then remembers.
        library: compiled programs of earlier runs, as for :func:`train`.

    Raises:
        FedraxError: one line: another process writes to the run, an override or an edit of its ``config.toml`` would
            make it another experiment, or its checkpoint is another run's.
    """
    directory = RunDirectory.open(Path(run))
    overrides, plugins = list(overrides), list(plugins)
    if directory.manifest.exists() and read_manifest(directory).get("imported"):
        raise FedraxError(
            f"{directory.path} holds imported networks, and no training that could go on; train from them: "
            f"fedrax train {directory.config} learner.initial={directory.path}"
        )
    if directory.summary.exists() and not overrides and not plugins and not changed(directory):
        failed = read_summary(directory).get("failed")
        if progress and failed is None:
            print(f"{directory.path} has finished; to go on, give a larger budget (key=value)", flush=True)
        finished = Run(directory.path)
        send_rest(finished.config, directory, partial(held, directory.path))
        if failed is not None:
            raise FedraxError(str(failed))
        return finished
    with held(directory.path):
        move_plugins(directory, plugins)
        config, change = continued(directory, overrides)
        if change and progress:
            print(change, flush=True)
        if config.runtime.kind != "flower":
            runtime = make_runtime(config, library=library)
            try:
                train_run(config, runtime, directory, progress=progress)
            finally:
                runtime.close()
    if config.runtime.kind == "flower" and not directory.summary.exists():
        return _train_on_nodes(directory.config, [], directory.path, progress=progress)
    return Run(directory.path)


def train_or_resume(
    source: str | Path, overrides: Iterable[str], *, seeds: int, out: Path, progress: bool = True
) -> Run:
    """The finished run in ``out``: trained, resumed or left as it is, whichever is missing."""
    if (Path(out) / "config.toml").is_file():
        return resume(out, progress=progress)
    return train(source, overrides, seeds=seeds, out=out, progress=progress)


@takes(run=path(), plugins=PLUGINS)
def audit(run: Path | str, *, plugins: Iterable[str] = (), **options: Any) -> Record:
    """What attacks on a run's messages come to; ``options`` are those of :meth:`Run.audit`."""
    return Run(run, plugins=plugins).audit(**options)


@takes(file=path(), jobs=whole(1, LARGEST), retry=whole(0, LARGEST), many=flag())
def sweep(file: Path | str, *, jobs: int | None = None, retry: int = 0, many: bool = False) -> Outcome:
    """Runs what is missing of a sweep, or of a search for settings (its file: docs/sweeps.md).

    Args:
        jobs: how many runs at once; unset, as the file says.
        retry: how often a failed run is tried again.
        many: whether there may be more than :data:`fedrax.sweeps.plan.MANY_RUNS` runs.

    Raises:
        FedraxError: one line, before anything is trained, where a setup cannot be run.
    """
    if is_search(file):
        searching = Searching(file, jobs=jobs)
        with opened(searching.out) as session:
            return searching.run(
                lambda plan: run_plan(plan, session=session, retry=retry, check=checked),
                lambda line: print(line, flush=True),
            )
    plan = read_plan(file, jobs=jobs, many=many)
    return run_plan(plan, retry=retry, check=checked)


@takes(file=path(), jobs=whole(1, LARGEST))
def show_sweep(file: Path | str, *, jobs: int | None = None) -> None:
    """Prints what :func:`sweep` would run."""
    plan = Searching(file, jobs=jobs).plan() if is_search(file) else read_plan(file, jobs=jobs, many=True)
    plan = checked(plan)
    show_plan(plan, tasks_of(plan))


@takes(path=path(), plugins=PLUGINS)
def load(path: Path | str, *, plugins: Iterable[str] = ()) -> Run:
    """An existing run; ``plugins`` says where those of its plugins are that were moved."""
    return Run(path, plugins=plugins)
