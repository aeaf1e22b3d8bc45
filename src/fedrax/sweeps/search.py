"""A search for settings: trials of a sweep's file, in stages whose results decide what runs next.

``search.json`` in the sweep's folder holds the trials, what they came to and what they cost. It is written before the
runs of a stage start and after they end, so a search that was killed goes on where it was, and one that is started
again tries once more what failed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from fedrax.config import Config
from fedrax.errors import FedraxError, unknown
from fedrax.records.files import read_json, write_json
from fedrax.records.progress import short
from fedrax.runtime.continuation import leaves
from fedrax.sweeps.comparable import check_alike, check_budget, check_space
from fedrax.sweeps.names import SEARCH
from fedrax.sweeps.plan import Plan, override, plan_of, read_table
from fedrax.sweeps.results import cost, means
from fedrax.sweeps.runner import Outcome, report_command
from fedrax.sweeps.settings import Search, limits, read_search
from fedrax.sweeps.space import drawn
from fedrax.sweeps.suggestions import Optuna
from fedrax.sweeps.tasks import Task
from fedrax.wording import counted

COMMON = ("preset", "seeds", "seeds_per_run", "out", "jobs", "cores_per_job", "set")
"""What the file of a search may hold beside ``[search]``."""

Trial = dict[str, Any]
"""``number``, ``params`` by key, and by stage ``limits``, ``results`` and ``values``.

