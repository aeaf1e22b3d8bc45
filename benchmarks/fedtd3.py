"""Learning figures of FedTD3: every strategy on the published environments, one TD3 and equal steps for all.

    python benchmarks/fedtd3.py pendulum --seeds 20 --together
    python benchmarks/fedtd3.py cartpole-continuous --std 0.05 --set learner.learning_rate=5e-4
    python benchmarks/fedtd3.py pendulum --attack sign-flipping
    python benchmarks/fedtd3.py lunarlander --steps 30000 --only sccd --only fedavg --seeds 1
    python benchmarks/fedtd3.py pendulum --std 0.05 --width 64
    python benchmarks/fedtd3.py pendulum --width 64 --variants     # of SCCD's settings, on the two hardest draws

Seeds take the five published draws of the agents' environments in turn; the mean over a seed's agents is one score.
All setups are tested by one measure, the published one: each agent's policy (its own, the shared or the pooled one) in
that agent's environment (evaluation.environments=own, as the presets say).
Intervals are over seeds within the draws where every draw has several, and over draws otherwise. All setups share the
draws, the learner, the environment steps and the evaluation. Every run is tested over 100 episodes for each agent and
recorded in benchmarks/results/fedtd3_<environment>_<what>.json as soon as it ends; what is recorded there is not
trained again, and a run that was interrupted is resumed.

``--together`` trains a setup's missing seeds in one program, which is how an accelerator is filled. On two cores, two
processes of one core each (``taskset -c 0``) are faster than one of two; they may fill one table.
"""

from __future__ import annotations

import argparse
import collections
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fedrax import Run
from fedrax.api import train_or_resume
from fedrax.evaluation.statistics import Statistic, iqm, mean, stratified_bootstrap

from common import read_runs, record_runs

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
    "krum": ("aggregator=krum",),
}
DRAWS = 5
"""Of the environments: the published trials."""
VARIANTS: dict[str, tuple[str, ...]] = {
    "preset": (),
    "actor averaged every round": ("strategy.actor_every=1",),
    "rounds half as long": ("federation.local_updates=25", "strategy.local_steps=10", "strategy.epochs=10"),
    "poor agents weigh more": ("strategy.return_temperature=1.0",),
    "server's step halved": ("strategy.server_learning_rate=0.5",),
    "distils on errors too": ("strategy.local_share=0.5",),
    "distils less": ("strategy.local_steps=5",),
    "exploration 0.3": ("learner.exploration_noise=0.3",),
    "exploration 0.5": ("learner.exploration_noise=0.5",),
    "discount 0.99": ("learner.discount=0.99",),
    "whole run remembered": ("learner.buffer_size=20_000",),
    "step size 0.0003": ("learner.learning_rate=3e-4",),
    "step size 0.001": ("learner.learning_rate=1e-3",),
    "actor in every step": ("learner.policy_delay=1",),
    "two updates a step": ("learner.updates_per_step=2",),
    "target noise scaled": ("learner.scale_target_noise=true",),
}
"""Of SCCD's settings, the preset's strategy."""
HARDEST = {"pendulum": (2, 3, 7, 8), "cartpole-continuous": (1, 5)}
"""Seeds of the variants: draws where SCCD is farthest from what is possible."""
COSTS = ("total_steps", "gradient_steps", "bytes_up", "bytes_down", "seconds_train")
EPISODES = 100
"""Of the test after training, for each agent (the published protocol's)."""


