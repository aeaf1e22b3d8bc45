"""Two agents that push and two that pick and place: a federation beside learning alone and from all data.

    python benchmarks/td3_her_federation.py --seeds 3

The tasks are FetchPush and FetchPickAndPlace with hindsight; every agent sees which is its own, in every setup. All
have the same steps of an agent, and an update for as many of them; the pooled learner has the steps, the updates and
the replays of all four. Success is that of an episode's last step, of every agent in its own task (50 greedy episodes
for each task on fixed initial states). A run is recorded in benchmarks/results/td3_her_federation.json as soon as it
ends; what is recorded there is not trained again, and a run that was interrupted is resumed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from fedrax import Run
from fedrax.api import train_or_resume
from fedrax.evaluation.statistics import mean, stratified_bootstrap

from common import read_runs, record_runs

NAME = "td3_her_federation"
TASKS = ["FetchPush-v4", "FetchPickAndPlace-v4"]
AGENTS = 4
REPLAY = 300_000
"""Transitions that an agent keeps."""
COMMON = [
    "environment.tasks=" + str(TASKS).replace("'", '"'),
    *(f"federation.agents={AGENTS}", "federation.local_updates=10"),
    *("environment.num_envs=4", "learner.num_steps=10", "learner.updates_per_step=3", "learner.batch_size=128"),
    *("learner.actor_layers=[256, 256]", "learner.feature_layers=[256]", "learner.discount=0.95"),
    f"learner.buffer_size={REPLAY}",
    *("evaluation.every=50", "evaluation.episodes=50", "evaluation.environments=own", "checkpoint.every=50"),
]
SETUPS = {
    "local": ["strategy=local"],
    "fedavg": ["strategy=fedavg", "strategy.average_targets=true"],
    "clustered": ["strategy=clustered", "strategy.clusters=2", "strategy.average_targets=true"],
    "pooled": ["strategy=central", f"learner.updates_per_step={3 * AGENTS}", f"learner.buffer_size={AGENTS * REPLAY}"],
}


def main() -> None:
    """Every setup, or some, seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=250_000, help="of each agent")
    parser.add_argument("--only", nargs="*", choices=SETUPS, default=list(SETUPS))
    parser.add_argument("--runs", type=Path, default=Path("runs") / "benchmarks")
    options = parser.parse_args()
    for seed in range(1, options.seeds + 1):
        for setup in options.only:
            if str(seed) in read_runs(NAME).get(setup, {}):
                continue
            settings = [*COMMON, *SETUPS[setup], f"budget.steps_per_agent={options.steps}", f"seed={seed}"]
            path = options.runs / NAME / f"{setup}-{seed}"
            run = train_or_resume("td3-her/federated", settings, seeds=1, out=path, progress=False)
            order = [*dict.fromkeys([*(name for name in SETUPS if name in read_runs(NAME)), setup])]
            record_runs(NAME, setup, {str(seed): measured(run)}, order=order, row=summarised)
            print(setup, summarised(setup, read_runs(NAME)), flush=True)


def measured(run: Run) -> dict[str, Any]:
    """The curve of the agents' mean, and each agent's success at the end."""
    rows = [row for row in run.metrics() if row.get("success_last") is not None]
    last = rows[-1]
    return {
        "steps": [row["total_steps"] // AGENTS for row in rows],
        "success_last": [round(row["success_last"], 3) for row in rows],
        "agent_success_last": [round(share, 2) for share in last["agent_success_last"]],
        "seconds": round(last["seconds"]),
    }


def summarised(setup: str, runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Last successes with a 95 % interval of a bootstrap over seeds."""
    each = list(runs[setup].values())
    values = np.array([[run["success_last"][-1]] for run in each])
    low, high = stratified_bootstrap(values, mean)
    return {
        "seeds": len(each),
        "steps": each[0]["steps"][-1],
        "success_last": [round(float(x), 3) for x in (values.mean(), low, high)],
        "agent_success_last": np.mean([run["agent_success_last"] for run in each], 0).round(2).tolist(),
        "seconds": [run["seconds"] for run in each],
    }


if __name__ == "__main__":
    main()
