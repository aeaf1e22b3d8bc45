"""Success of TD3 with hindsight experience replay: curves of one agent, seed by seed.

    python benchmarks/td3_her.py reach --seeds 5
    python benchmarks/td3_her.py point-push --seeds 5
    python benchmarks/td3_her.py push --seeds 3
    python benchmarks/td3_her.py pick-and-place --seeds 1   # an hour on one core, as is slide
    python benchmarks/td3_her.py reach --reference --seeds 3

A run is the preset ``td3-her/TASK``. Its evaluations, 50 greedy episodes on fixed initial states, are the curve; a test
over 100 others is made at the end. Both count success in the last step of an episode, and in any. Every run is
recorded in benchmarks/results/td3_her_<task>.json as soon as it ends; what is recorded there is not trained again, and
a run that was interrupted is resumed. ``--reference`` trains with the settings of the TD3+HER reference, which updates
once an episode and ends training episodes at the first success, for twice as many episodes as it needs on Reach.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from fedrax import Run
from fedrax.api import train_or_resume

from common import read_runs, record_runs

TASKS = ("reach", "push", "pick-and-place", "slide", "point-push")
REFERENCE = [
    *("learner.hindsight=reference", "environment.terminate_on_success=true", "learner.normalise=false"),
    *("learner.random_actions=0", "learner.exploration_noise=0.1", "learner.action_penalty=0"),
    *("learner.clip_values=false", "learner.batch_size=512", "learner.learning_rate=0.0003", "learner.tau=0.005"),
    *("learner.discount=0.98", "learner.learning_starts=512", "learner.actor_layers=[256, 256, 256]"),
    *("learner.feature_layers=[256, 256]", "learner.head_layers=[256]"),
    # One critic update for an episode of each of four copies.
    *("environment.num_envs=4", "learner.num_steps=50", "learner.updates_per_step=0.08", "learner.policy_delay=2"),
    *("federation.local_updates=10", "evaluation.every=10", "checkpoint.every=10", "budget.steps_per_agent=400000"),
]
TEST_EPISODES = 100
TEST_SEED = 10_000
REACHED = (0.9, 0.95)
"""Success in the last step whose first evaluation, and all after it, the table tells."""


def main() -> None:
    """One task, seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings that differ from the preset"
    )
    parser.add_argument("--reference", action="store_true", help="with the settings of the TD3+HER reference")
    parser.add_argument("--runs", type=Path, default=Path("runs") / "benchmarks")
    options = parser.parse_args()
    setup = " ".join([*(["as the reference"] if options.reference else []), *options.set]) or "preset"
    name = f"td3_her_{options.task}"
    for seed in range(1, options.seeds + 1):
        if str(seed) in read_runs(name).get(setup, {}):
            continue
        path = options.runs / name / setup.replace(" ", "_").replace("/", "-") / f"seed-{seed}"
        settings = [*(REFERENCE if options.reference else []), *options.set, f"seed={seed}"]
        run = train_or_resume(f"td3-her/{options.task}", settings, seeds=1, out=path, progress=False)
        order = [*dict.fromkeys([*read_runs(name), setup])]
        record_runs(name, setup, {str(seed): measured(run)}, order=order, row=summarised)
        print(name, setup, summarised(setup, read_runs(name)), flush=True)


def measured(run: Run) -> dict[str, Any]:
    """The curve, the test and what the run cost."""
    rows = [row for row in run.metrics() if "success_last" in row]
    (test,) = run.evaluate(episodes=TEST_EPISODES, evaluation_seed=TEST_SEED).values()
    summary = run.summary()
    return {
        "steps": [row["total_steps"] for row in rows],
        "episodes": [row["agent_trajectories"] for row in rows],
        "gradient_steps": [row["gradient_steps"] for row in rows],
        "success_last": [round(row["success_last"], 2) for row in rows],
        "success": [round(row["success"], 2) for row in rows],
        "test": {name: round(float(np.mean(test.table[name])), 3) for name in ("success", "success_last")},
        "seconds": round(float(np.ravel(summary["seconds_train"])[0])),
    }


def summarised(setup: str, runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One setup's row: the tests, and in how many episodes every evaluation from then on reaches a share."""
    each = list(runs[setup].values())
    row: dict[str, Any] = {"seeds": len(each), "tests": [run["test"]["success_last"] for run in each]}
    for share in REACHED:
        row[f"episodes_until_{share}_holds"] = [held(run, share, "episodes") for run in each]
        row[f"gradient_steps_until_{share}_holds"] = [held(run, share, "gradient_steps") for run in each]
    return row | {"seconds": [run["seconds"] for run in each]}


def held(run: dict[str, Any], share: float, unit: str) -> int | None:
    """When the last-step success first reached a share that it never fell below again; None where it never did."""
    below = [number for number, success in enumerate(run["success_last"]) if success < share]
    first = below[-1] + 1 if below else 0
    return run[unit][first] if first < len(run[unit]) else None


if __name__ == "__main__":
    main()
