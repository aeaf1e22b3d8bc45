"""What agents on different tasks lose when averaged networks arrive, by strategy.

    python benchmarks/aggregation_drop.py --seeds 10
    python benchmarks/aggregation_drop.py --only fedavg local

Eight agents on PointReach, PointPush and PointSlide (``td3-her/point-push`` with ``environment.tasks``). Every so many
rounds each agent's policy is tested in its own task twice: as it left local learning, and as it is after the next
broadcast. Success is that of the last step of 20 greedy episodes. A setup's seeds train in one program; what is
recorded in benchmarks/results/aggregation_drop.json is not trained again.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedrax.config import resolve
from fedrax.environments.success import LAST
from fedrax.evaluation.statistics import mean, stratified_bootstrap
from fedrax.federation import Federation, State
from fedrax.runtime.base import Runtime
from fedrax.runtime.make import make_runtime
from fedrax.seeds import derive

from common import read_runs, record_runs

NAME = "aggregation_drop"
AGENTS = 8
TASKS = ["PointReach-v0", "PointPush-v0", "PointSlide-v0"]
EVERY = 10
"""Rounds between tests."""
EPISODES = 20
COMMON = [
    "environment.tasks=" + str(TASKS).replace("'", '"'),
    f"federation.agents={AGENTS}",
    "federation.local_updates=25",
    *("learner.batch_size=64", "learner.updates_per_step=4", "learner.buffer_size=50000"),
    f"checkpoint.every={EVERY}",
    f"evaluation.every={EVERY}",
    "evaluation.episodes=8",
    "evaluation.environments=own",
]
IDENTITY = "environment.task_identity=true"
HEADS = "strategy.head_updates=12"
TARGETS = "strategy.average_targets=true"
MOMENTS = "strategy.moments=average"
SETUPS = {
    "local": ["strategy=local"],
    "fedavg, as the reference": ["strategy=fedavg", "strategy.target_step=0.005"],
    "fedavg, targets averaged": ["strategy=fedavg", TARGETS],
    "fedavg, targets and moments averaged": ["strategy=fedavg", TARGETS, MOMENTS],
    "fedavg, targets averaged, moments reset": ["strategy=fedavg", TARGETS, "strategy.moments=reset"],
    "fedavg, task seen": ["strategy=fedavg", IDENTITY, "strategy.target_step=0.005"],
    "fedavg, task seen, targets averaged": ["strategy=fedavg", IDENTITY, TARGETS],
    "fedavg, task seen, targets and moments averaged": [
        "strategy=fedavg",
        IDENTITY,
        TARGETS,
        "strategy.moments=average",
    ],
    "fedprox, task seen, targets averaged": ["strategy=fedprox", "strategy.proximal=0.1", IDENTITY, TARGETS],
    "scaffold, task seen, targets averaged": ["strategy=scaffold", IDENTITY, TARGETS],
    "moon, task seen, targets averaged": ["strategy=moon", IDENTITY, TARGETS],
    # Neighbours' networks see observations as they are: nobody merges the moments of all.
    "gossip in a ring, not normalised": [
        *("strategy=gossip", "strategy.topology=ring", 'strategy.average=["features", "head", "actor"]'),
        "learner.normalise=false",
    ],
    "local, not normalised": ["strategy=local", "learner.normalise=false"],
    "fedper (critics' features)": ["strategy=fedper", 'strategy.average=["features"]', TARGETS],
    "fedrep (critics' features)": ["strategy=fedrep", 'strategy.average=["features"]', HEADS, TARGETS],
    "clustered": ["strategy=clustered", "strategy.clusters=3", "strategy.threshold=-1", TARGETS],
    "similarity": ["strategy=similarity", TARGETS],
}


def main() -> None:
    """Every setup, or some."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=120_000, help="of each agent")
    parser.add_argument("--only", nargs="*", choices=SETUPS, default=list(SETUPS))
    options = parser.parse_args()
    for setup in options.only:
        if len(read_runs(NAME).get(setup, {})) >= options.seeds:
            continue
        runs = trained(SETUPS[setup], seeds=options.seeds, steps=options.steps)
        order = [*dict.fromkeys([*(name for name in SETUPS if name in read_runs(NAME)), setup])]
        record_runs(NAME, setup, runs, order=order, row=summarised)
        print(setup, summarised(setup, read_runs(NAME)), flush=True)


