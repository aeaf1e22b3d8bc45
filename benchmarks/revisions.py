"""Speed before and after: the same trainings by two revisions of Fedrax, taking turns, on one machine.

    python benchmarks/revisions.py 7938113            # against the working tree
    python benchmarks/revisions.py 7938113 --pairs 3 --only cartpole

Every training is a process of its own with the optimised programs of a cache that both revisions share; within a pair
the order alternates. A run records the seconds of the rounds from one checkpoint to the next, which are the same work
in every repetition: of each such block the fastest counts, since all that disturbs a machine makes it slower. The
figure is environment steps per second over all blocks after the first. A ratio above 1 says that the working tree is
faster; the ratios of single pairs are beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import save

ROOT = Path(__file__).parent.parent
NO_BUDGET = ("budget.trajectories=none", "budget.steps=none", "budget.steps_per_agent=none", "seeds=1")
SPARSE = ("evaluation.every=1000", "evaluation.episodes=1")
CASES = {
    "FedPG-BR, CartPole, 10 agents": ("fedpg-br/cartpole", "budget.rounds=100", "checkpoint.every=10"),
    "FedPG-BR, CartPole, 1,000 agents": (
        *("fedpg-br/cartpole", "budget.rounds=6", "checkpoint.every=1", "federation.agents=1000"),
        *("attack.agents=0", "attack=none", "environment.horizon=200"),
    ),
    "FedTD3, pendulum": ("fedtd3/pendulum", "budget.rounds=4", "checkpoint.every=1"),
    "federated PPO, CartPole": ("fedppo/cartpole", "budget.rounds=60", "checkpoint.every=5"),
    "federated PPO, simple crossing": ("fedppo/simple-crossing", "budget.rounds=8", "checkpoint.every=1"),
    "FedPG-BR, LunarLander by EnvPool": ("fedpg-br/lunarlander", "budget.rounds=12", "checkpoint.every=2"),
}
TRAIN = """
import json, sys, fedrax
from pathlib import Path
preset, *overrides = json.loads(sys.argv[1])
run = fedrax.train(preset, overrides, out=Path(sys.argv[2]), progress=False)
"""


def measure(source: Path, case: str) -> list[tuple[float, float]]:
    """Environment steps and seconds of every block but the first, of one training with the package in ``source``."""
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
    blocks = [lines[first : first + every] for first in range(every, len(lines), every)]
    return [
        (sum(row["agent_steps"] + row["server_steps"] for row in block), sum(row["seconds"] for row in block))
        for block in blocks
    ]


def rate(repetitions: list[list[tuple[float, float]]]) -> float:
    """Steps per second, every block's seconds the fewest of all repetitions."""
    blocks = [(block[0][0], min(seconds for _, seconds in block)) for block in zip(*repetitions, strict=True)]
    return sum(steps for steps, _ in blocks) / sum(seconds for _, seconds in blocks)


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
                runs: dict[Path, list[list[tuple[float, float]]]] = {before: [], ROOT: []}
                for source in runs:
                    measure(source, case)  # Fills the cache.
                for number in range(options.pairs):
                    for source in (before, ROOT) if number % 2 == 0 else (ROOT, before):
                        runs[source].append(measure(source, case))
                earlier, after = rate(runs[before]), rate(runs[ROOT])
                pairs = [rate([new]) / rate([old]) for old, new in zip(*runs.values(), strict=True)]
                results[case] = {
                    "before": round(earlier),
                    "after": round(after),
                    "ratio": round(after / earlier, 3),
                    "pairs": [round(ratio, 3) for ratio in pairs],
                }
                print(case, results[case], flush=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(before)], cwd=ROOT, check=True)
    if not options.only:
        save("revisions", {"before": options.before, "unit": "environment steps per second", "cases": results})


if __name__ == "__main__":
    main()
