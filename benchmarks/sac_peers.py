"""Soft actor-critic beside SBX's: what both learn, and how fast their updates are.

    python3 -m venv SBX && SBX/bin/pip install sbx-rl==0.28.* "gymnasium[mujoco]==1.4.*" mujoco==3.6.0
    python benchmarks/sac_peers.py learning --peer SBX/bin/python   # Pendulum and HalfCheetah, 5 seeds
    python benchmarks/sac_peers.py speed --peer SBX/bin/python      # on an idle machine

Both have two layers of 256 with Flax's first weights, minibatches of 256, one update for each environment step,
learned temperatures, step sizes of 3e-4, and the same Gymnasium environments; SBX acts at random in the first 100
steps, which ours does not. ``fedrax, fan-in`` has our default's first weights, PyTorch's. Returns are those of greedy
policies in the same episodes, seed by seed, with 95 % intervals of a bootstrap over seeds.

``speed`` counts updates (critics, actor, temperature, targets, on a fresh minibatch of a full replay) per second: ours
of one agent and of ten in one program, SBX's of one, one update at a call as it trains by default and 64 at a call.
They are measured in turn, each in a process of its own, and medians are told. Results are in
benchmarks/results/sac_peers_learning.json, where nothing is trained twice, and sac_peers_speed.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedrax.api import train
from fedrax.config import resolve
from fedrax.evaluation.statistics import mean, stratified_bootstrap
from fedrax.learners.base import Agent, Objective
from fedrax.learners.off_policy import Training
from fedrax.learners.sac import SAC
from fedrax.runtime.mapping import map_in_batches
from fedrax.seeds import host_seeds
from fedtd3_speed import spaces

from common import best, matrix_peak, read_runs, record_runs, save

LEARNING, SPEED = "sac_peers_learning", "sac_peers_speed"
STEPS = {"Pendulum-v1": 10_000, "HalfCheetah-v5": 50_000}
EPISODES = 10
WIDTHS, BATCH, RATE, START = (256, 256), 256, 3e-4, 100
SETTINGS = [
    *("learner=sac", "strategy=local", "federation.agents=1", "environment.num_envs=1", "learner.num_steps=10"),
    *("environment.native=false", "environment.backend=gymnasium", f"learner.learning_rate={RATE}"),
    *(f"learner.actor_layers={list(WIDTHS)}", f"learner.feature_layers={list(WIDTHS[:1])}"),
    *(f"learner.head_layers={list(WIDTHS[1:])}", f"learner.batch_size={BATCH}", f"learner.learning_starts={START}"),
    *("learner.updates_per_step=1", "federation.local_updates=50", f"evaluation.episodes={EPISODES}"),
]
OURS = {"fedrax": ["learner.initialisation=lecun"], "fedrax, fan-in": ["learner.initialisation=fan-in"]}
ROUND = 500
"""Environment steps of one of ours."""
AGENTS, FILLED, GROUPS = 10, 10_000, 2


def main() -> None:
    """What is learned, or how fast."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("learning", "speed", "measure"), metavar="learning|speed")
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--peer", metavar="PYTHON", help="of an environment with SBX")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5, help="measurements in turn")
    options = parser.parse_args()
    if options.what == "measure":
        print(json.dumps({"updates_per_second": updates(int(options.arguments[0])), "peak": matrix_peak()}))
    elif options.peer is None:
        parser.error("--peer is needed")
    elif options.what == "speed":
        speed(options.peer, options.repeats)
    else:
        for id in STEPS:
            for seed in range(1, options.seeds + 1):
                learned(options.peer, id, seed)


def learned(peer: str, id: str, seed: int) -> None:
    """Trains and records what of one seed is missing."""
    for contender in (*OURS, "sbx"):
        setup = f"{id}, {contender}"
        if str(seed) in read_runs(LEARNING).get(setup, {}):
            continue
        settings = [*SETTINGS, f"environment={id}", f"budget.steps_per_agent={STEPS[id]}", f"seed={seed}"]
        settings += [f"evaluation.every={STEPS[id] // ROUND // 10}", f"checkpoint.every={STEPS[id] // ROUND // 10}"]
        run = ours([*settings, *OURS[contender]]) if contender in OURS else theirs(peer, id, settings)
        order = [*dict.fromkeys([*read_runs(LEARNING), setup])]
        record_runs(LEARNING, setup, {str(seed): run}, order=order, row=summarised)
        print(setup, summarised(setup, read_runs(LEARNING)), flush=True)


