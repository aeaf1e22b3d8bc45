"""Where an environment's observations say what its achieved goal says too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from fedrax.config import Config
from fedrax.environments.base import Box
from fedrax.environments.goals import ACHIEVED, OBSERVATION
from fedrax.environments.host import make_single
from fedrax.environments.native import native_environments
from fedrax.runtime.draws import describe_run, runs_native, task_ids

EPISODES = 3
STEPS = 20
"""Of random actions in each."""


def achieved_at(config: Config) -> int | None:
    """From which number of the part ``observation`` on the achieved goal stands there, in every task of a run.

    Found by looking: Fetch's are the gripper's place, or the object's. None where it is not the same numbers always.
    """
    candidates: set[int] | None = None
    for id in task_ids(config):
        for observation in _native(id) if runs_native(config) else _host(config, id):
            whole, goal = (np.asarray(observation[name], np.float32) for name in (OBSERVATION, ACHIEVED))
            places = range(len(whole) - len(goal) + 1) if candidates is None else candidates
            candidates = {place for place in places if np.array_equal(whole[place : place + len(goal)], goal)}
    return min(candidates, default=None) if candidates is not None else None


def _host(config: Config, id: str) -> Iterator[dict[str, Any]]:
    settings = config.environment
    horizon = describe_run(config)[0].horizon(settings.horizon)
    environment = make_single(id, horizon, mission=settings.mission, kwargs=settings.kwargs)
    try:
        environment.action_space.seed(0)
        for seed in range(EPISODES):
            yield environment.reset(seed=seed)[0]
            over, number = False, 0
            while not over and number < STEPS:
                observation, _, terminated, truncated, _ = environment.step(environment.action_space.sample())
                yield observation
                over, number = terminated or truncated, number + 1
    finally:
        environment.close()


def _native(id: str) -> Iterator[dict[str, Any]]:
    environment = native_environments[id]()
    physics = environment.physics()
    reset = jax.jit(lambda key: environment.reset(key, physics))
    step = jax.jit(lambda state, action, key: environment.step(state, action, key, physics))
    box = environment.spaces.action
    assert isinstance(box, Box)
    for seed in range(EPISODES):
        key = jax.random.key(seed)
        state, observation = reset(key)
        yield observation
        for number in range(STEPS):
            now = jax.random.fold_in(key, number)
            action = jax.random.uniform(now, box.shape, minval=np.array(box.low), maxval=np.array(box.high))
            transition = step(state, action, now)
            state = transition.state
            yield transition.observation
