"""What clipping and noise cost of a compiled round: a thousand CartPole agents, with and without, in turn.

    python benchmarks/privacy_speed.py

All agents hold a policy trained for two seconds, so that episodes are long and equal in both. Each pair is the two
programs one after the other; the ratio of a pair is theirs. The machine must be idle.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import jax

from fedrax.config import resolve
from fedrax.runtime.base import Runtime
from fedrax.runtime.make import make_runtime

from common import save

PAIRS, ROUNDS = 7, 2
COMMON = [
    *("strategy=gpomdp", "attack=none", "attack.agents=0", "learner.normalisation=trajectories"),
    *("learner.baseline=none", f"checkpoint.every={ROUNDS}", "evaluation.every=1000", "budget.trajectories=none"),
    "budget.rounds=1000",
]
CHAINS = {
    "none": [],
    "agent, central": ["privacy.unit=agent", "privacy.clip=1", "privacy.noise=1"],
    "agent, local": ["privacy.unit=agent", "privacy.clip=1", "privacy.noise=1", "privacy.model=local"],
    "trajectory, central": ["privacy.unit=trajectory", "privacy.clip=1", "privacy.noise=1"],
    "agent, secure sum": [
        *("privacy.unit=agent", "privacy.clip=1", "privacy.noise=1", "privacy.model=distributed"),
        "privacy.secure_sum=true",
    ],
}


def main() -> None:
    """Every chain beside none."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    learnt = make_runtime(resolve("fedpg-br/cartpole", ["budget.rounds=100", "budget.trajectories=none"]))
    state = learnt.init()
    for block in range(10):
        ((state, _),) = learnt.advance(state, 10 * block)
    policy = state.server.params
    plain = prepared(CHAINS["none"], policy)
    results: dict[str, Any] = {}
    for name, overrides in CHAINS.items():
        if name == "none":
            continue
        other = prepared(overrides, policy)
        pairs = [(seconds(*plain), seconds(*other)) for _ in range(PAIRS)]
        ratios = sorted(with_ / without for without, with_ in pairs)
        results[name] = {
            "seconds_per_round_without": round(statistics.median(x for x, _ in pairs), 4),
            "ratio": [round(x, 3) for x in (statistics.median(ratios), ratios[0], ratios[-1])],
        }
        print(name, results[name], flush=True)
    save("privacy_speed", {"agents": 1000, "pairs": PAIRS, "chains": results})


def prepared(overrides: list[str], policy: Any) -> tuple[Runtime, Any]:
    """A compiled runtime of a thousand agents, and a state whose policy is this."""
    config = resolve("fedpg-br/cartpole", ["federation.agents=1000", *COMMON, *overrides])
    runtime = make_runtime(config)
    fresh = runtime.init()
    server = type(fresh.server)(policy, fresh.server.optimizer)
    fresh = type(fresh)(server, fresh.agents, fresh.tally, fresh.best, fresh.best_return)
    runtime.compile(fresh)
    return runtime, fresh


def seconds(runtime: Runtime, state: Any) -> float:
    """Of a round, always of the same rounds."""
    state = jax.tree.map(lambda x: x.copy(), state)
    ((_, rows),) = runtime.advance(state, 0)
    return float(rows["seconds"].sum()) / ROUNDS


if __name__ == "__main__":
    main()