def ours(settings: list[str]) -> dict[str, Any]:
    """Mean returns by environment steps."""
    with tempfile.TemporaryDirectory() as folder:
        rows = train({}, settings, out=Path(folder) / "run", progress=False).metrics()
    tested = [row for row in rows if row.get("return") is not None]
    return {
        "steps": [row["total_steps"] for row in tested],
        "return": [round(row["return"], 1) for row in tested],
        "seconds": round(rows[-1]["seconds"]),
    }


def theirs(peer: str, id: str, settings: list[str]) -> dict[str, Any]:
    """The same of SBX, evaluated after as many steps, in the same episodes."""
    config = resolve({}, settings)
    every = ROUND * config.evaluation.every
    request = {
        "id": id,
        "seed": config.seed,
        "evaluated_at": [*range(every, STEPS[id] + 1, every)],
        "evaluation_seeds": host_seeds((EPISODES,), config.evaluation.seed, "evaluation").tolist(),
    }
    return asked(peer, request)


def asked(peer: str, request: dict[str, Any]) -> dict[str, Any]:
    """What sac_sbx.py answers."""
    request |= {"layers": list(WIDTHS), "batch": BATCH, "rate": RATE, "start": START, "filled": FILLED}
    script = Path(__file__).with_name("sac_sbx.py")
    done = subprocess.run([peer, script], input=json.dumps(request), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def summarised(setup: str, runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Last returns with a 95 % interval of a bootstrap over seeds."""
    each = list(runs[setup].values())
    last = np.array([[run["return"][-1]] for run in each])
    low, high = stratified_bootstrap(last, mean)
    return {
        "seeds": len(each),
        "steps": each[0]["steps"][-1],
        "return": [round(float(x), 1) for x in (last.mean(), low, high)],
        "seconds": [run["seconds"] for run in each],
    }


def speed(peer: str, repeats: int) -> None:
    """Updates per second in turn, and their ratios."""
    each: list[dict[str, float]] = []
    for _ in range(repeats):
        row: dict[str, float] = {}
        for count in (1, AGENTS):
            row[f"fedrax, {count} agents" if count > 1 else "fedrax"] = measured(count)["updates_per_second"]
        peers = asked(peer, {"id": "HalfCheetah-v5", "seed": 1, "timed": [1, 64]})
        row |= {f"sbx, {count} at a call": rate for count, rate in peers["updates_per_second"].items()}
        each.append(row)
        print({name: round(rate) for name, rate in row.items()}, flush=True)
    rates = {name: round(float(np.median([row[name] for row in each]))) for name in each[0]}
    ratios = {
        f"{name} / sbx, {count} at a call": round(
            float(np.median([row[name] / row[f"sbx, {count} at a call"] for row in each])), 2
        )
        for name in rates
        if name.startswith("fedrax")
        for count in (1, 64)
    }
    results = {"repeats": repeats, "agent_updates_per_second": rates, "ratios": ratios, "sbx": peers["versions"]}
    print(json.dumps(results, indent=1))
    save(SPEED, results)


def measured(count: int) -> dict[str, float]:
    """:func:`updates` in a process of its own."""
    command = [sys.executable, __file__, "measure", str(count)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def updates(count: int) -> float:
    """Updates per second, of all of ``count`` agents together."""
    learner = SAC(
        batch_size=BATCH,
        buffer_size=FILLED,
        actor_layers=WIDTHS,
        feature_layers=WIDTHS[:1],
        head_layers=WIDTHS[1:],
        num_steps=64,
        updates_per_step=1,
    )
    learner = learner.bind(spaces(), 1, 1000)
    states = agents(learner, count)
    seconds = min(best(program(learner, together), states) for together in sorted({1, count}))
    return GROUPS * count * learner.critic_updates / seconds


def agents(learner: SAC, count: int) -> Agent:
    """Agents whose replays are full of noise."""
    made = jax.vmap(lambda key: learner.init(key, spaces()))(jax.random.split(jax.random.key(0), count))
    replay = made.memory.replay
    rows = jax.random.normal(jax.random.key(1), replay.rows.shape)
    replay = dataclasses.replace(replay, rows=rows, size=jnp.full_like(replay.size, FILLED))
    return dataclasses.replace(made, memory=dataclasses.replace(made.memory, replay=replay))


def program(learner: SAC, together: int) -> Callable[[Agent], Any]:
    """``GROUPS`` times what the learner does with a filled replay, ``together`` agents side by side."""

    def one(agent: Agent) -> Training:
        def group(training: Training, key: jax.Array) -> tuple[Training, None]:
            return learner.updates(training, agent.memory.replay, Objective(), key)[0], None

        start = Training(agent.params, agent.optimizer, agent.memory.target, ())
        return jax.lax.scan(group, start, jax.random.split(jax.random.key(2), GROUPS))[0]

    return jax.jit(lambda agents: map_in_batches(one, agents, together))


if __name__ == "__main__":
    main()
