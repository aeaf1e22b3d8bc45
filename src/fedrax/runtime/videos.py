"""Videos of policies, in native and in host environments."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from fedrax.config import Config
from fedrax.environments.base import Discrete, NativeEnvironment, Observation
from fedrax.environments.goal_sets import GoalSet, single_goals
from fedrax.environments.host import make_single
from fedrax.environments.native import native_environments
from fedrax.environments.registry import describe_environment
from fedrax.environments.tasks import task_of
from fedrax.errors import FedraxError
from fedrax.records.video import write_video
from fedrax.runtime.base import Runtime
from fedrax.runtime.draws import describe_run, evaluation_draws, make_environment, own_parameters, runs_native, task_ids
from fedrax.seeds import derive, host_seeds

FRAMES_PER_SECOND = 50
"""Of a host environment that does not say."""

MODE = "rgb_array"
"""Gymnasium's render mode whose pictures are arrays."""

Act = Callable[[Observation, PRNGKeyArray], Array]


def record_videos(
    config: Config,
    runtime: Runtime,
    params: PyTree,
    stem: Path,
    *,
    agent: int = 0,
    episodes: int = 1,
    formats: Sequence[str] = ("mp4",),
) -> list[Path]:
    """Records episodes of one policy on the run's evaluation seeds; returns the files.

    Args:
        config: the run's.
        runtime: whose learner acts.
        params: one policy's.
        stem: path without suffix; its folder is made.
        agent: whose environment.
        episodes: number of episodes, one after the other.
        formats: ``mp4``, ``gif`` or both.
    """
    check_picture(config)
    stem.parent.mkdir(parents=True, exist_ok=True)
    act = jax.jit(_actor(config, runtime, params))
    if runs_native(config):
        rate = make_environment(config).frames_per_second
        frames = list(_native_frames(config, runtime, act, agent, episodes))
    else:
        rate = int(gymnasium.spec(config.environment.id).kwargs.get("render_fps", FRAMES_PER_SECOND))
        with _without_display():
            frames = list(_host_frames(config, runtime, act, agent, episodes))
    paths = []
    for suffix in formats:
        path = stem.with_suffix(f".{suffix}")
        # A gif holds every frame whole: half of them, at half the rate, is half the file.
        step = 2 if suffix == "gif" and rate > 20 else 1
        write_video(frames[::step], path, fps=rate / step)
        paths.append(path)
    return paths


def check_picture(config: Config) -> None:
    """Refuses a run whose environment has no picture, before anything is stepped or trained.

    Raises:
        FedraxError: names the environment, and what it lacks.
    """
    settings = config.environment
    for id in task_ids(config):
        if runs_native(config):
            if native_environments[id].draw is NativeEnvironment.draw:
                raise FedraxError(f"environment {id!r} in JAX has no picture: its class has no method draw")
            continue
        described = describe_environment(id, native=False, mission=settings.mission, kwargs=settings.kwargs)
        if MODE not in described.render_modes:
            modes = ", ".join(map(repr, described.render_modes)) or "none"
            raise FedraxError(
                f"environment {id!r} has no picture: a video needs the render mode {MODE!r} among its "
                f"metadata's render_modes, which are {modes}"
            )


@contextlib.contextmanager
def _without_display() -> Iterator[None]:
    """Has Pygame draw into memory: it would look for a display, and complain where there is none."""
    ours = {name: "dummy" for name in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER") if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _actor(config: Config, runtime: Runtime, params: PyTree) -> Act:
    greedy = config.evaluation.greedy

    def act(observation: Observation, key: PRNGKeyArray) -> Array:
        batch = jax.tree.map(lambda x: x[None], observation)
        return runtime.federation.learner.act(params, batch, None if greedy else key)[0]

    return act


def _native_frames(config: Config, runtime: Runtime, act: Act, agent: int, episodes: int) -> Iterator[np.ndarray]:
    environment, actions = make_environment(config), runtime.federation.actions
    draws = evaluation_draws(config)
    physics: Any = single_goals(draws[agent], episodes) if draws else [environment.physics()] * episodes
    reset, step = jax.jit(environment.reset), jax.jit(environment.step)
    for episode in range(episodes):
        key = jax.random.fold_in(jax.random.key(config.evaluation.seed), episode)
        state, observation = reset(key, physics[episode])
        for t in range(runtime.evaluation_horizon):
            yield environment.draw(state, physics[episode])
            now = jax.random.fold_in(key, t)
            transition = step(state, actions.native(act(observation, derive(now, "act"))), now, physics[episode])
            state, observation = transition.state, transition.observation
            if transition.terminated:
                break
        yield environment.draw(state, physics[episode])


def _host_frames(config: Config, runtime: Runtime, act: Act, agent: int, episodes: int) -> Iterator[np.ndarray]:
    settings, federation = config.environment, runtime.federation
    space = federation.spaces.observation
    draws = evaluation_draws(config)
    own = draws[agent] if draws else {}
    goals = GoalSet.of(own)
    seeds = host_seeds((episodes,), config.evaluation.seed, "evaluation")
    if goals is not None:
        seeds = np.array([goals.reset_seed(episode) for episode in range(episodes)])
    id, mixture = task_ids(config)[task_of(own)], describe_run(config)[1]
    environment = make_single(
        id,
        runtime.evaluation_horizon,
        mission=settings.mission,
        render_mode=MODE,
        parameters={name: own[name] for name in own_parameters(config, id)} if settings.heterogeneity else None,
        kwargs=settings.kwargs,
    )
    try:
        for seed in seeds:
            observation, _ = environment.reset(seed=int(seed))
            key = jax.random.key(int(seed))
            over, t = False, 0
            while not over:
                yield np.asarray(environment.render())
                alike = observation if mixture is None else mixture.seen(task_of(own), observation)
                seen = jax.tree.map(lambda part, x: jnp.asarray(x, part.seen), space.tree, alike)
                emitted = act(seen, jax.random.fold_in(key, t))
                action = federation.actions.host(np.asarray(emitted))
                whole = isinstance(federation.spaces.action, Discrete)
                observation, _, terminated, truncated, _ = environment.step(int(action) if whole else action)
                over, t = terminated or truncated, t + 1
            yield np.asarray(environment.render())
    finally:
        environment.close()
