"""TD3 with hindsight experience replay beside Stable-Baselines3's TD3 and HerReplayBuffer, on the same tasks.

    python3 -m venv SB3 && SB3/bin/pip install stable-baselines3==2.9.* gymnasium-robotics==1.4.2 mujoco==3.6.0
    python benchmarks/td3_her_peers.py reach --peer SB3/bin/python   # needs the robotics extra
    python benchmarks/td3_her_peers.py push --peer SB3/bin/python    # the first 2,000 episodes

Both have the preset's widths, minibatches, updates per step, discount, tau, noise, delay and hindsight, and the same
Gymnasium environments. What Stable-Baselines3 does not have is left out (``fedrax``): uniform actions, the penalty of
actions and clipped values; the preset as it is (``fedrax preset``) is a third curve. Stable-Baselines3 acts at random
before ``learner.learning_starts`` transitions, which ours does not.

Curves are success by environment steps, in the last step and in any, of greedy policies from the same seeds, seed by
seed. Speed is environment steps per second once learning has begun, without evaluations: theirs, ours on the same
environments, and ours on EnvPool, which it takes where that is installed. They are measured in turn, the order reversed
in every second, each in a process of its own, on an idle machine. Ours counts rounds, and neither checkpoints nor
compiling; theirs has neither. Every run is recorded in benchmarks/results/td3_her_peers.json as soon as it ends,
and not made again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from fedrax.api import train
from fedrax.config import Config, resolve
from fedrax.seeds import host_seeds

from common import read_runs, record_runs

NAME = "td3_her_peers"
STEPS = {"reach": 20_000, "push": 100_000}
"""Environment steps of a curve; episodes have 50."""
COMMON = [
    *("environment.backend=gymnasium", "learner.random_actions=0", "learner.action_penalty=0"),
    "learner.clip_values=false",
]
"""What makes of the preset what both can do."""
OURS = {"fedrax": COMMON, "fedrax preset": COMMON[:1]}
SPEEDS = {"fedrax": [], "fedrax on EnvPool": ["environment.backend=envpool"]}
THEIRS = "stable-baselines3"
HELD = 0.9
TIMED_ROUNDS = 10
"""Rounds whose speed is measured."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=STEPS)
    parser.add_argument("--peer", required=True, metavar="PYTHON", help="of an environment with Stable-Baselines3")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=3, help="measurements of speed")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of both")
    options = parser.parse_args()
    check_peer(options.peer)
    settings = [f"budget.steps_per_agent={STEPS[options.task]}", *options.set]

    for seed in range(1, options.seeds + 1):
        for contender in (*OURS, THEIRS):
            setup = " ".join([options.task, contender, *options.set])
            if str(seed) in read_runs(NAME).get(setup, {}):
                continue
            source, own = f"td3-her/{options.task}", [*OURS.get(contender, COMMON), *settings, f"seed={seed}"]
            run = apart(our_curve, source, own) if contender in OURS else their_curve(options.peer, source, own)
            record(setup, seed, run)
    setup = " ".join([options.task, "speed", *options.set])
    for pair in range(1, options.pairs + 1):
        if str(pair) in read_runs(NAME).get(setup, {}):
            continue
        source, own = f"td3-her/{options.task}", [*COMMON, *settings, f"seed={pair}"]
        record(setup, pair, speeds(options.peer, source, own, reverse=pair % 2 == 0))


