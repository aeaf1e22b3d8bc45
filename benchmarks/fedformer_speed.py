"""What an update of FedFormer costs: its share of a matrix product's rate, and the published size by agents.

    python benchmarks/fedformer_speed.py update   # 5 agents, width 128, one layer, 256 transitions
    python benchmarks/fedformer_speed.py paper    # preset fedformer/paper, 5, 10 and 15 agents

An update is one step of both critics, the actor, the temperature and all targets of every agent, in one program, with
replays full of noise; of the published size, one is measured. ``share`` is the arithmetic that XLA counts in the
program's loop, over the time of an update, beside that of one large product, measured in the same process before and
after. Peak memory is the process's. Each size is measured in a process of its own; on an idle machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from fedrax.config import Config, resolve
from fedrax.learners.base import Objective
from fedrax.learners.off_policy import OffPolicy, Training
from fedrax.runtime.make import make_runtime
from fedrax.runtime.mapping import agents_side_by_side, map_in_batches

from common import best, matrix_peak, save

LAPTOP = [
    *("critic.dim=128", "critic.encoder_layers=[128, 128]", "critic.decoder_layers=[128, 128]"),
    *("critic.feedforward=256", "critic.layers=1", "learner.batch_size=256", "learner.num_steps=8"),
]
PAPER_UPDATES = ["learner.num_steps=1", "learner.updates_per_step=1", "evaluation.environments=own"]
"""One update to a program, which is all that changes: they are alike, and take minutes."""


def update(config: Config, timed: Callable[[Any, Any], float]) -> dict[str, float]:
    """Milliseconds of one update of every agent, its counted arithmetic, and the share of the peak."""
    runtime = make_runtime(config)
    federation = runtime.federation
    learner = federation.learner
    assert isinstance(learner, OffPolicy)
    state = jax.jit(federation.init)(jax.random.key(0))
    downlink = federation.strategy.broadcast(state.server, jax.random.key(1))
    everyone = jnp.arange(federation.agents)

    def learned(inputs: Any) -> Any:
        agent, index, key = inputs
        replay = agent.memory.replay
        full = dataclasses.replace(replay, size=jnp.asarray(replay.rows.shape[0], jnp.int32))
        training = Training(agent.params, agent.optimizer, agent.memory.target, ())
        peers = federation.strategy.context(agent, downlink, index)
        return learner.updates(training, full, Objective(), key, peers)

    inputs = (state.agents, everyone, jax.random.split(jax.random.key(3), federation.agents))
    batch = agents_side_by_side(federation, 1000)
    program = jax.jit(lambda inputs: map_in_batches(learned, inputs, batch)).lower(inputs).compile()
    peak = matrix_peak()
    seconds = timed(program, inputs) / learner.critic_updates
    peak = max(peak, matrix_peak())
    runtime.close()
    # XLA counts a loop's body once: that of the updates, and that of agents where they follow one another.
    counted = program.cost_analysis()["flops"] * (federation.agents if batch == 1 else 1)
    return {
        "agents": federation.agents,
        "milliseconds": round(1e3 * seconds, 2),
        "gigaflop": round(counted / 1e9, 3),
        "gigaflop_per_second": round(counted / seconds / 1e9, 1),
        "peak_gigaflop_per_second": round(peak / 1e9, 1),
        "share": round(counted / seconds / peak, 3),
        "side_by_side": batch,
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def once(program: Callable[[Any], Any], inputs: Any) -> float:
    """Seconds of the first call."""
    started = time.perf_counter()
    jax.block_until_ready(program(inputs))
    return time.perf_counter() - started


def measured(what: str, agents: int) -> dict[str, float]:
    """One size, in this process."""
    timed = once if what == "paper" else partial(best, repeats=5)
    own = LAPTOP if what == "update" else PAPER_UPDATES
    source = "fedformer/laptop" if what == "update" else "fedformer/paper"
    return update(resolve(source, [*own, f"federation.agents={agents}", f"evaluation.episodes={10 * agents}"]), timed)


def main() -> None:
    """One of the two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("update", "paper"))
    parser.add_argument("--agents", type=int, nargs="*", default=None)
    parser.add_argument("--measure", type=int, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measured(options.what, options.measure)))
        return
    results = {}
    for agents in options.agents or ([5] if options.what == "update" else [5, 10, 15]):
        command = [sys.executable, __file__, options.what, "--measure", str(agents)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        results[f"{agents} agents"] = json.loads(done.stdout.splitlines()[-1])
        print(results[f"{agents} agents"], flush=True)
        save(f"fedformer_speed_{options.what}", results)


if __name__ == "__main__":
    main()