def trained(overrides: list[str], *, seeds: int, steps: int) -> dict[str, Any]:
    """The tests of each seed, by its number."""
    settings = [*COMMON, *overrides, f"budget.steps_per_agent={steps}", f"seeds={seeds}", "seed=1"]
    config = resolve("td3-her/point-push", settings)
    runtime = make_runtime(config)
    # Agents that learn alone hand out their own networks, whatever the federation that is tested hands out.
    alone = [setting for setting in settings if not setting.startswith("strategy")]
    judge = make_runtime(resolve("td3-her/point-push", [*alone, "strategy=local"]))
    state, first, began = runtime.init(), 0, time.perf_counter()
    points: list[dict[str, Any]] = []
    while True:
        ((state, rows),) = runtime.advance(state, first)
        first += runtime.rounds_per_call
        if not np.asarray(rows["active"])[:, -1].all():
            break
        received = jax.jit(jax.vmap(lambda each: broadcast(runtime.federation, each)))(state)
        points.append(
            {
                "steps": int(np.asarray(state.tally.agent_steps)[0]) // AGENTS,
                "before": tested(judge, state.agents.params, seeds),
                "after": tested(judge, received, seeds),
            }
        )
    seconds = round((time.perf_counter() - began) / seeds)
    runtime.close()
    judge.close()
    return {
        str(config.all_seeds[position]): {
            "steps": [point["steps"] for point in points],
            **{
                when: [[round(float(x), 2) for x in by_task(point[when][position])] for point in points]
                for when in ("before", "after")
            },
            "seconds": seconds,
        }
        for position in range(seeds)
    }


def broadcast(federation: Federation, state: State) -> Any:
    """Every agent's networks as the next broadcast makes them."""
    index = jnp.asarray(state.tally.rounds)
    key = derive(jax.random.key(0), "round", index)
    downlink = federation.broadcast(state.server, key, index)
    numbers = jnp.arange(federation.agents)
    return jax.vmap(lambda agent, index: federation.strategy.absorb(agent, downlink, index).params)(
        state.agents, numbers
    )


def tested(judge: Runtime, params: Any, seeds: int) -> np.ndarray:
    """Last-step success of every agent's networks in its own task, ``[seeds, agents]``."""
    each = [
        judge.evaluate(jax.tree.map(lambda x, i=i: x[i], params), episodes=EPISODES, seed=99, position=i).table[LAST]
        for i in range(seeds)
    ]
    return np.stack(each).mean(-1)


def by_task(success: np.ndarray) -> list[float]:
    """Means over the agents that have each task."""
    return [float(success[task :: len(TASKS)].mean()) for task in range(len(TASKS))]


def summarised(setup: str, runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Success at the end and the mean drop over the last half, with 95 % intervals of a bootstrap over seeds."""
    each = list(runs[setup].values())
    before, after = (np.array([run[when] for run in each]) for when in ("before", "after"))
    half = before.shape[1] // 2
    row: dict[str, Any] = {"seeds": len(each), "steps": each[0]["steps"][-1]}
    measures = {
        "before": before[:, -3:].mean((1, 2)),
        "after": after[:, -3:].mean((1, 2)),
        "drop": (before - after)[:, half:].mean((1, 2)),
    }
    for name, values in measures.items():
        low, high = stratified_bootstrap(values, mean)
        row[name] = [round(float(x), 3) for x in (values.mean(), low, high)]
    row["before_by_task"] = [round(float(x), 2) for x in before[:, -3:].mean((0, 1))]
    row["after_by_task"] = [round(float(x), 2) for x in after[:, -3:].mean((0, 1))]
    return row | {"seconds": sum(run["seconds"] for run in each)}


if __name__ == "__main__":
    main()