def check_peer(python: str) -> None:
    """Exits in one line where there is no such environment."""
    try:
        subprocess.run([python, "-c", "import stable_baselines3, gymnasium_robotics"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        sys.exit(f"{python} has no Stable-Baselines3 or no gymnasium-robotics; install them as --help says")


def record(setup: str, number: int, run: dict[str, Any]) -> None:
    order = [*dict.fromkeys([*read_runs(NAME), setup])]
    record_runs(NAME, setup, {str(number): run}, order=order, row=summarised)
    print(setup, summarised(setup, read_runs(NAME)), flush=True)


def summarised(setup: str, runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Of pairs, the speeds and their ratios; of curves, the last success, and from when on 0.9 holds."""
    each = list(runs[setup].values())
    if "ratio" in each[0]:
        names = (*SPEEDS, THEIRS, "ratio", "ratio on EnvPool")
        return {"pairs": len(each), **{name: round(float(np.median([run[name] for run in each])), 2) for name in names}}
    return {
        "seeds": len(each),
        "success_last": [run["success_last"][-1] for run in each],
        f"steps_until_{HELD}_holds": [held(run) for run in each],
    }


def held(run: dict[str, Any]) -> int | None:
    """Steps after which success in the last step never was below :data:`HELD`; None where it was at the end."""
    below = [number for number, success in enumerate(run["success_last"]) if success < HELD]
    first = below[-1] + 1 if below else 0
    return run["steps"][first] if first < len(run["steps"]) else None


def apart(function: Any, *arguments: Any) -> Any:
    """The function's result in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def our_rows(source: str, settings: list[str]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        return train(source, settings, out=Path(folder) / "run", progress=False).metrics()


def our_curve(source: str, settings: list[str]) -> dict[str, Any]:
    rows = [row for row in our_rows(source, settings) if "success_last" in row]
    shares = {name: [round(row[name], 2) for row in rows] for name in ("success_last", "success")}
    return {"steps": [row["total_steps"] for row in rows], **shares, "gradient_steps": rows[-1]["gradient_steps"]}


def their_curve(peer: str, source: str, settings: list[str]) -> dict[str, Any]:
    """Evaluated after as many steps as ours, from the same seeds."""
    config = resolve(source, settings)
    every = round_steps(config) * config.evaluation.every
    steps = config.budget.steps_per_agent
    assert steps is not None
    seeds = host_seeds((config.evaluation.episodes,), config.evaluation.seed, "evaluation")
    request = {"evaluated_at": [*range(every, steps + 1, every)], "evaluation_seeds": seeds.tolist()}
    return theirs(peer, config, request)


def speeds(peer: str, source: str, settings: list[str], *, reverse: bool) -> dict[str, Any]:
    """Steps per second of all over the same steps, and ours over theirs."""
    config = resolve(source, settings)
    each = round_steps(config)
    # Two rounds with updates, in which programs are compiled and caches filled.
    warm = (config.learner["learning_starts"] // each + 2) * each
    measured = TIMED_ROUNDS * each
    request = {"warm": warm, "measured": measured}
    measure = {
        name: lambda own=own: apart(our_speed, source, [*settings, *own], warm, measured)
        for name, own in SPEEDS.items()
    }
    measure[THEIRS] = lambda: theirs(peer, config, request)
    found = {name: measure[name]() for name in (reversed(measure) if reverse else measure)}
    rates = {**found, THEIRS: found[THEIRS]["steps_per_second"]}
    return {
        **{name: round(rate, 1) for name, rate in rates.items()},
        "ratio": round(rates["fedrax"] / rates[THEIRS], 2),
        "ratio on EnvPool": round(rates["fedrax on EnvPool"] / rates[THEIRS], 2),
        "cores": len(os.sched_getaffinity(0)),
        "versions": found[THEIRS]["versions"],
    }


def our_speed(source: str, settings: list[str], warm: int, measured: int) -> float:
    """Environment steps per second of the last :data:`TIMED_ROUNDS` rounds."""
    rounds = (warm + measured) // round_steps(resolve(source, settings))
    budget = ["budget.steps_per_agent=none", f"budget.rounds={rounds}"]
    never = [f"evaluation.every={rounds + 1}", f"checkpoint.every={rounds}"]
    rows = our_rows(source, [*settings, *budget, *never])
    before, last = rows[-1 - TIMED_ROUNDS], rows[-1]
    return (last["total_steps"] - before["total_steps"]) / (last["seconds"] - before["seconds"])


def theirs(peer: str, config: Config, request: dict[str, Any]) -> dict[str, Any]:
    """What came of one training by Stable-Baselines3 with the configuration's settings."""
    learner = config.learner
    share = learner["hindsight_ratio"]
    arguments = {name: learner[name] for name in ("learning_rate", "batch_size", "buffer_size", "learning_starts")}
    arguments |= {"gamma": learner["discount"], "tau": learner["tau"], "policy_delay": learner["policy_delay"]}
    arguments |= {
        "target_policy_noise": learner["target_noise"],
        "target_noise_clip": learner["target_noise_clip"],
        "gradient_steps": round(learner["num_steps"] * learner["updates_per_step"]),
    }
    request |= {
        "id": config.environment.id,
        "num_envs": config.environment.num_envs,
        "num_steps": learner["num_steps"],
        "goals": round(share / (1 - share)),
        "strategy": learner["hindsight"],
        "noise": learner["exploration_noise"],
        "actor_layers": learner["actor_layers"],
        "critic_layers": [*learner["feature_layers"], *learner["head_layers"]],
        "arguments": arguments,
        "seed": config.seed,
    }
    script = Path(__file__).with_name("td3_her_sb3.py")
    done = subprocess.run([peer, script], input=json.dumps(request), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def round_steps(config: Config) -> int:
    """Environment steps of a round, resets included."""
    return config.environment.num_envs * config.learner["num_steps"] * config.federation.local_updates


if __name__ == "__main__":
    main()
