"""One training, or timed updates, by SBX's SAC, for sac_peers.py.

It runs in an environment of its own and imports nothing of Fedrax: the request is read from standard input as JSON, and
what came of it is the last line of standard output.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from typing import Any

import gymnasium
import jax
import numpy as np
from sbx import SAC

PACKAGES = ("sbx-rl", "stable-baselines3", "jax", "flax", "gymnasium", "mujoco", "numpy")
CALLS = {1: 400, 64: 12}
"""Calls that are timed, by updates of one."""
REPEATS = 5


def main() -> None:
    request = json.load(sys.stdin)
    model = SAC(
        "MlpPolicy",
        gymnasium.make(request["id"]),
        learning_rate=request["rate"],
        batch_size=request["batch"],
        learning_starts=request["start"],
        policy_kwargs={"net_arch": request["layers"]},
        seed=request["seed"],
    )
    result = timed(model, request) if "timed" in request else curve(model, request)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    print(json.dumps(result | {"versions": versions}))


def curve(model: SAC, request: dict[str, Any]) -> dict[str, Any]:
    """Returns by environment steps."""
    returns: list[float] = []
    seconds = 0.0
    for steps in request["evaluated_at"]:
        started = time.perf_counter()
        model.learn(steps - model.num_timesteps, reset_num_timesteps=False, log_interval=None)
        seconds += time.perf_counter() - started
        returns.append(round(evaluated(model, request["id"], request["evaluation_seeds"]), 1))
    return {"steps": request["evaluated_at"], "return": returns, "seconds": round(seconds)}


def evaluated(model: SAC, id: str, seeds: list[int]) -> float:
    """Mean return of the greedy policy."""
    environment = gymnasium.make(id)
    returns = []
    for seed in seeds:
        observation, _ = environment.reset(seed=seed)
        over, total = False, 0.0
        while not over:
            action, _ = model.predict(observation, deterministic=True)
            observation, reward, terminated, truncated, _ = environment.step(action)
            over = terminated or truncated
            total += float(reward)
        returns.append(total)
    environment.close()
    return float(np.mean(returns))


def timed(model: SAC, request: dict[str, Any]) -> dict[str, Any]:
    """Updates per second at so many updates of a call, of a full replay: the fastest of several measurements."""
    model.learning_starts = request["filled"]
    model.learn(request["filled"], log_interval=None)
    rates = {}
    for count in request["timed"]:
        for _ in range(3):
            model.train(count, request["batch"])
        seconds = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            for _ in range(CALLS[count]):
                model.train(count, request["batch"])
            jax.block_until_ready(model.policy.actor_state.params)
            seconds.append(time.perf_counter() - started)
        rates[str(count)] = count * CALLS[count] / min(seconds)
    return {"updates_per_second": rates}


if __name__ == "__main__":
    main()
