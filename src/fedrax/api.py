"""The Python API: train, resume, load, evaluate. The command line is a thin layer over it.

>>> import fedrax
>>> run = fedrax.train("fedpg-br/cartpole", ["budget.rounds=100"])
>>> run.summary()["final_return"]
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
from jaxtyping import PyTree

from fedrax import run_views
from fedrax.acting import Chosen, TrainedPolicy, choose
from fedrax.audit.auditing import audit_run
from fedrax.audit.base import Effort
from fedrax.config import Config, resolve
from fedrax.errors import FedraxError
from fedrax.evaluation.measure import Environments
from fedrax.records.audits import Record
from fedrax.records.checkpoint import load_checkpoint, load_policy
from fedrax.records.lock import held
from fedrax.records.manifest import read_manifest
from fedrax.records.rows import read_metrics
from fedrax.records.rundir import RunDirectory, default_directory
from fedrax.records.summary import read_summary
from fedrax.runtime.continuation import accepting, changed, configuration, continued, move_plugins, warn_of_edits
from fedrax.runtime.library import Programs
from fedrax.runtime.make import make_runtime
from fedrax.runtime.pairs import Evaluation
from fedrax.runtime.training import send_rest, train_run
from fedrax.signals import orderly
from fedrax.sweep.board import show_plan
from fedrax.sweep.checks import checked
from fedrax.sweep.plan import read_plan
from fedrax.sweep.runner import Outcome, opened, run_plan
from fedrax.sweep.search import Searching, is_search
from fedrax.sweep.tasks import tasks_of

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

Which = Literal["last", "best"] | int
"""Which policy of a run: the last one, that of the best evaluation, or that after so many rounds, where it was kept."""


class Run:
    """A run directory: what was configured, what was measured, and the policy that came of it."""

    def __init__(self, path: Path | str, *, plugins: Iterable[str] = ()) -> None:
        """Args:
        path: of the directory.
        plugins: where plugins of the run are that are not where they were, and others to load.
        """
        self.directory = RunDirectory.open(Path(path))
        self.path = self.directory.path
        self.config: Config = configuration(self.directory, plugins=plugins)
        warn_of_edits(self.directory, self.config)

    def summary(self) -> dict[str, Any]:
        """The totals of a finished run."""
        return read_summary(self.directory)

    def metrics(self) -> list[dict[str, Any]]:
        """One row per seed and round."""
        return read_metrics(self.directory.metrics_jsonl)

    def frame(self) -> pandas.DataFrame:
        """:meth:`metrics` as a pandas frame: a row per seed and round, a column for each that any row has.

        Raises:
            FedraxError: pandas is not installed.
        """
        return run_views.frame_of(self.metrics())

    def figure(self, x: str | None = None, *, value: str = "return", smoothing: int = 1, title: str = "") -> Figure:
        """The learning curve, as reports draw it: a matplotlib figure.

        Args:
            x: what the curve is drawn over, a key of :data:`fedrax.report.curves.AXES`; unset, as in reports.
            value: a column of :meth:`metrics`.
            smoothing: evaluations of a seed that each point is the mean of.
            title: above it.

        Raises:
            FedraxError: an axis that there is not.
        """
        return run_views.figure_of([self.path], x=x, value=value, smoothing=smoothing, title=title)

    def __repr__(self) -> str:
        return run_views.line(self.config, self.path, self._totals())

    def _repr_html_(self) -> str:
        """What a notebook shows: the run in a table, and its curve where there is one."""
        shown = run_views.table(self.config, self.path, self._totals())
        # Imported networks, and runs before their first evaluation, have none.
        drawn = any(row.get("return") is not None for row in self.metrics()) if self._trained else False
        return shown + (run_views.picture(self.figure()) if drawn else "")

    @property
    def _trained(self) -> bool:
        return self.directory.metrics_jsonl.is_file()

    def _totals(self) -> dict[str, Any] | None:
        """The summary; None where the run is not finished."""
        return self.summary() if self.directory.summary.is_file() else None

    def policies(self, which: Which = "last") -> dict[int, PyTree]:
        """The policy of every seed, by seed.

        Raises:
            FedraxError: there is none, or it was not kept.
        """
        runtime = make_runtime(self.config)
        if self.config.runtime.kind == "flower" and runtime.federation.personal:
            raise FedraxError(f"the policies of {self.path} are their agents' own, and are on the nodes")
        try:
            state = runtime.shapes()
            template = state.best
            path = self._policy_file(which)
            try:
                stacked = load_policy(path, template)
            except FedraxError as error:
                if isinstance(which, int):
                    raise
                # A policy is part of every checkpoint too.
                restored = load_checkpoint(self.directory.checkpoints, state, accepting(self.config))
                if restored is None:
                    raise
                logger.warning("%s; that of the last checkpoint is taken", error)
                stacked = runtime.outputs(restored[0]) if which == "last" else restored[0].best
        finally:
            runtime.close()
        return {
            seed: jax.tree.map(lambda x, i=index: x[i], stacked) for index, seed in enumerate(self.config.all_seeds)
        }

    def chosen(self, which: Which = "last", *, seed: int | None = None, agent: int | None = None) -> Chosen:
        """One seed's policy, and one agent's where each has its own: its networks, and what they see and do.

        Raises:
            FedraxError: as :func:`fedrax.acting.choose`.
        """
        path = self._policy_file(which)
        return choose(self.config, self.directory, path, seed=seed, agent=agent, otherwise=lambda: self.policies(which))

    def policy(
        self,
        *,
        seed: int | None = None,
        agent: int | None = None,
        best: bool = False,
        rounds: int | None = None,
        deterministic: bool | None = None,
        random_seed: int = 0,
    ) -> TrainedPolicy:
        """A policy that acts: ``run.policy()(observation)`` is an action of the environment, in NumPy.

        The environment's package need not be installed.

        Args:
            seed: of the run's, unset the first.
            agent: whose policy; needed where each agent has its own. Where agents have different tasks, the policy is
                given the observations of this agent's.
            best: that of the best evaluation, and not the last.
            rounds: that after so many rounds, where it was kept.
            deterministic: whether actions are the most likely ones; else they are drawn. Unset, as the run was
                evaluated (``evaluation.greedy``).
            random_seed: of what is drawn.

        Raises:
            FedraxError: one line: no such seed or agent, no policy, one per agent and no agent named, or a random seed
                that is none.
        """
        if best and rounds is not None:
            raise FedraxError(f"best=True and rounds={rounds} are two policies; give one of them")
        chosen = self.chosen("best" if best else "last" if rounds is None else rounds, seed=seed, agent=agent)
        return TrainedPolicy(
            self.config,
            chosen,
            task=None if agent is None or chosen.mixture is None else agent % len(chosen.mixture.ids),
            deterministic=deterministic,
            random_seed=random_seed,
        )

    def _policy_file(self, which: Which) -> Path:
        """Where a policy is."""
        if not isinstance(which, int):
            return self.directory.policy if which == "last" else self.directory.best_policy
        path, kept = self.directory.kept_policy(which), self.directory.kept_rounds()
        if not path.is_file():
            raise FedraxError(
                f"{self.path} holds no policy after {which} rounds"
                + (f"; kept are those after {', '.join(map(str, kept))}" if kept else "")
                + "; train with checkpoint.keep_policies=true, which keeps that of every checkpoint"
            )
        return path

    def evaluate(
        self,
        *,
        episodes: int = 100,
        policy: Which = "last",
        evaluation_seed: int | None = None,
        environments: Environments | None = None,
    ) -> dict[int, Evaluation]:
        """Episodes of every seed's policy, by seed, all on the same initial states.

        Args:
            episodes: of each policy, spread over the environments it is in.
            policy: which one.
            evaluation_seed: of the initial states; unset, the run's.
            environments: ``all``, ``own`` or ``registered``; unset, as the run was evaluated.
        """
        config = self.config
        if environments is not None:
            evaluation = config.evaluation.model_copy(update={"environments": environments})
            config = config.model_copy(update={"evaluation": evaluation})
        seed = config.evaluation.seed if evaluation_seed is None else evaluation_seed
        runtime = make_runtime(config)
        try:
            return {
                index: runtime.evaluate(params, episodes=episodes, seed=seed, position=position)
                for position, (index, params) in enumerate(self.policies(policy).items())
            }
        finally:
            runtime.close()

    def evaluate_across(
        self,
        *,
        episodes: int = 100,
        policy: Which = "last",
        evaluation_seed: int | None = None,
        unseen: int = 0,
    ) -> dict[int, Evaluation]:
        """Every agent's policy in every agent's environment, or in so many ``unseen`` ones, by seed.

        Raises:
            FedraxError: the agents' environments do not differ, or nothing can be drawn anew.
        """
        seed = self.config.evaluation.seed if evaluation_seed is None else evaluation_seed
        runtime = make_runtime(self.config)
        try:
            return {
                index: runtime.evaluate_across(params, episodes=episodes, seed=seed, position=position, unseen=unseen)
                for position, (index, params) in enumerate(self.policies(policy).items())
            }
        finally:
            runtime.close()

    def audit(
        self,
        *,
        attacks: Iterable[str] = (),
        effort: Effort | None = None,
        seed: int = 0,
        against: bool = False,
        progress: bool = False,
    ) -> Record:
        """What attacks on the run's messages come to, as of its last checkpoint; written to its ``audit.json``.

        Args:
            attacks: ids, ``A1`` to ``A7`` (docs/audit.md); none: all.
            effort: of the attacker; unset, such as takes a minute or two where networks are small.
            seed: of all that is drawn.
            against: also under other protections in place of the run's.
            progress: whether to say what is attacked.

        Raises:
            FedraxError: an attack that does not exist, or networks that no federation trained.
        """

        def tell(text: str) -> None:
            if progress:
                print(text, flush=True)

        return audit_run(
            self.config, self.directory, attacks=attacks, effort=effort, seed=seed, against=against, tell=tell
        )


def train(
    source: str | Path | Mapping[str, Any] | None,
    overrides: Iterable[str] = (),
    *,
    seeds: int | None = None,
    out: Path | str | None = None,
    progress: bool = True,
    plugins: Iterable[str] = (),
    library: Programs | None = None,
) -> Run:
    """Trains what a preset, a TOML file or a table describes, or the defaults, under ``key=value`` overrides.

    Args:
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


