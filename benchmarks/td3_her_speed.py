"""Speed of TD3 with hindsight experience replay: beside its environments alone, by part of an update, and by agents.

    python benchmarks/td3_her_speed.py training   # FetchReach and FetchPush (needs the robotics and envpool extras)
    python benchmarks/td3_her_speed.py replay     # what a relabelled minibatch costs of an update
    python benchmarks/td3_her_speed.py agents     # td3-her/point-push, 10 to 1,000 agents in one program

``training`` counts environment steps per second with one critic update for 10 of them, in turn with the same copies
stepped by random actions and nothing else. Every measurement is a process of its own. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedrax.api import train
from fedrax.config import resolve
from fedrax.environments.base import Box
from fedrax.environments.host import make_host
from fedrax.learners.base import Objective
from fedrax.learners.hindsight import HindsightReplay
from fedrax.learners.off_policy import Training
from fedrax.learners.td3 import TD3
from fedrax.runtime.make import make_runtime

from common import best, save

COPIES = 10
"""Of the environment: one critic update follows each step of all of them."""
UPDATED = [f"environment.num_envs={COPIES}", "learner.num_steps=100", "learner.updates_per_step=1"]
WARM, TIMED = 3, 6
"""Rounds before the measured ones, and those."""
SIZES = (10, 100, 1_000)
AGENTS_ROUNDS = 5


def training(task: str, *, updates: bool) -> float:
    """Environment steps per second of a training, of which the first rounds are not counted."""
    # None before the last round, of 45,000 steps in all.
    starts = 500 if updates else 500_000
    settings = [*UPDATED, f"learner.learning_starts={starts}", "federation.local_updates=5"]
    return rate(f"td3-her/{task}", settings, WARM, TIMED)[0]


def rate(source: str, settings: list[str], warm: int, timed: int) -> tuple[float, float]:
    """Environment steps per second, and seconds per round, of the last ``timed`` rounds."""
    rounds = warm + timed
    ends = ["budget.steps_per_agent=none", f"budget.rounds={rounds}", f"checkpoint.every={warm}"]
    with tempfile.TemporaryDirectory() as folder:
        settings = [*settings, *ends, f"evaluation.every={rounds}", "evaluation.episodes=1"]
        rows = train(source, settings, out=Path(folder) / "run", progress=False).metrics()
    before, last = rows[warm - 1], rows[-1]
    seconds = last["seconds"] - before["seconds"]
    return (last["total_steps"] - before["total_steps"]) / seconds, seconds / timed


def environments(task: str) -> float:
    """Steps per second of the environments alone, under random actions."""
    config = resolve(f"td3-her/{task}", UPDATED)
    made = make_host(config.environment.id, COPIES)
    made.reseed(np.arange(COPIES))
    made.reset()
    action = made.spaces.action
    assert isinstance(action, Box)
    shape = (100, COPIES, *action.shape)
    actions = np.random.default_rng(0).uniform(action.low, action.high, shape).astype(np.float32)
    for each in actions:
        made.step(each)
    rounds = 5 * TIMED
    started = time.perf_counter()
    for _ in range(rounds):
        for each in actions:
            made.step(each)
    seconds = time.perf_counter() - started
    made.close()
    return rounds * len(actions) * COPIES / seconds


def replay(task: str) -> dict[str, float]:
    """Milliseconds of a critic update (with its share of the actor's), and of its relabelled minibatch alone."""
    runtime = make_runtime(resolve(f"td3-her/{task}"))
    learner = runtime.federation.learner
    assert isinstance(learner, TD3)
    agent = jax.tree.map(lambda x: x[0], runtime.federation.init(jax.random.key(0)).agents)
    filled = full(agent.memory.replay, learner.horizon)
    start = Training(agent.params, agent.optimizer, agent.memory.target, ())
    key = jax.random.key(1)
    shape = (learner.critic_updates // learner.policy_delay, learner.policy_delay, learner.batch_size)
    update = best(jax.jit(lambda replay: learner.updates(start, replay, Objective(), key)), filled)
    sample = best(jax.jit(lambda replay: replay.sample(key, shape)), filled)
    each = 1e3 / learner.critic_updates
    runtime.close()
    return {"update_ms": update * each, "minibatch_ms": sample * each, "share": sample / update}


def full(replay: HindsightReplay, horizon: int) -> HindsightReplay:
    """The replay full of finished episodes of noise."""
    copies, capacity = replay.step.shape
    whole = capacity // horizon * horizon
    step = jnp.tile(jnp.arange(capacity, dtype=jnp.int32) % horizon, (copies, 1))
    rows = jax.random.normal(jax.random.key(2), replay.rows.shape)
    size = jnp.full(copies, whole, jnp.int32)
    return dataclasses.replace(replay, rows=rows, step=step, left=horizon - 1 - step, cursor=size, size=size)


def agents(count: int) -> dict[str, float]:
    """One round of so many agents."""
    settings = [f"federation.agents={count}", "learner.buffer_size=20000", "learner.learning_starts=256"]
    # As many rounds as before them, which are the same program.
    steps, seconds = rate("td3-her/point-push", settings, AGENTS_ROUNDS, AGENTS_ROUNDS)
    return {
        "agents": count,
        "steps_per_second": round(steps),
        "milliseconds_per_agent_and_round": round(1e3 * seconds / count, 2),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def apart(*arguments: str) -> Any:
    """What this script prints in a process of its own."""
    command = [sys.executable, __file__, "measure", *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def measured(what: str, *arguments: str) -> Any:
    """One measurement, in this process."""
    if what == "environments":
        return environments(*arguments)
    if what == "training":
        return training(arguments[0], updates=arguments[1] == "updates")
    if what == "replay":
        return replay(*arguments)
    return agents(int(arguments[0]))


def training_table(repeats: int) -> dict[str, Any]:
    """By task: medians of steps per second, and of the shares of the environments' rate."""
    table: dict[str, Any] = {}
    for task in ("reach", "push"):
        names = {
            "environments": ("environments", task),
            "collecting": ("training", task, "none"),
            "training": ("training", task, "updates"),
        }
        each = [{name: apart(*arguments) for name, arguments in names.items()} for _ in range(repeats)]
        row = {name: round(float(np.median([one[name] for one in each]))) for name in names}
        shares = {
            f"{name}_share": round(float(np.median([one[name] / one["environments"] for one in each])), 3)
            for name in ("collecting", "training")
        }
        table[task] = row | shares
        print(task, table[task], flush=True)
    return table


def agents_table(repeats: int) -> dict[str, Any]:
    """By number of agents, in turn: the measurement in the middle, and the milliseconds of all."""
    name = "milliseconds_per_agent_and_round"
    each: dict[int, list[dict[str, Any]]] = {count: [] for count in SIZES}
    for _ in range(repeats):
        for count in SIZES:
            each[count].append(apart("agents", str(count)))
            print(each[count][-1], flush=True)
    table: dict[str, Any] = {}
    for count, rows in each.items():
        ordered = sorted(rows, key=lambda row: row[name])
        table[str(count)] = ordered[repeats // 2] | {"each": [row[name] for row in rows]}
    return table


def main() -> None:
    """One of the three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("training", "replay", "agents", "measure"), metavar="training|replay|agents")
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=3, help="measurements in turn (training, agents)")
    options = parser.parse_args()
    if options.what == "measure":
        print(json.dumps(measured(*options.arguments)))
        return
    if options.what == "training":
        results = training_table(options.repeats)
    elif options.what == "replay":
        tasks = ("reach", "push", "point-push")
        results = {task: {name: round(x, 4) for name, x in apart("replay", task).items()} for task in tasks}
    else:
        results = agents_table(options.repeats)
    print(json.dumps(results, indent=1))
    save(f"td3_her_speed_{options.what}", results)


if __name__ == "__main__":
    main()
