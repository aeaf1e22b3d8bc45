"""Speed: FedPG-BR on CartPole to the end of its budget, and HalfCheetah's share of its environment's own rate.

    python benchmarks/speed.py cartpole               # one seed, then ten together
    python benchmarks/speed.py halfcheetah            # five rounds; needs the envpool extra

Compiling is timed without the persistent cache. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from fedrax.config import Config, resolve
from fedrax.environments.host import make_host
from fedrax.records.rundir import RunDirectory
from fedrax.runtime.make import make_runtime
from fedrax.runtime.training import train_run

from common import save


def trained(config: Config) -> dict[str, float]:
    """The summary of one run, kept nowhere."""
    from fedrax.records.summary import read_summary

    runtime = make_runtime(config)
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory.create(Path(folder) / "run")
        try:
            train_run(config, runtime, directory, progress=False)
        finally:
            runtime.close()
        return read_summary(directory)


def cartpole() -> list[dict[str, object]]:
    """5,000 trajectories per agent, with one seed and with ten."""
    rows = []
    for seeds, limit in ((1, 10.0), (10, 120.0)):
        summary = trained(resolve("fedpg-br/cartpole", [f"seeds={seeds}"]))
        steps = int(np.sum(summary["total_steps"]))
        rows.append(
            {
                "seeds": seeds,
                "seconds_compile": round(summary["seconds_compile"], 2),
                "seconds_train": round(summary["seconds_train"], 2),
                "target_seconds": limit,
                "steps_per_second": round(steps / summary["seconds_train"]),
                "total_steps": steps,
            }
        )
        print(rows[-1])
    return rows


def halfcheetah(rounds: int = 6) -> dict[str, object]:
    """Steps per second of whole rounds, evaluation and learning included, over those of the bare environment."""
    config = resolve(
        "fedpg-br/halfcheetah", [f"budget.rounds={rounds}", "budget.trajectories=none", f"checkpoint.every={rounds}"]
    )
    num_envs = config.federation.agents * config.environment.num_envs
    runtime = make_runtime(config)
    rates, bare = [], []
    try:
        for _, block in runtime.advance(runtime.init(), 0):
            evaluated = config.evaluation.episodes * float(block["episode_length"][0, 0])
            steps = int(block["agent_steps"][0, 0] + block["server_steps"][0, 0]) + evaluated
            rates.append(steps / float(block["seconds"][0, 0]))
            bare.append(bare_rate(config, num_envs))
    finally:
        runtime.close()
    # The first round compiles.
    share = np.median(np.array(rates[1:]) / np.array(bare[1:]))
    result = {
        "num_envs": num_envs,
        "training_steps_per_second": round(float(np.median(rates[1:]))),
        "environment_steps_per_second": round(float(np.median(bare[1:]))),
        "share": round(float(share), 3),
        "target_share": 0.8,
    }
    print(result)
    return result


def bare_rate(config: Config, num_envs: int, steps: int = 100) -> float:
    """Steps per second of the environment alone, random actions, in the batch that training uses."""
    environments = make_host(config.environment.id, num_envs, backend=config.environment.backend)
    environments.reseed(np.arange(num_envs))
    environments.reset()
    actions = np.random.default_rng(0).uniform(-1, 1, (num_envs, 6)).astype(np.float32)
    started = time.perf_counter()
    for _ in range(steps):
        environments.step(actions)
    elapsed = time.perf_counter() - started
    environments.close()
    return num_envs * steps / elapsed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cartpole", "halfcheetah"))
    chosen = parser.parse_args().what
    jax.config.update("jax_enable_compilation_cache", False)
    save(f"speed_{chosen}", cartpole() if chosen == "cartpole" else halfcheetah())
