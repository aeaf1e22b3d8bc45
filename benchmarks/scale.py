"""Scale: 10 to 10,000 CartPole agents in one process; steps/s, seconds per round and peak memory of each.

    python benchmarks/scale.py                        # FedPG-BR's filter, whose distances grow with the square
    python benchmarks/scale.py --aggregator mean

Each size is a process of its own, so that its peak memory is its own. All agents hold a balancing policy (trained
first, for two seconds), so that every episode has its full 500 steps and sizes are comparable.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import jax
import numpy as np

from fedrax.config import resolve
from fedrax.runtime.make import make_runtime

from common import save

SIZES = (10, 100, 1_000, 10_000)


def measure(agents: int, aggregator: str) -> dict[str, float]:
    """One size, in this process."""
    learnt = make_runtime(resolve("fedpg-br/cartpole", ["budget.rounds=100", "budget.trajectories=none"]))
    state = learnt.init()
    for block in range(10):
        ((state, _),) = learnt.advance(state, 10 * block)

    rounds = 2
    config = resolve(
        "fedpg-br/cartpole",
        [f"federation.agents={agents}", f"aggregator={aggregator}", f"checkpoint.every={rounds}"],
    )
    runtime = make_runtime(config)
    fresh = runtime.init()
    server = jax.tree.map(lambda new, old: old if new.shape == old.shape else new, fresh.server, state.server)
    fresh = type(fresh)(server, fresh.agents, fresh.tally, fresh.best, fresh.best_return)
    started = time.perf_counter()
    runtime.compile(fresh)
    compile_seconds = time.perf_counter() - started
    steps, seconds = [], []
    for block in range(3):
        ((fresh, metrics),) = runtime.advance(fresh, rounds * block)
        steps.append(float((metrics["agent_steps"] + metrics["server_steps"]).sum()))
        seconds.append(float(metrics["seconds"].sum()))
    best = int(np.argmax(np.array(steps) / np.array(seconds)))
    return {
        "agents": agents,
        "steps_per_second": round(steps[best] / seconds[best]),
        "seconds_per_round": round(seconds[best] / rounds, 4),
        "microseconds_per_agent_and_round": round(1e6 * seconds[best] / rounds / agents, 1),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "seconds_compile": round(compile_seconds, 2),
    }


def main() -> None:
    """All sizes, one process each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aggregator", default="fedpg-filter")
    parser.add_argument("--size", type=int, help="measure this size in this process and print it")
    options = parser.parse_args()
    if options.size:
        print(json.dumps(measure(options.size, options.aggregator)))
        return
    rows = []
    for size in SIZES:
        command = [sys.executable, __file__, "--aggregator", options.aggregator, "--size", str(size)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append(json.loads(printed.splitlines()[-1]))
        print(rows[-1])
    save(f"scale_{options.aggregator}", rows)


if __name__ == "__main__":
    main()
