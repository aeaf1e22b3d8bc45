"""One training by Stable-Baselines3's TD3 with its HerReplayBuffer, for td3_her_peers.py.

It runs in an environment of its own and imports nothing of Fedrax: the request is read from standard input as JSON, and
what came of it is the last line of standard output.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from functools import partial
from typing import Any

import gymnasium
import gymnasium_robotics
import numpy as np
from stable_baselines3 import TD3
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.her import HerReplayBuffer

PACKAGES = ("stable-baselines3", "torch", "gymnasium", "gymnasium-robotics", "mujoco", "numpy")


def main() -> None:
    request = json.load(sys.stdin)
    gymnasium.register_envs(gymnasium_robotics)
    model = made(request)
    result = timed(model, request) if "warm" in request else curve(model, request)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    print(json.dumps(result | {"versions": versions}))


def made(request: dict[str, Any]) -> TD3:
    environments = DummyVecEnv([partial(gymnasium.make, request["id"])] * request["num_envs"])
    (size,) = environments.action_space.shape
    return TD3(
        "MultiInputPolicy",
        environments,
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs={"n_sampled_goal": request["goals"], "goal_selection_strategy": request["strategy"]},
        action_noise=NormalActionNoise(np.zeros(size), np.full(size, request["noise"])),
        policy_kwargs={"net_arch": {"pi": request["actor_layers"], "qf": request["critic_layers"]}},
        train_freq=(request["num_steps"], "step"),
        **request["arguments"],
        seed=request["seed"],
        device="cpu",
    )


def learn(model: TD3, steps: int) -> float:
    """Seconds of so many environment steps more."""
    started = time.perf_counter()
    model.learn(steps, reset_num_timesteps=False, log_interval=None)
    return time.perf_counter() - started


def curve(model: TD3, request: dict[str, Any]) -> dict[str, Any]:
    """Success by environment steps."""
    result: dict[str, Any] = {"steps": [], "success_last": [], "success": []}
    seconds = 0.0
    for steps in request["evaluated_at"]:
        seconds += learn(model, steps - model.num_timesteps)
        result["steps"].append(model.num_timesteps)
        for name, share in evaluated(model, request["id"], request["evaluation_seeds"]).items():
            result[name].append(round(share, 2))
    return result | {"seconds_learning": round(seconds)}


def timed(model: TD3, request: dict[str, Any]) -> dict[str, Any]:
    """Environment steps per second while learning, after so many steps to warm up."""
    learn(model, request["warm"])
    return {"steps_per_second": request["measured"] / learn(model, request["measured"])}


def evaluated(model: TD3, id: str, seeds: list[int]) -> dict[str, float]:
    """Shares of episodes with success in the last step, and in any."""
    environment = gymnasium.make(id)
    last, ever = [], []
    for seed in seeds:
        observation, _ = environment.reset(seed=seed)
        over, reached = False, []
        while not over:
            action, _ = model.predict(observation, deterministic=True)
            observation, _, terminated, truncated, info = environment.step(action)
            over = terminated or truncated
            reached.append(info["is_success"] > 0)
        last.append(reached[-1])
        ever.append(any(reached))
    environment.close()
    return {"success_last": float(np.mean(last)), "success": float(np.mean(ever))}


if __name__ == "__main__":
    main()
