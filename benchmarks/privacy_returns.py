"""What differential privacy costs: final return by epsilon, by who adds the noise, and by how many agents there are.

    python benchmarks/privacy_returns.py agents
    python benchmarks/privacy_returns.py agents --agents 10 100
    python benchmarks/privacy_returns.py trajectories

``agents``: a policy gradient on CartPole (episodes of at most 200 steps, one of each agent in a round, 25 rounds), the
whole influence of an agent bounded; delta is min(1e-5, n^-1.1). ``trajectories``: GPOMDP of 10 agents, 16 episodes of
each in a round, 60 rounds, the influence of one episode bounded by noise of 0.5, 1 and 2 times the clip. Five seeds
train in one program; the final policy is tested in 100 greedy episodes. What is recorded in
benchmarks/results/privacy_returns_*.json is not trained again.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from fedrax.config import resolve
from fedrax.evaluation.statistics import mean, stratified_bootstrap
from fedrax.privacy.guarantee import guarantee
from fedrax.runtime.make import make_runtime

from common import read_runs, record_runs

AGENTS = (10, 100, 1_000, 10_000)
EPSILONS = (1, 4, 8)
SEEDS = 5
COMMON = [
    *("environment=CartPole-v1", "environment.horizon=200", "learner=policy-gradient", "strategy=gpomdp"),
    *("learner.hidden=[16]", "learner.normalisation=trajectories", "learner.estimator=whitened"),
    *(f"seeds={SEEDS}", "seed=1", "evaluation.episodes=100"),
]
MODELS = {
    "central": ["privacy.model=central"],
    "local": ["privacy.model=local"],
    "distributed": ["privacy.model=distributed", "privacy.secure_sum=true"],
}


def main() -> None:
    """One of the two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("agents", "trajectories"))
    parser.add_argument("--agents", type=int, nargs="*", choices=AGENTS, default=list(AGENTS))
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    options = parser.parse_args()
    setups = by_agent(options.agents, options.models) if options.table == "agents" else by_trajectory()
    name = f"privacy_returns_{options.table}"
    order = list(by_agent(AGENTS, MODELS)) if options.table == "agents" else list(by_trajectory())
    for setup, overrides in setups.items():
        if setup in read_runs(name):
            continue
        record_runs(name, setup, trained(overrides), order=order, row=summarised)
        print(setup, summarised(setup, read_runs(name)), flush=True)


def by_agent(agents: Any, models: Any) -> dict[str, list[str]]:
    """Setups whose unit of privacy is an agent."""
    setups = {}
    for n in agents:
        base = [f"federation.agents={n}", "strategy.batch=1", "budget.rounds=25", "learner.learning_rate=0.05"]
        setups[f"{n} agents, none"] = [*base, *ends(25)]
        for model in models:
            for epsilon in EPSILONS:
                unit = ["privacy.unit=agent", "privacy.clip=1", f"privacy.epsilon={epsilon}"]
                setups[f"{n} agents, {model}, epsilon {epsilon}"] = [*base, *ends(25), *unit, *MODELS[model]]
    return setups


def by_trajectory() -> dict[str, list[str]]:
    """Setups whose unit of privacy is an episode."""
    base = ["federation.agents=10", "strategy.batch=16", "budget.rounds=60", "learner.learning_rate=0.02", *ends(60)]
    unit = ["privacy.unit=trajectory", "privacy.clip=1"]
    return {
        "none": base,
        "clipped": [*base, *unit, "privacy.noise=0"],
        **{f"noise {z:g}": [*base, *unit, f"privacy.noise={z:g}"] for z in (0.5, 1, 2)},
        "local, noise 2": [*base, *unit, "privacy.noise=2", "privacy.model=local"],
    }


def ends(rounds: int) -> list[str]:
    """One checkpoint and one evaluation, at the end."""
    return [f"checkpoint.every={rounds}", f"evaluation.every={rounds}"]


def trained(overrides: list[str]) -> dict[str, Any]:
    """The final return of each seed, by its number."""
    config = resolve({}, [*COMMON, *overrides])
    runtime = make_runtime(config)
    state, began = runtime.init(), time.perf_counter()
    ((state, rows),) = runtime.advance(state, 0)
    seconds = time.perf_counter() - began
    bound = guarantee(config.privacy, config.federation)
    rounds = config.budget.rounds or 0
    return {
        str(seed): {
            "return": round(float(rows["return"][position, -1]), 1),
            "noise": None if bound is None else round(bound.noise, 3),
            "epsilon": None if bound is None or bound.noise == 0 else round(bound.epsilon(rounds), 3),
            "seconds": round(seconds / SEEDS, 1),
        }
        for position, seed in enumerate(config.all_seeds)
    }


def summarised(setup: str, runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The mean final return with the 95 % interval of a bootstrap over seeds, and what it cost."""
    each = list(runs[setup].values())
    returns = np.array([run["return"] for run in each])
    low, high = stratified_bootstrap(returns, mean)
    return {
        "return": [round(float(x), 1) for x in (returns.mean(), low, high)],
        "noise": each[0]["noise"],
        "epsilon": each[0]["epsilon"],
        "seconds": round(sum(run["seconds"] for run in each)),
    }


if __name__ == "__main__":
    main()
