"""A search for settings: trials of a sweep's file, in stages whose results decide what runs next.

``search.json`` in the sweep's folder holds the trials, what they came to and what they cost. It is written before the
runs of a stage start and after they end, so a search that was killed goes on where it was.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedrax.config import Config
from fedrax.errors import FedraxError, unknown
from fedrax.records.files import read_json, write_json
from fedrax.records.progress import short
from fedrax.records.rundir import RunDirectory
from fedrax.records.summary import read_summary
from fedrax.sweep.plan import Plan, override, plan_of, read_table
from fedrax.sweep.runner import Outcome
from fedrax.sweep.settings import Search, limits, read_search
from fedrax.sweep.space import drawn
from fedrax.sweep.suggestions import Optuna

COMMON = ("preset", "seeds", "seeds_per_run", "out", "jobs", "cores_per_job", "set")
"""What the file of a search may hold beside ``[search]``."""

Trial = dict[str, Any]
"""``number``, ``params`` by key, and by stage ``limits`` and ``values`` (None: its runs failed)."""


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
        try:
            for key in self._table:
                if key not in (*COMMON, "search"):
                    raise unknown("key of a search's file", key, (*COMMON, "search"))
            if "preset" not in self._table:
                raise FedraxError("a search needs a preset, which its trials change")
            self.search: Search = read_search(self._table["search"])
            plain = self._plan([{"number": 0, "params": drawn(self.search.space, self.search.seed, 0)}])
            config: Config = plain.jobs[0].config
            self.out, self._at_once = plain.out, plain.wanted_at_once
            self._limit, self._stages = "", [0]
            if self.search.method == "halving":
                self._limit, self._stages = limits(self.search, config)
            self._suggest = Optuna(self.search) if self.search.method == "optuna" else None
            self.trials: list[Trial] = self._restored()
        except FedraxError as error:
            line = str(error)
            raise FedraxError(line if line.startswith(str(self.file)) else f"{self.file}: {line}") from None

    def run(self, carry_out: Callable[[Plan], Outcome], tell: Callable[[str], None]) -> Outcome:
        """Until all stages are done, or the user asks to stop.

        Args:
            carry_out: runs what is missing of a plan.
            tell: shows a line.

        Raises:
            FedraxError: a setting that no trial can have, or a summary without the objective.
        """
        while True:
            stage, trials = self.following()
            plan = self._plan(trials, stage)
            self._write()
            tell(self._heading(stage, trials))
            outcome = carry_out(plan)
            if outcome.interrupted:
                return outcome
            for trial in trials:
                value = self._value(plan, trial)
                trial["limits"].append(self._stages[stage] or None)
                trial["values"].append(value)
            self._write()
            if not self.following()[1]:
                tell(self._result())
                return outcome

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
        return plan_of(self.file, {**table, "setups": setups}, self._jobs, many=True, grown=grown)

    def _value(self, plan: Plan, trial: Trial) -> float | None:
        """The mean of the objective over a trial's seeds; None where a run has no summary or is no number."""
        values: list[float] = []
        for job in plan.jobs:
            if job.setup.name != _name(trial):
                continue
            directory = RunDirectory(job.directory)
            if not directory.summary.is_file():
                return None
            summary = read_summary(directory)
            found = summary.get(self.search.objective)
            numbers: list[Any] = found if isinstance(found, list) else [found]
            if not _numeric(numbers):
                known = [key for key, value in summary.items() if _numeric(value)]
                raise unknown("search.objective (a number of a run's summary)", self.search.objective, known)
            values += map(float, numbers)
        mean = statistics.fmean(values) if values else math.nan
        return mean if math.isfinite(mean) else None

    def spent(self) -> dict[str, int]:
        """Environment steps and rounds of all trials' runs together, as far as they are recorded."""
        total = {"environment_steps": 0, "rounds": 0}
        for trial in self.trials:
            folder = self.out / _name(trial)
            for path in folder.iterdir() if folder.is_dir() else ():
                directory = RunDirectory(path)
                if not directory.summary.is_file():
                    continue
                summary = read_summary(directory)
                for name, key in (("environment_steps", "total_steps"), ("rounds", "rounds")):
                    value = summary[key]
                    total[name] += sum(value) if isinstance(value, list) else value
        return total

    def _restored(self) -> list[Trial]:
        """The trials of an earlier start.

        Raises:
            FedraxError: of another search.
        """
        path = self.out / "search.json"
        if not path.is_file():
            return []
        record = read_json(path, "record of the search")
        before, now = record.get("search", {}), self._described()
        for key in (*now, *before):
            more = key == "trials" and self.search.method != "halving" and now[key] >= before.get(key, 0)
            if before.get(key) != now.get(key) and not more:
                raise FedraxError(
                    f"{self.out} holds a search with {key} = {before.get(key)!r}, which is now {now.get(key)!r}: give "
                    "this one another out"
                )
        trials: list[Trial] = record["trials"]
        return trials

    def _described(self) -> dict[str, Any]:
        """The search as text that JSON keeps."""
        given: Mapping[str, Any] = self._table["search"]
        return {**given, "trials": self.search.trials, "limits": self._stages, "seeds": self._table.get("seeds", 1)}

    def _write(self) -> None:
        best = self.best
        record = {
            "search": self._described(),
            "trials": self.trials,
            "spent": self.spent(),
            "best": None if best is None else {**best, "setup": _name(best), "value": best["values"][-1]},
        }
        write_json(self.out / "search.json", record)

    def _heading(self, stage: int, trials: Sequence[Trial]) -> str:
        if self._limit:
            limit = f"{self._limit} = {self._stages[stage]}"
            what = f"stage {stage + 1} of {len(self._stages)}: {len(trials)} trials to {limit}"
        else:
            what = f"{len(trials)} of {self.search.trials} trials"
        return f"search: {what}; spent {_spent(self.spent())}"

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
    return {"number": number, "params": dict(params), "limits": [], "values": []}


def _name(trial: Trial) -> str:
    return f"trial-{trial['number']:04d}"


def _numeric(value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return bool(items) and all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in items)


def _spent(total: Mapping[str, int]) -> str:
    return f"{short(total['environment_steps'])} environment steps in {total['rounds']} rounds"