def resume(
    run: Path | str,
    overrides: Iterable[str] = (),
    *,
    progress: bool = True,
    plugins: Iterable[str] = (),
    library: Programs | None = None,
) -> Run:
    """Continues a run from its last checkpoint; a finished run is returned as it is.

    Args:
        overrides: ``key=value``, what changes from here on: the budget, which extends a finished run, intervals between
            evaluations or checkpoints, and other settings that do not make it another experiment
            (:data:`fedrax.runtime.continuation.CHANGEABLE`). The former configuration and summary are kept in the
            manifest's ``history``.
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


def audit(run: Path | str, *, plugins: Iterable[str] = (), **options: Any) -> Record:
    """What attacks on a run's messages come to; ``options`` are those of :meth:`Run.audit`."""
    return Run(run, plugins=plugins).audit(**options)


def sweep(file: Path | str, *, jobs: int | None = None, retry: int = 0, many: bool = False) -> Outcome:
    """Runs what is missing of a sweep, or of a search for settings (its file: docs/sweeps.md).

    Args:
        jobs: how many runs at once; unset, as the file says.
        retry: how often a failed run is tried again.
        many: whether there may be more than :data:`fedrax.sweep.plan.MANY_RUNS` runs.

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


def show_sweep(file: Path | str, *, jobs: int | None = None) -> None:
    """Prints what :func:`sweep` would run."""
    plan = Searching(file, jobs=jobs).plan() if is_search(file) else read_plan(file, jobs=jobs, many=True)
    plan = checked(plan)
    show_plan(plan, tasks_of(plan))


def load(path: Path | str, *, plugins: Iterable[str] = ()) -> Run:
    """An existing run; ``plugins`` says where those of its plugins are that were moved."""
    return Run(path, plugins=plugins)
