"""Learning figures of FedTD3: every strategy on the published environments, one TD3 and equal steps for all.

    python benchmarks/fedtd3.py pendulum --trials 5
    python benchmarks/fedtd3.py cartpole-continuous --std 0.05 --set learner.learning_rate=5e-4
    python benchmarks/fedtd3.py pendulum --attack sign-flipping
    python benchmarks/fedtd3.py lunarlander --steps 30000 --only sccd --only fedavg --trials 1

A trial is one of the published draws of the agents' environments, with a seed of its own; the mean over a trial's
agents is one score, so intervals are over draws and seeds together. All setups share the draws, the learner, the
environment steps and the evaluation. A run that is there already is not trained again, one that was interrupted is
resumed. Results are written after each setup, to benchmarks/results/fedtd3_<environment>_<what>.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from fedrax.api import Run, train_or_resume
from fedrax.evaluation.statistics import iqm, stratified_bootstrap

from common import save

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
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--std", type=float, help="of the environments' parameters (default: the preset's)")
    parser.add_argument("--steps", type=int, help="of each agent (default: the preset's)")
    parser.add_argument("--attack", help="one of five agents does this; compares aggregators under FedAvg")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks"), help="where the runs are kept")
    parser.add_argument("--set", action="append", default=[], metavar="key=value", help="for every setup")
    options = parser.parse_args()
    common = list(options.set)
    what = "preset" if options.std is None else f"std{options.std:g}"
    if options.std is not None:
        common.append(f"environment.heterogeneity.std={options.std}")
    if options.steps is not None:
        common.append(f"budget.steps_per_agent={options.steps}")
    setups = SETUPS
    if options.attack is not None:
        what = options.attack
        common += ["strategy=fedavg", f"attack={options.attack}", "attack.agents=1"]
        setups = AGGREGATORS
    table = []
    for label, overrides in setups.items():
        runs = []
        for trial in range(1, options.trials + 1):
            path = options.runs / f"fedtd3-{options.environment}-{what}" / label / f"trial-{trial}"
            if not options.only or label in options.only:
                settings = [*common, *overrides, f"environment.heterogeneity.trial={trial}", f"seed={trial}"]
                train_or_resume(f"fedtd3/{options.environment}", settings, seeds=1, out=path)
            if (path / "summary.json").exists():
                runs.append(Run(path))
        if runs:
            table.append({"setup": label, **measured(runs)})
            print(table[-1])
            save(f"fedtd3_{options.environment}_{what}", table)


def measured(runs: list[Run]) -> dict[str, object]:
    """Returns of a test of 100 episodes in every agent's environment, and what it cost."""
    tests = [run.evaluate(episodes=EPISODES) for run in runs]
    returns = np.array([next(iter(test.values())).returns.mean(-1) for test in tests])
    scores = returns.mean(1)
    summaries = [run.summary() for run in runs]
    costs = ("total_steps", "gradient_steps", "bytes_up", "bytes_down", "seconds_train")
    return {
        "trials": len(runs),
        "returns_by_trial": [round(float(score), 1) for score in scores],
        "iqm": round(float(iqm(scores[:, None])), 1),
        "interval_95": [round(float(x), 1) for x in stratified_bootstrap(scores[:, None], iqm)],
        "mean": round(float(scores.mean()), 1),
        "worst_agent": round(float(returns.min(1).mean()), 1),
        "deviation_of_agents": round(float(returns.std(1).mean()), 1),
        "costs": {name: round(float(np.mean([summary[name] for summary in summaries]))) for name in costs},
    }


if __name__ == "__main__":
    main()
