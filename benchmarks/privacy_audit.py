"""What attacks on messages come to: epsilon that is certain beside epsilon claimed, reconstruction, recomputation.

    python benchmarks/privacy_audit.py

CartPole by three agents whose policies have 16 and 16 hidden units, fresh. A1 in 20 runs of canaries for each level of
noise (the unit is a trajectory, neighbours differ by replacement); A3 and A6 with and without protection, A3 in 3 runs.
The results go to benchmarks/results/privacy_audit.json.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import jax
import numpy as np

from fedrax.audit.base import Answers, Effort, Leak
from fedrax.audit.canaries import Trajectories
from fedrax.audit.recomputation import Recomputation
from fedrax.audit.reconstruction import Reconstruction
from fedrax.audit.setting import Setting, made_setting
from fedrax.config import resolve

from common import save

CARTPOLE = [
    *("environment=CartPole-v1", "federation.agents=3", "budget.rounds=1", "learner=policy-gradient"),
    *("learner.hidden=[16,16]", "learner.normalisation=trajectories", "learner.baseline=none"),
    *("strategy=gpomdp", "strategy.batch=16"),
]
UNIT = ["privacy.unit=trajectory", "privacy.clip=1"]
NOISES = (0.5, 1.0, 2.0, 4.0, 8.0)
SETUPS = {
    "none": [],
    "clip": ["privacy.clip=1"],
    **{f"noise {z:g}": [*UNIT, f"privacy.noise={z:g}"] for z in NOISES},
    "secure sum": ["privacy.clip=1", "privacy.secure_sum=true"],
}
RUNS, RECONSTRUCTIONS = 20, 3


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=4000, help="releases of a run")
    effort = Effort(repetitions=parser.parse_args().repetitions)
    results: dict[str, Any] = {"A1": {}, "A3": {}, "A6": {}}
    for name in (f"noise {z:g}" for z in NOISES):
        results["A1"][name] = epsilons(attacked(Trajectories(), setting(name), effort, RUNS))
        print("A1", name, results["A1"][name], flush=True)
    for name in SETUPS:
        results["A3"][name] = means(attacked(Reconstruction(), setting(name), effort, RECONSTRUCTIONS))
        print("A3", name, results["A3"][name], flush=True)
    for name in ("none", "noise 2"):
        results["A6"][name] = Recomputation().answers(setting(name), effort, jax.random.key(0))
    shared = made_setting(resolve({}, [*CARTPOLE, "runtime=flower", "runtime.shared_seeds=true"]))
    results["A6"]["nodes with shared seeds"] = Recomputation().answers(shared, effort, jax.random.key(0))
    save("privacy_audit", results | {"repetitions": effort.repetitions})


def setting(name: str) -> Setting:
    """That of a setup."""
    return made_setting(resolve({}, [*CARTPOLE, *SETUPS[name]]))


def attacked(leak: Leak, setting: Setting, effort: Effort, runs: int) -> list[Answers]:
    """What one attack comes to, each time with other draws."""
    began = time.perf_counter()
    each = [leak.answers(setting, effort, jax.random.key(run)) for run in range(runs)]
    print(f"{leak.id}: {time.perf_counter() - began:.0f} s", flush=True)
    return each


def epsilons(each: list[Answers]) -> dict[str, Any]:
    """The epsilons of all runs, and in how many the certain one is within the claimed one."""
    certain = [float(answers["epsilon_at_least"] or 0) for answers in each]
    claimed = float(each[0]["epsilon_claimed"] or np.inf)
    return {
        "claimed": round(claimed, 3),
        "within": sum(epsilon <= claimed for epsilon in certain),
        "runs": len(each),
        "auc": round(float(np.mean([answers["auc"] for answers in each])), 3),
        "at_least": [round(epsilon, 2) for epsilon in certain],
    }


def means(each: list[Answers]) -> dict[str, float]:
    """Over runs."""
    return {name: round(float(np.mean([answers[name] for answers in each])), 3) for name in each[0]}


if __name__ == "__main__":
    main()
