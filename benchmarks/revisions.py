"""Speed before and after: the same trainings by two revisions of Fedrax, taking turns, on one machine.

    python benchmarks/revisions.py 7938113            # against the working tree
    python benchmarks/revisions.py 7938113 --pairs 3 --only cartpole

Every training is a process of its own with the optimised programs of a cache that both revisions share. Its figure is
environment steps per second over the rounds after the first checkpoint, by the seconds that the run itself recorded;
within a pair the order alternates. A ratio above 1 says that the working tree is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import save

ROOT = Path(__file__).parent.parent
NO_BUDGET = ("budget.trajectories=none", "budget.steps=none", "budget.steps_per_agent=none", "seeds=1")
SPARSE = ("evaluation.every=1000", "evaluation.episodes=1")
CASES = {
    "FedPG-BR, CartPole, 10 agents": ("fedpg-br/cartpole", "budget.rounds=60", "checkpoint.every=20"),
    "FedPG-BR, CartPole, 1,000 agents": (
        *("fedpg-br/cartpole", "budget.rounds=6", "checkpoint.every=2", "federation.agents=1000"),
        *("attack.agents=0", "attack=none", "environment.horizon=200"),
    ),
    "FedTD3, pendulum": ("fedtd3/pendulum", "budget.rounds=6", "checkpoint.every=2"),
    "federated PPO, CartPole": ("fedppo/cartpole", "budget.rounds=30", "checkpoint.every=10"),
    "federated PPO, crossing": ("fedppo/crossing", "budget.rounds=3", "checkpoint.every=1"),
    "FedPG-BR, LunarLander by EnvPool": ("fedpg-br/lunarlander", "budget.rounds=12", "checkpoint.every=4"),
}
TRAIN = """
import json, sys, fedrax
from pathlib import Path
preset, *overrides = json.loads(sys.argv[1])
run = fedrax.train(preset, overrides, out=Path(sys.argv[2]), progress=False)
"""


def measure(source: Path, case: str) -> float:
    """Steps per second of one training with the package in ``source``."""
    preset, *overrides = CASES[case]
    every = next(int(text.partition("=")[2]) for text in overrides if text.startswith("checkpoint.every"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        arguments = json.dumps([preset, *NO_BUDGET, *SPARSE, *overrides])
        variables = {**os.environ, "PYTHONPATH": str(source / "src"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        command = [sys.executable, "-c", TRAIN, arguments, str(out)]
        done = subprocess.run(command, env=variables, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{case}: {done.stderr.strip().splitlines()[-1]}")
        lines = [json.loads(line) for path in out.rglob("metrics.jsonl") for line in path.read_text().splitlines()]
    rows = [row for row in lines if row["round"] >= every]
    steps = sum(row["agent_steps"] + row["server_steps"] for row in rows)
    return float(steps / sum(row["seconds"] for row in rows))


def main() -> None:
    """All cases, in pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="a revision of git")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "before"
        subprocess.run(["git", "worktree", "add", "--detach", str(before), options.before], cwd=ROOT, check=True)
        try:
            results = {}
            for case in (name for name in CASES if options.only in name):
                pairs = []
                for source in (before, ROOT):
                    measure(source, case)  # Fills the cache.
                for number in range(options.pairs):
                    order = (before, ROOT) if number % 2 == 0 else (ROOT, before)
                    rates = {source: measure(source, case) for source in order}
                    pairs.append((rates[before], rates[ROOT]))
                ratios = sorted(after / earlier for earlier, after in pairs)
                results[case] = {
                    "before": round(statistics.median(pair[0] for pair in pairs)),
                    "after": round(statistics.median(pair[1] for pair in pairs)),
                    "ratios": [round(ratio, 3) for ratio in ratios],
                    "median_ratio": round(statistics.median(ratios), 3),
                }
                print(case, results[case], flush=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(before)], cwd=ROOT, check=True)
    if not options.only:
        save("revisions", {"before": options.before, "unit": "environment steps per second", "cases": results})


if __name__ == "__main__":
    main()
