"""Learning figures of federated PPO and MDPO: when agents reach 0.9, linked and alone, beside every baseline.

    python benchmarks/fedppo.py simple-crossing --seeds 3
    python benchmarks/fedppo.py doorkey --only mdpo --only local

All setups share the learner, the environments' draws and the evaluation. A run that is there already is not trained
again, one that was interrupted is resumed. Results are written after each setup, to
benchmarks/results/fedppo_<environment>.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np

from fedrax import Run
from fedrax.api import train_or_resume
from fedrax.evaluation.statistics import iqm, stratified_bootstrap
from fedrax.records.files import write_atomic

from common import save

THRESHOLD, WINDOW = 0.9, 3
"""Reached when the mean of so many evaluations in a row is as high as this."""
EPISODES = 100
"""Of the test after training, for each policy; the evaluations during it are of 20."""


@dataclasses.dataclass(frozen=True)
class Study:
    """One environment."""

    steps: int
    """Of each agent."""
    groups: dict[str, tuple[int, ...]]
    """Agents whose returns are averaged, by what they are called."""
    targets: dict[str, int]
    """By group: steps per agent within which the setup ``mdpo`` must reach the threshold."""
    threshold: float = THRESHOLD
    every: int = 4
    """Rounds between evaluations: more often where an agent learns within few rounds."""
    settings: tuple[str, ...] = ()


CONSTANT = ("learner.anneal_learning_rate=false",)
"""For studies that end long before the presets' budgets, over which the published runs annealed the learning rate."""
PAIR = {"pair": (0, 1), "solo": (2,)}
ALL = {"all": (0, 1, 2)}
STUDIES = {
    "simple-crossing": Study(2_000_000, PAIR, {"pair": 1_200_000}),
    "lava-crossing": Study(2_400_000, ALL, {"all": 2_400_000}, settings=CONSTANT),
    "doorkey": Study(600_000, ALL, {"all": 600_000}, every=2, settings=CONSTANT),
    "distshift": Study(300_000, ALL, {"all": 300_000}, every=1, settings=CONSTANT),
    "cartpole": Study(200_000, {"all": (0, 1, 2, 3)}, {}, threshold=475.0),
    "acrobot": Study(500_000, {"all": (0, 1, 2, 3)}, {}, threshold=-100.0),
}
SETUPS: dict[str, tuple[str, ...]] = {
    "mdpo": (),
    "ppo": ("learner.objective=kl", "strategy.direction=ppo"),
    "clip": ("learner.objective=clip",),
    "none": ("learner.objective=none",),
    "local": ("strategy=local",),
    "central": ("strategy=central",),
    "fedavg": ("strategy=fedavg",),
    "gossip": ("strategy=gossip",),
}
"""The preset's own (KL only), its other objectives, and what it must be compared with."""


def main() -> None:
    """Trains what is missing and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment", choices=STUDIES)
    parser.add_argument("--only", action="append", choices=SETUPS, help="train only this setup; may be repeated")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, help="of each agent (default: the study's)")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks"), help="where the runs are kept")
    parser.add_argument("--set", action="append", default=[], metavar="key=value", help="for every setup")
    options = parser.parse_args()
    study = STUDIES[options.environment]
    common = [
        f"budget.steps_per_agent={options.steps or study.steps}",
        f"evaluation.every={study.every}",
        *study.settings,
    ]
    common += options.set
    table = []
    for label, overrides in SETUPS.items():
        runs = []
        for seed in range(options.seeds):
            path = options.runs / f"fedppo-{options.environment}" / label / f"seed-{seed}"
            if not options.only or label in options.only:
                settings = [*overrides, *common, f"seed={seed}"]
                train_or_resume(f"fedppo/{options.environment}", settings, seeds=1, out=path)
            if (path / "summary.json").exists():
                runs.append(Run(path))
        if runs:
            table.append({"setup": label, **measured(runs, study)})
            print(table[-1])
            save(f"fedppo_{options.environment}", table)


def measured(runs: list[Run], study: Study) -> dict[str, object]:
    """By group of agents: when the threshold was reached, returns of the test after training, and what it cost."""
    result: dict[str, object] = {"seeds": len(runs)}
    tests = [tested(run) for run in runs]
    for name, members in study.groups.items():
        curves = [curve(run, members) for run in runs]
        reached = [first_reach(*one, study.threshold) for one in curves]
        final = np.array([test[list(members)].mean() if test.ndim else test for test in tests])
        median = np.median([np.inf if one is None else one for one in reached])
        result[name] = {
            "seeds_that_reached": sum(one is not None for one in reached),
            "steps_per_agent_to_threshold": reached,
            "median_steps": None if np.isinf(median) else round(float(median)),
            "final": [round(float(score), 3) for score in final],
            "final_iqm": round(float(iqm(final[:, None])), 4),
            "final_interval_95": interval(final),
        }
        if name in study.targets:
            result[name] |= {"target_steps": study.targets[name]}  # type: ignore[operator]
    summaries = [run.summary() for run in runs]
    costs = ("total_steps", "gradient_steps", "bytes_up", "bytes_down", "seconds_train", "seconds_compile")
    result["threshold"] = study.threshold
    result["costs"] = {name: round(float(np.mean([summary[name] for summary in summaries]))) for name in costs}
    return result


def interval(final: np.ndarray) -> list[float] | None:
    """Of the interquartile mean over seeds; none of one seed."""
    return [round(float(x), 4) for x in stratified_bootstrap(final[:, None], iqm)] if len(final) > 1 else None


def tested(run: Run) -> np.ndarray:
    """Mean returns after training, of the shared policy or by agent; kept with the run."""
    path = run.path / "test.json"
    if not path.exists():
        (result,) = run.evaluate(episodes=EPISODES).values()
        write_atomic(path, json.dumps(result.returns.mean(-1).tolist()))
    return np.array(json.loads(path.read_text()))


def curve(run: Run, members: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Environment steps per agent and mean evaluation return of these agents (of the shared policy, if it is one)."""
    steps, returns = [], []
    for row in run.metrics():
        each = row.get("agent_returns")
        value = (
            row.get("return") if each is None else np.mean([np.nan if each[k] is None else each[k] for k in members])
        )
        if value is not None and not np.isnan(value):
            steps.append(row["agent_steps"] / run.config.federation.agents)
            returns.append(value)
    return np.array(steps), np.array(returns)


def first_reach(steps: np.ndarray, returns: np.ndarray, threshold: float) -> int | None:
    """Where the trailing mean first reaches the threshold."""
    for end in range(WINDOW, len(returns) + 1):
        if returns[end - WINDOW : end].mean() >= threshold:
            return round(float(steps[end - 1]))
    return None


if __name__ == "__main__":
    main()
