"""Files of searches, and runs that end at once, for tests."""

import json

from fedrax.records.rundir import RunDirectory
from fedrax.records.summary import KEYS, write_summary
from fedrax.sweeps.runner import Outcome
from fedrax.sweeps.tasks import Task

from sweep_files import TINY

HALVING = """
method = "halving"
trials = 9
least = 1
"""


def written(folder, search="", space='"learner.learning_rate" = {log-uniform = [1e-4, 1e-1]}', head=""):
    path = folder / "search.toml"
    preset = f'preset = "fedpg-br/cartpole"\nout = "{folder / "out"}"\nset = {json.dumps(TINY)}\njobs = 2\n{head}\n'
    path.write_text(f"{preset}[search]\n{search}\n[search.space]\n{space}\n")
    return path


def finish(plan, score, steps=10):
    """Runs that end at once, with a return that depends on the trial."""
    tasks = []
    for job in plan.jobs:
        value = score(job)
        tasks.append(Task(job, "failed" if value is None else "done"))
        job.directory.mkdir(parents=True, exist_ok=True)
        (job.directory / "config.toml").write_text(job.config.to_toml())
        if value is not None:
            rounds = job.config.budget.rounds
            summary = {"final_return": value, "rounds": rounds, "total_steps": steps * rounds, "seeds": [*job.seeds]}
            write_summary(RunDirectory(job.directory), dict.fromkeys(KEYS, 0) | summary)
    return Outcome(plan.out, tuple(tasks), interrupted=0)


def rate(job):
    return job.config.learner["learning_rate"]
