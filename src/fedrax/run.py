"""A run that lies in a directory: its records, its policies, and what can be measured of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args

import jax
from jaxtyping import PyTree

from fedrax import run_views
from fedrax.acting import Chosen, TrainedPolicy, choose
from fedrax.arguments import PLUGINS, either, flag, instance, one_of, path, takes, text, texts, whole
from fedrax.audit.auditing import audit_run
from fedrax.audit.base import Effort
from fedrax.config import Config
from fedrax.errors import FedraxError
from fedrax.evaluation.measure import Environments
from fedrax.evaluation.pairs import Evaluation
from fedrax.other_calls import OF_A_RUN, no_attribute
from fedrax.records.audits import Record
from fedrax.records.checkpoint import load_checkpoint, load_policy
from fedrax.records.rows import read_metrics, seed_of
from fedrax.records.rundir import RunDirectory
from fedrax.records.summary import read_summary, with_evaluation_at_the_end
from fedrax.registry import LARGEST, MOST_EPISODES, MOST_UNSEEN
from fedrax.runtime.continuation import accepting, configuration, warn_of_edits
from fedrax.runtime.final_evaluation import best_policies
from fedrax.runtime.make import make_runtime

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

Which = Literal["last", "best"] | int
"""Which policy of a run: the last one, that of the best evaluation, or that after so many rounds, where it was kept."""
WHICH = either(one_of("last", "best"), whole())


class Run:
    """A run directory: what was configured, what was measured, and the policy that came of it."""

    @takes(path=path(), plugins=PLUGINS)
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
        """One row per seed and round (from 0): by round, then seed.

        The last of each seed holds the evaluation at the budget's end. A run whose budget grows goes on without it, as
        if it had not ended.
        """
        rows = read_metrics(self.directory.metrics_jsonl)
        # The file's order is that of training: an extended run's seeds may follow one another.
        rows.sort(key=lambda row: (row["round"], seed_of(row)))
        return with_evaluation_at_the_end(rows, self._totals() or {})

    def frame(self) -> pandas.DataFrame:
        """:meth:`metrics` as a pandas frame: a row per seed and round, a column for each that any row has.

        Raises:
            FedraxError: pandas is not installed.
        """
        return run_views.frame_of(self.metrics())

    @takes(x=text(), value=text(), smoothing=whole(1, LARGEST), title=text())
    def figure(self, x: str | None = None, *, value: str = "return", smoothing: int = 1, title: str = "") -> Figure:
        """The learning curve, as reports draw it: a matplotlib figure.

        Args:
            x: what the curve is drawn over, a key of :data:`fedrax.report.curves.AXES`; unset, as in reports.
            value: a column of :meth:`metrics`.
            smoothing: evaluations of a seed that each point is the mean of.
            title: above it.

        Raises:
            FedraxError: an axis that there is not, or a column without numbers.
        """
        return run_views.figure_of([self.path], x=x, value=value, smoothing=smoothing, title=title)

    if not TYPE_CHECKING:  # Who checks types is told of unknown names by that.

        def __getattr__(self, name: str) -> NoReturn:
            """Only for names that a run does not have: what other libraries call so is here."""
            raise no_attribute(self, name, OF_A_RUN, dir(type(self)))

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

    @takes(which=WHICH)
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
                kept, meta = restored
                stacked = runtime.outputs(kept) if which == "last" else best_policies(runtime, kept, meta)
        finally:
            runtime.close()
        return {
            seed: jax.tree.map(lambda x, i=index: x[i], stacked) for index, seed in enumerate(self.config.all_seeds)
        }

    @takes(which=WHICH, seed=whole(), agent=whole())
    def chosen(self, which: Which = "last", *, seed: int | None = None, agent: int | None = None) -> Chosen:
        """One seed's policy, and one agent's where each has its own: its networks, and what they see and do.

        Raises:
            FedraxError: as :func:`fedrax.acting.choose`.
        """
        path = self._policy_file(which)
        return choose(self.config, self.directory, path, seed=seed, agent=agent, otherwise=lambda: self.policies(which))

    @takes(
        seed=whole(),
        agent=whole(),
        best=flag(),
        rounds=whole(),
        deterministic=flag(),
        random_seed=whole(0, LARGEST),
    )
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

    @takes(
        episodes=whole(1, MOST_EPISODES),
        policy=WHICH,
        evaluation_seed=whole(0, LARGEST),
        environments=one_of(*get_args(Environments)),
    )
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
            episodes: of each policy, spread over the environments it is in, of which each has equally many: a few more
                where they do not share the number evenly.
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

    @takes(
        episodes=whole(1, MOST_EPISODES),
        policy=WHICH,
        evaluation_seed=whole(0, LARGEST),
        unseen=whole(0, MOST_UNSEEN),
    )
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

    @takes(
        attacks=texts("attacks, such as ['A1', 'A3']"),
        effort=instance(Effort, "a fedrax.audit.base.Effort"),
        seed=whole(0, LARGEST),
        against=flag(),
        progress=flag(),
    )
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
