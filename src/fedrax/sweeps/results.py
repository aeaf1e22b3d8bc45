"""What the runs of a trial came to, and what they cost."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fedrax.records.rows import read_by_seed
from fedrax.records.rundir import RunDirectory
from fedrax.records.summary import read_summary
from fedrax.sweeps.plan import Job
from fedrax.sweeps.tasks import Task


def means(jobs: Iterable[Job]) -> dict[str, float] | None:
    """The mean over all seeds of every number that the summaries hold; None where a run did not reach its end.

    NaN is the mean of what is not finite for every seed.
    """
    summaries = []
    for job in jobs:
        if not Task(job).finished:
            return None
        summaries.append({key: _items(value) for key, value in read_summary(RunDirectory(job.directory)).items()})
    found = {}
    for key in summaries[0] if summaries else ():
        items = [each.get(key, []) for each in summaries]
        if key != "seeds" and all(items):
            numbers = [float(item) for each in items for item in each]
            found[key] = statistics.fmean(numbers) if all(map(math.isfinite, numbers)) else math.nan
    return found


def cost(folder: Path) -> dict[str, int]:
    """Environment steps and rounds of a trial's runs, of those too that failed or go on: these have no summary."""
    total = {"environment_steps": 0, "rounds": 0}
    for path in folder.iterdir() if folder.is_dir() else ():
        directory = RunDirectory(path)
        if directory.summary.is_file():
            summary = read_summary(directory)
            total["environment_steps"] += sum(_items(summary["total_steps"]))
            total["rounds"] += sum(_items(summary["rounds"]))
            continue
        for rows in read_by_seed(directory.metrics_jsonl).values():
            total["environment_steps"] += rows[-1].get("total_steps", 0)
            total["rounds"] += rows[-1]["round"] + 1
    return total


def _items(value: Any) -> list[Any]:
    """A number, or those of the seeds, as a list; empty where it is something else."""
    items = value if isinstance(value, list) else [value]
    return items if all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in items) else []