def main() -> None:
    """Trains what is missing and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment", help="a preset of fedtd3/")
    parser.add_argument("--only", action="append", help="train only this setup; may be repeated")
    parser.add_argument("--seeds", type=int, default=DRAWS, help="how many; seed k has draw (k - 1) %% 5 + 1")
    parser.add_argument("--together", action="store_true", help="a setup's missing seeds in one program")
    parser.add_argument("--std", type=float, help="of the environments' parameters (default: the preset's)")
    parser.add_argument("--steps", type=int, help="of each agent (default: the preset's)")
    parser.add_argument("--width", type=int, help="of every hidden layer (default: the preset's, 256 as published)")
    parser.add_argument("--variants", action="store_true", help="of SCCD's settings, one at a time")
    parser.add_argument("--attack", help="one of five agents does this; compares aggregators under FedTD3")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks"), help="where the runs are kept")
    parser.add_argument("--set", action="append", default=[], metavar="key=value", help="for every setup")
    options = parser.parse_args()
    if options.variants and (options.environment not in HARDEST or options.together or options.attack):
        parser.error(f"--variants is for {' and '.join(HARDEST)}, without --together and --attack")
    common = list(options.set)
    what = "preset" if options.std is None else f"std{options.std:g}"
    if options.std is not None:
        common.append(f"environment.heterogeneity.std={options.std}")
    if options.steps is not None:
        common.append(f"budget.steps_per_agent={options.steps}")
        what += f"_steps{options.steps}"
    if options.width is not None:
        what += f"_width{options.width}"
        layers = {"actor": 2, "feature": 2, "head": 1}
        common += [f"learner.{part}_layers={[options.width] * count}" for part, count in layers.items()]
    setups, everything = SETUPS, tuple(range(1, options.seeds + 1))
    if options.variants:
        what += "_variants"
        setups, everything = VARIANTS, HARDEST[options.environment]
    if options.attack is not None:
        what += f"_{options.attack}"
        common += [f"attack={options.attack}", "attack.agents=1"]
        setups = AGGREGATORS
    what += "".join(f"_{key.rsplit('.')[-1]}{value}" for key, _, value in (each.partition("=") for each in options.set))
    name = f"fedtd3_{options.environment}_{what}"
    # By seed first, so that an unfinished table compares its setups on the same draws.
    each = [((seed,), label) for seed in everything for label in options.only or setups]
    for seeds, label in [(everything, label) for label in options.only or setups] if options.together else each:
        missing = [seed for seed in seeds if str(seed) not in read_runs(name).get(label, {})]
        if not missing:
            continue
        path = options.runs / name / label / f"seeds-{missing[0]}-{missing[-1]}"
        draw = (missing[0] - 1) % DRAWS + 1
        settings = [*common, *setups[label], f"environment.heterogeneity.trial={draw}", f"seed={missing[0]}"]
        count = missing[-1] - missing[0] + 1
        if count > 1:
            # From the first seed's draw on, so seeds that go on in the middle of the draws cannot be together.
            assert draw == 1, f"train seeds {missing[0]} to {missing[0] + DRAWS - draw} one by one first"
            settings.append(f"environment.draws={DRAWS}")
        run = train_or_resume(f"fedtd3/{options.environment}", settings, seeds=count, out=path, progress=False)
        record_runs(name, label, measured(run), order=list(setups), row=summarised)
        print(name, label, {seed: read_runs(name)[label][str(seed)]["return"] for seed in missing}, flush=True)


def measured(run: Run) -> dict[str, dict[str, Any]]:
    """By seed: returns of a test in every agent's environment, the curve that led there, and what it cost."""
    tests = run.evaluate(episodes=EPISODES)
    summary, metrics = run.summary(), run.metrics()
    results = {}
    for position, (seed, test) in enumerate(tests.items()):
        returns = np.asarray(test.returns).reshape(run.config.federation.agents, EPISODES).mean(1)
        rows = [row for row in metrics if row["seed"] == seed and np.isfinite(row.get("return", np.nan))]
        # What is one number for all seeds is that of all that were trained together.
        totals = {name: np.ravel(summary[name])[position * (np.size(summary[name]) > 1)] for name in COSTS}
        results[str(seed)] = {
            "return": round(float(returns.mean()), 1),
            "returns_of_agents": [round(float(x), 1) for x in returns],
            "curve": {
                "steps_per_agent": [round(row["agent_steps"] / run.config.federation.agents) for row in rows],
                "return": [round(row["return"], 1) for row in rows],
            },
            "costs": {name: round(float(total)) for name, total in totals.items()},
            "seeds_together": len(tests),
            "device": jax.devices()[0].device_kind,
        }
    return results


def summarised(setup: str, runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One setup's row: the interquartile mean with its interval, the worst agent, the spread, the costs.

    ``above_baseline`` is the mean difference to FedAvg, plain averaging or the preset, seed by seed.
    """
    each = runs[setup]
    agents = np.array([run["returns_of_agents"] for run in each.values()])
    scores = by_draw({seed: run["return"] for seed, run in each.items()})
    row: dict[str, Any] = {
        "seeds": len(each),
        "iqm": round(float(iqm(scores)), 1),
        "interval_95": interval(scores, iqm),
        "mean": round(float(scores.mean()), 1),
        "mean_interval_95": interval(scores, mean),
        "worst_agent": round(float(agents.min(1).mean()), 1),
        "deviation_of_agents": round(float(agents.std(1).mean()), 1),
    }
    baseline = next((name for name in ("fedavg", "mean", "preset") if name in runs), setup)
    shared = {
        seed: run["return"] - runs[baseline][seed]["return"] for seed, run in each.items() if seed in runs[baseline]
    }
    if baseline != setup and shared:
        differences = by_draw(shared)
        row["above_baseline"] = round(float(differences.mean()), 1)
        row["above_baseline_interval_95"] = interval(differences, mean)
    return row | {"costs": {name: round(np.mean([run["costs"][name] for run in each.values()])) for name in COSTS}}


def by_draw(scores: dict[str, float]) -> np.ndarray:
    """Scores by seed as ``[runs, draws]`` where its draws have equally many and at least two, else ``[seeds, 1]``."""
    values = np.array([scores[seed] for seed in sorted(scores, key=int)])
    repeats = collections.Counter((int(seed) - 1) % DRAWS for seed in scores)
    if min(repeats.values()) > 1 and len(set(repeats.values())) == 1:
        return values.reshape(-1, len(repeats))
    return values[:, None]


def interval(scores: np.ndarray, statistic: Statistic) -> list[float] | None:
    """95 % by a bootstrap of the runs within every column; None where a column has but one."""
    if len(scores) == 1:
        return None
    return [round(float(x), 1) for x in stratified_bootstrap(scores, statistic)]


if __name__ == "__main__":
    main()
