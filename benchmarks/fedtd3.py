"""Learning figures of FedTD3: every strategy on the published environments, one TD3 and equal steps for all.

    python benchmarks/fedtd3.py pendulum --trials 5
    python benchmarks/fedtd3.py cartpole-continuous --std 0.05 --set learner.learning_rate=5e-4
    python benchmarks/fedtd3.py pendulum --attack sign-flipping
    python benchmarks/fedtd3.py lunarlander --steps 30000 --only sccd --only fedavg --trials 1
    python benchmarks/fedtd3.py pendulum --std 0.05 --width 64

A trial is one of the published draws of the agents' environments, with a seed of its own; the mean over a trial's
agents is one score, so intervals are over draws and seeds together. All setups share the draws, the learner, the
environment steps and the evaluation. Every run is tested over 100 episodes for each agent and recorded in
benchmarks/results/fedtd3_<environment>_<what>.json as soon as it ends; what is recorded there is not trained again, and
a run that was interrupted is resumed. Two processes may fill one table: on two cores, two of one core each are faster
than one of two (``taskset -c 0``).
"""

from __future__ import annotations

import argparse
import fcntl
import json
from pathlib import Path
from typing import Any

import numpy as np

from fedrax.api import Run, train_or_resume
from fedrax.evaluation.statistics import iqm, stratified_bootstrap

from common import RESULTS, save

SETUPS: dict[str, tuple[str, ...]] = {
    "sccd": (),
    "fedavg": ("strategy=fedavg",),
    "fedprox": ("strategy=fedprox",),
    "moon": ("strategy=moon",),
    "scaffold": ("strategy=scaffold",),
    "representations": ("strategy.version=representations",),
    "gaussian": ("strategy.version=gaussian",),
    "statistics": ("strategy.version=statistics",),
    "reweighted": ("strategy=fedavg", "strategy.return_temperature=1.0"),
    "local": ("strategy=local",),
    "central": ("strategy=central",),
}
"""The preset's own, the baselines, the other versions of distillation, and both bounds."""
AGGREGATORS: dict[str, tuple[str, ...]] = {
    "mean": (),
    "median": ("aggregator=median",),
    "krum": ("aggregator=krum", "aggregator.f=1"),
}
EPISODES = 100
"""Of the test after training, for each agent (the published protocol's)."""


def main() -> None:
    """Trains what is missing and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment", help="a preset of fedtd3/")
    parser.add_argument("--only", action="append", help="train only this setup; may be repeated")
    parser.add_argument("--trials", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--std", type=float, help="of the environments' parameters (default: the preset's)")
    parser.add_argument("--steps", type=int, help="of each agent (default: the preset's)")
    parser.add_argument("--width", type=int, help="of every hidden layer (default: the preset's, 256 as published)")
    parser.add_argument("--attack", help="one of five agents does this; compares aggregators under FedTD3")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks"), help="where the runs are kept")
    parser.add_argument("--set", action="append", default=[], metavar="key=value", help="for every setup")
    options = parser.parse_args()
    common = list(options.set)
    what = "preset" if options.std is None else f"std{options.std:g}"
    if options.std is not None:
        common.append(f"environment.heterogeneity.std={options.std}")
    if options.steps is not None:
        common.append(f"budget.steps_per_agent={options.steps}")
    if options.width is not None:
        what += f"_width{options.width}"
        layers = {"actor": 2, "feature": 2, "head": 1}
        common += [f"learner.{part}_layers={[options.width] * count}" for part, count in layers.items()]
    setups = SETUPS
    if options.attack is not None:
        what += f"_{options.attack}"
        common += [f"attack={options.attack}", "attack.agents=1"]
        setups = AGGREGATORS
    name = f"fedtd3_{options.environment}_{what}"
    for trial in options.trials:
        for label in options.only or setups:
            if str(trial) in read(name).get(label, {}):
                continue
            path = options.runs / name / label / f"trial-{trial}"
            settings = [*common, *setups[label], f"environment.heterogeneity.trial={trial}", f"seed={trial}"]
            run = train_or_resume(f"fedtd3/{options.environment}", settings, seeds=1, out=path, progress=False)
            record(name, label, trial, measured(run), order=list(setups))
            print(name, label, trial, read(name)[label][str(trial)]["return"], flush=True)


def measured(run: Run) -> dict[str, Any]:
    """Returns of a test in every agent's environment, the curve that led there, and what it cost."""
    (test,) = run.evaluate(episodes=EPISODES).values()
    returns = np.asarray(test.returns).reshape(run.config.federation.agents, EPISODES).mean(1)
    summary = run.summary()
    rows = [row for row in run.metrics() if row.get("return") is not None and not np.isnan(row["return"])]
    costs = ("total_steps", "gradient_steps", "bytes_up", "bytes_down", "seconds_train")
    return {
        "return": round(float(returns.mean()), 1),
        "returns_of_agents": [round(float(x), 1) for x in returns],
        "curve": {
            "steps_per_agent": [round(row["agent_steps"] / run.config.federation.agents) for row in rows],
            "return": [round(row["return"], 1) for row in rows],
        },
        "costs": {name: round(float(summary[name])) for name in costs},
    }


def read(name: str) -> dict[str, dict[str, Any]]:
    """The recorded runs, by setup and trial."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text())["results"]["runs"] if path.exists() else {}


def record(name: str, label: str, trial: int, run: dict[str, Any], *, order: list[str]) -> None:
    """Adds one run and computes the table anew; other processes wait meanwhile."""
    lock = RESULTS.parent / ".fedtd3.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        runs = read(name)
        runs.setdefault(label, {})[str(trial)] = run
        runs = {setup: dict(sorted(runs[setup].items())) for setup in order if setup in runs}
        save(name, {"table": {setup: summarised(list(each.values())) for setup, each in runs.items()}, "runs": runs})


def summarised(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """One setup's row: the interquartile mean over trials with its interval, the worst agent, the spread, the costs."""
    agents = np.array([run["returns_of_agents"] for run in runs])
    scores = agents.mean(1)
    interval = stratified_bootstrap(scores[:, None], iqm) if len(runs) > 1 else None
    return {
        "trials": len(runs),
        "iqm": round(float(iqm(scores[:, None])), 1),
        "interval_95": None if interval is None else [round(float(x), 1) for x in interval],
        "mean": round(float(scores.mean()), 1),
        "worst_agent": round(float(agents.min(1).mean()), 1),
        "deviation_of_agents": round(float(agents.std(1).mean()), 1),
        "costs": {name: round(float(np.mean([run["costs"][name] for run in runs]))) for name in runs[0]["costs"]},
    }


if __name__ == "__main__":
    main()