``results`` are all numbers of the summaries, means over seeds (None: its runs failed), and ``values`` the objective
among them (None, too, where it is not finite).
"""

MAY_CHANGE = ("objective", "direction")
"""What only ranks trials that were run."""


def is_search(file: Path | str) -> bool:
    """Whether the file of a sweep describes a search."""
    return "search" in read_table(Path(file))


class Searching:
    """A search where it stands."""

    def __init__(self, file: Path | str, *, jobs: int | None = None) -> None:
        """Reads the file, and what was found before.

        Raises:
            FedraxError: one line that names the file: a mistake in it, or another search in its folder.
        """
        self.file, self._jobs = Path(file), jobs
        self._table = read_table(self.file)
        self._measure: dict[str, str] | None = None
        try:
            for key in self._table:
                if key not in (*COMMON, "search"):
                    raise unknown("key of a search's file", key, (*COMMON, "search"))
            self.search: Search = read_search(self._table["search"])
            plain = self._plan([{"number": 0, "params": drawn(self.search.space, self.search.seed, 0)}])
            config: Config = plain.jobs[0].config
            self.out, self._at_once = plain.out, plain.wanted_at_once
            self._costs: dict[int, dict[str, int]] = {}
            # How seeds are grouped into runs depends on the jobs at once, and a name changes nothing.
            self._config = {k: v for k, v in leaves(config).items() if k not in ("name", "seed", "seeds")}
            self._limit, self._stages = "", [0]
            check_space(self.search.space, plain.jobs[0].setup)
            if self.search.method == "halving":
                check_budget(self.search.space)
                self._limit, self._stages = limits(self.search, config)
            self._suggest = Optuna(self.search) if self.search.method == "optuna" else None
            self.trials: list[Trial] = self._restored()
        except FedraxError as error:
            line = str(error)
            raise FedraxError(line if line.startswith(str(self.file)) else f"{self.file}: {line}") from None

    def run(self, carry_out: Callable[[Plan], Outcome], tell: Callable[[str], None]) -> Outcome:
        """Until all stages are done, or the user asks to stop; its outcome is that of all jobs, each as it ended last.

        Args:
            carry_out: runs what is missing of a plan.
            tell: shows a line.

        Raises:
            FedraxError: a setting that no trial can have, or a summary without the objective.
        """
        outcome = Outcome(self.out, (), interrupted=0)
        tasks: dict[Path, Task] = {}
        while True:
            stage, trials = self.following()
            if not trials:
                self._check_objective()
                self._write()
                if outcome.reportable:
                    tell(report_command(self.out))
                tell(self._result())
                return outcome
            if outcome.stopped:
                return dataclasses.replace(outcome, interrupted=outcome.stopped)
            plan = self._plan(trials, stage)
            self._write()
            tell(self._heading(stage, trials))
            outcome = carry_out(plan)
            tasks |= {task.job.directory: task for task in outcome.tasks}
            outcome = dataclasses.replace(outcome, tasks=tuple(tasks.values()))
            for trial in trials:
                self._costs.pop(trial["number"], None)
            if outcome.interrupted:
                self._write()
                return outcome
            for trial in trials:
                trial["limits"].append(self._stages[stage] or None)
                trial["results"].append(means(job for job in plan.jobs if job.setup.name == _name(trial)))
                trial["values"].append(self._value(trial["results"][-1]))
            # What was computed is kept, also where it lacks the objective.
            self._write()
            self._check_objective()

    def following(self) -> tuple[int, list[Trial]]:
        """The number of the next stage and its trials; none where the search has ended."""
        if self._suggest is not None:
            waiting = [trial for trial in self.trials if not trial["values"]]
            more = min(self._at_once, self.search.trials - len(self.trials))
            if not waiting and more > 0:
                waiting = self._suggest.ask(self.trials, more)
                self.trials += waiting
            return 0, waiting
        for number in range(len(self.trials), self.search.trials):
            self.trials.append(_trial(number, drawn(self.search.space, self.search.seed, number)))
        among = self.trials
        for stage in range(len(self._stages)):
            waiting = [trial for trial in among if len(trial["values"]) <= stage]
            if waiting:
                return stage, waiting
            ranked = sorted((trial for trial in among if trial["values"][stage] is not None), key=self._rank(stage))
            among = ranked[: max(1, len(among) // self.search.reduction)]
        return len(self._stages), []

    def plan(self) -> Plan:
        """What would run next; everything again where the search has ended."""
        stage, trials = self.following()
        return self._plan(trials or self.trials, min(stage, len(self._stages) - 1))

    def _rank(self, stage: int) -> Callable[[Trial], tuple[float, int]]:
        return lambda trial: (-self.search.sign * trial["values"][stage], trial["number"])

    @property
    def best(self) -> Trial | None:
        """The best of those that got farthest."""
        done = [trial for trial in self.trials if trial["values"] and trial["values"][-1] is not None]
        last = max((len(trial["values"]) for trial in done), default=0)
        return min((t for t in done if len(t["values"]) == last), key=self._rank(last - 1), default=None)

    def _plan(self, trials: Sequence[Trial], stage: int | None = None) -> Plan:
        table = {key: value for key, value in self._table.items() if key != "search"}
        grown = () if stage is None or not self._limit else (f"{self._limit}={self._stages[stage]}",)
        setups = {
            _name(trial): {"set": [*(override(key, value) for key, value in trial["params"].items()), *grown]}
            for trial in trials
        }
        plan = plan_of(self.file, {**table, "setups": setups}, self._jobs, many=True, grown=grown)
        self._measure = check_alike(plan, self._measure)
        return plan

    def _value(self, results: Mapping[str, float] | None) -> float | None:
        """The objective among a stage's results; None where there is none, or it is not finite."""
        value = math.nan if results is None else results.get(self.search.objective, math.nan)
        return value if math.isfinite(value) else None

    def _check_objective(self) -> None:
        """Raises :class:`FedraxError` where a run measured everything but the objective."""
        for trial in self.trials:
            for results in trial["results"]:
                if results is not None and self.search.objective not in results:
                    raise unknown("search.objective (a number of a run's summary)", self.search.objective, results)

    def spent(self) -> dict[str, int]:
        """Environment steps and rounds of all trials' runs together, as far as they are recorded."""
        for trial in self.trials:
            if trial["number"] not in self._costs:
                self._costs[trial["number"]] = cost(self.out / _name(trial))
        costs = self._costs.values()
        return {name: sum(each[name] for each in costs) for name in ("environment_steps", "rounds")}

    def _restored(self) -> list[Trial]:
        """The trials of an earlier start, without the last stage of those that failed in it.

        Raises:
            FedraxError: of another search.
        """
        path = self.out / SEARCH
        if not path.is_file():
            return []
        record = read_json(path, "record of the search")
        trials, before, now = record.get("trials"), record.get("search"), self._described()
        if not isinstance(before, Mapping) or not _are_trials(trials):
            raise FedraxError(
                f"{path} is no record of a search, or one of an earlier version: give this search another out"
            )
        config = before.get("config")
        tables = (before, now), (config if isinstance(config, Mapping) else {}, self._config)
        for one, other in tables:
            for key in (*other, *one):
                if key == "config" or key in MAY_CHANGE:
                    continue
                more = key == "trials" and self.search.method != "halving" and _fewer(one.get(key, 0), other[key])
                if one.get(key) != other.get(key) and not more:
                    raise FedraxError(
                        f"{self.out} holds a search with {key} = {one.get(key)!r}, which is now {other.get(key)!r}: "
                        "give this one another out"
                    )
        for trial in trials:
            if trial["params"].keys() != self.search.space.keys():
                raise FedraxError(
                    f"{path} is damaged: {_name(trial)} does not have the settings of this search's space; restore it, "
                    "or give this search another out"
                )
            if trial["results"] and trial["results"][-1] is None:
                del trial["limits"][-1], trial["results"][-1]
            trial["values"] = [self._value(results) for results in trial["results"]]
        return trials

    def _described(self) -> dict[str, Any]:
        """The search as text that JSON keeps."""
        given: Mapping[str, Any] = self._table["search"]
        seeds = self._table.get("seeds", 1)
        return {**given, "trials": self.search.trials, "limits": self._stages, "seeds": seeds, "config": self._config}

    def _write(self) -> None:
        best = self.best
        record = {
            "search": self._described(),
            "trials": self.trials,
            "spent": self.spent(),
            "best": None if best is None else {**best, "setup": _name(best), "value": best["values"][-1]},
        }
        write_json(self.out / SEARCH, record)

    def _heading(self, stage: int, trials: Sequence[Trial]) -> str:
        if self._limit:
            limit = f"{self._limit} = {self._stages[stage]}"
            what = (
                f"stage {stage + 1} of {len(self._stages)} begins: {counted(len(trials), 'trial')} to train to {limit}"
            )
        else:
            done = sum(bool(trial["values"]) for trial in self.trials)
            what = f"{counted(len(trials), 'trial')} to train, {done} of {self.search.trials} done"
        return f"search: {what}; spent so far {_spent(self.spent())}"

    def _result(self) -> str:
        best = self.best
        if best is None:
            return f"search: every trial failed; spent {_spent(self.spent())}"
        settings = " ".join(override(key, value) for key, value in best["params"].items())
        return (
            f"search: best is {_name(best)}, {self.search.objective} {best['values'][-1]:.4g}: {settings}; spent "
            f"{_spent(self.spent())} ({self.out / 'search.json'})"
        )


def _trial(number: int, params: Mapping[str, Any]) -> Trial:
    return {"number": number, "params": dict(params), "limits": [], "results": [], "values": []}


def _name(trial: Trial) -> str:
    return f"trial-{trial['number']:04d}"


def _are_trials(value: Any) -> TypeGuard[list[Trial]]:
    """Whether it is what a search writes of its trials; an earlier version's have no results."""

    def is_trial(trial: Any, number: int) -> bool:
        if not isinstance(trial, dict) or trial.get("number") != number or not isinstance(trial.get("params"), dict):
            return False
        stages, results = trial.get("limits"), trial.get("results")
        if not isinstance(stages, list) or not isinstance(results, list) or len(stages) != len(results):
            return False
        return all(map(_are_results, results))

    return isinstance(value, list) and all(is_trial(trial, number) for number, trial in enumerate(value))


def _fewer(before: Any, now: int) -> bool:
    return isinstance(before, int) and before <= now


def _are_results(value: Any) -> bool:
    if not isinstance(value, dict):
        return value is None
    return all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in value.values())


def _spent(total: Mapping[str, int]) -> str:
    return f"{short(total['environment_steps'])} environment steps in {total['rounds']} rounds"
