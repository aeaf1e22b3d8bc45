"""What compressing updates costs: return and bytes of federated averaging of TD3 on Pendulum, by compression.

    python benchmarks/compression_returns.py
    python benchmarks/compression_returns.py --only none int8

Five agents on the same pendulum, networks of width 64, 10,000 steps of each agent, 100 in a round; five seeds train in
one program, and each final policy is tested in 50 episodes. What is recorded in
benchmarks/results/compression_returns.json is not trained again.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from fedrax.config import resolve
from fedrax.evaluation.statistics import mean, stratified_bootstrap
from fedrax.runtime.make import make_runtime

from common import read_runs, record_runs

NAME = "compression_returns"
SEEDS = 5
COMMON = [
    *("environment.heterogeneity=none", "evaluation.environments=registered", "evaluation.episodes=50"),
    *("strategy=fedavg", "learner.actor_layers=[64, 64]", "learner.feature_layers=[64, 64]"),
    *("learner.head_layers=[64]", "budget.steps_per_agent=10000", "checkpoint.every=25", "evaluation.every=25"),
    *(f"seeds={SEEDS}", "seed=1"),
]
WHOLE = ["strategy.actor_every=1"]
"""Critics and actor in every round: what chooses among all numbers of an update needs them all."""
TOP = [*WHOLE, "compression=top-k", "compression.share=0.01"]
SETUPS = {
    "none": [],
    "float16": ["compression=float16"],
    "int8": ["compression=int8"],
    "none, all in every round": WHOLE,
    "top-k 1 %, all in every round": TOP,
    "top-k 1 %, without feedback": [*TOP, "compression.error_feedback=false"],
}
BESIDE = {name: "none, all in every round" for name in SETUPS if name not in ("none", "float16", "int8")}
"""What a setup is compared with, where that is not ``none``."""


def main() -> None:
    """Every setup, or some."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=SETUPS, default=list(SETUPS))
    for setup in parser.parse_args().only:
        if setup in read_runs(NAME):
            continue
        record_runs(NAME, setup, trained(SETUPS[setup]), order=list(SETUPS), row=summarised)
        print(setup, summarised(setup, read_runs(NAME)), flush=True)


def trained(overrides: list[str]) -> dict[str, Any]:
    """Each seed's returns, by its number, and the bytes of a message."""
    config = resolve("fedtd3/pendulum", [*COMMON, *overrides])
    runtime = make_runtime(config)
    state, first, began, curve = runtime.init(), 0, time.perf_counter(), []
    while True:
        ((state, rows),) = runtime.advance(state, first)
        if not np.asarray(rows["active"])[:, -1].all():
            break
        curve.append(np.asarray(rows["return"])[:, -1])
        first += runtime.rounds_per_call
    seconds = round((time.perf_counter() - began) / SEEDS)
    return {
        str(seed): {
            "curve": [round(float(point[position]), 1) for point in curve],
            "bytes_up": runtime.message_bytes(0)[0],
            "seconds": seconds,
        }
        for position, seed in enumerate(config.all_seeds)
    }


def summarised(setup: str, runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The mean final return with the 95 % interval of a bootstrap over seeds, and the share of the plain bytes."""
    each = list(runs[setup].values())
    returns = np.array([run["curve"][-1] for run in each])
    low, high = stratified_bootstrap(returns, mean)
    beside = runs.get(BESIDE.get(setup, "none"))
    plain = None if beside is None else next(iter(beside.values()))["bytes_up"]
    return {
        "return": [round(float(x), 1) for x in (returns.mean(), low, high)],
        "bytes_up": each[0]["bytes_up"],
        "share_of_plain": None if plain is None else round(each[0]["bytes_up"] / plain, 4),
        "seconds": sum(run["seconds"] for run in each),
    }


if __name__ == "__main__":
    main()
