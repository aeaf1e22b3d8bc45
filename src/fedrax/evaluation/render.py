"""Films of a run's policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import gymnasium
import jax
import numpy as np
from jaxtyping import PyTree

from fedrax.api import Run
from fedrax.environments.native import native_environments
from fedrax.errors import FedraxError
from fedrax.records.draw import draw_cartpole
from fedrax.records.video import write_video
from fedrax.runtime.make import make_simulation
from fedrax.seeds import host_seeds

FRAMES_PER_SECOND = 50


def render(
    run: Path | str,
    *,
    episodes: int = 1,
    policy: Literal["last", "best"] = "last",
    formats: Sequence[str] = ("mp4", "gif"),
    out: Path | None = None,
) -> list[Path]:
    """Films greedy episodes of the first seed's policy, on the run's evaluation seeds; returns the files."""
    if episodes < 1:
        raise FedraxError(f"episodes = {episodes} is not allowed: it must be at least 1")
    loaded = Run(run)
    settings = loaded.config.environment
    params = next(iter(loaded.policies(policy).values()))
    native = settings.native and settings.id in native_environments
    frames = list((_native_frames if native else _host_frames)(loaded, params, episodes))
    stem = out or loaded.path / "video"
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix in formats:
        path = stem.with_suffix(f".{suffix}")
        # A gif holds every frame whole: half of them, at half the rate, is half the file.
        step = 2 if suffix == "gif" else 1
        write_video(frames[::step], path, fps=FRAMES_PER_SECOND // step)
        paths.append(path)
    return paths


def _native_frames(run: Run, params: PyTree, episodes: int) -> Iterator[np.ndarray]:
    simulation = make_simulation(run.config)
    environment = native_environments[run.config.environment.id]()
    physics = environment.physics()
    act = jax.jit(lambda observation: simulation.federation.learner.act(params, observation[None], None)[0])
    step = jax.jit(lambda state, action, key: environment.step(state, action, key, physics))
    for episode in range(episodes):
        key = jax.random.fold_in(jax.random.key(run.config.evaluation.seed), episode)
        state, observation = environment.reset(key, physics)
        for t in range(simulation.evaluation_horizon):
            yield draw_cartpole(np.asarray(state), physics)
            transition = step(state, act(observation), jax.random.fold_in(key, t))
            state, observation = transition.state, transition.observation
            if transition.terminated:
                break
        yield draw_cartpole(np.asarray(state), physics)


def _host_frames(run: Run, params: PyTree, episodes: int) -> Iterator[np.ndarray]:
    simulation = make_simulation(run.config)
    act = jax.jit(lambda observation: simulation.federation.learner.act(params, observation[None], None)[0])
    environment = gymnasium.make(
        run.config.environment.id, render_mode="rgb_array", max_episode_steps=simulation.evaluation_horizon
    )
    try:
        for seed in host_seeds((episodes,), run.config.evaluation.seed, "evaluation"):
            observation, _ = environment.reset(seed=int(seed))
            over = False
            while not over:
                yield np.asarray(environment.render())
                action = np.asarray(act(np.asarray(observation, np.float32)))
                observation, _, terminated, truncated, _ = environment.step(int(action) if action.ndim == 0 else action)
                over = terminated or truncated
            yield np.asarray(environment.render())
    finally:
        environment.close()
        simulation.close()
