"""Goal environments beside Fetch, known by their ids alone: mazes for points and ants, the Shadow hand's reach."""

import importlib.util

import numpy as np
import pytest

import fedrax
from fedrax.environments.goals import ACHIEVED, DESIRED, Goal
from fedrax.environments.host import make_host

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("gymnasium_robotics", "envpool")),
    reason="needs both packages",
)
MAZE, HAND = 0.45, 0.01
"""Distances at which the goal counts as reached."""
SPARSE_MAZE = Goal("sparse", MAZE, inclusive=True, reached=1.0, missed=0.0)
CASES = [
    ("PointMaze_UMaze-v3", "envpool", SPARSE_MAZE, MAZE, 300),
    ("PointMaze_UMaze-v3", "gymnasium", SPARSE_MAZE, MAZE, 300),
    # exp(-distance); success has the sparse task's threshold
    ("PointMaze_UMazeDense-v3", "envpool", Goal("exponential", 0.0), MAZE, 300),
    ("AntMaze_UMaze-v5", "gymnasium", SPARSE_MAZE, MAZE, 700),
    ("HandReach-v3", "envpool", Goal("sparse", HAND, inclusive=True), HAND, 50),
    ("HandReach-v3", "gymnasium", Goal("sparse", HAND, inclusive=True), HAND, 50),
    ("HandReachDense-v3", "gymnasium", Goal("distance", HAND), HAND, 50),
]


@pytest.mark.parametrize(("id", "backend", "goal", "threshold", "limit"), CASES)
def test_rewards_successes_and_limits_are_the_environments(id, backend, goal, threshold, limit):
    copies = 8
    environments = make_host(id, copies, backend=backend)
    assert (environments.spaces.goal, environments.time_limit) == (goal, limit)
    environments.reseed(np.arange(copies))
    environments.reset()
    generator = np.random.default_rng(0)
    size = environments.spaces.action.shape
    reached = 0
    for step in range(limit):
        if step % 5 == 0:
            action = generator.uniform(-1, 1, (copies, *size)).astype(np.float32)
        seen, reward, terminated, truncated = environments.step(action)
        assert not terminated.any()
        assert truncated.all() if step == limit - 1 else not truncated.any()
        distance = np.linalg.norm(seen[ACHIEVED] - seen[DESIRED], axis=-1)
        np.testing.assert_allclose(reward, goal.reward(seen[ACHIEVED], seen[DESIRED]), atol=1e-6)
        np.testing.assert_array_equal(environments.success, distance <= threshold)
        reached += environments.success.sum()
    environments.close()
    # Points come to their goals by chance, ants and hands do not.
    assert (reached > 0) == id.startswith("PointMaze")


@pytest.mark.training
@pytest.mark.parametrize("learner", ["td3", "sac"])
def test_hindsight_trains_in_a_maze(learner, tmp_path):
    settings = [
        *("environment=PointMaze_UMaze-v3", "environment.num_envs=2"),
        *(f"learner={learner}", "federation.agents=2", "strategy=fedavg"),
        *("learner.hindsight=future", "learner.num_steps=300", "learner.updates_per_step=0.02"),
        *("learner.learning_starts=300", "learner.batch_size=16", "learner.buffer_size=2000"),
        *("learner.actor_layers=[16]", "learner.feature_layers=[16]", "learner.head_layers=[16]"),
        *("budget.rounds=2", "evaluation.every=2", "evaluation.episodes=2"),
    ]
    run = fedrax.train({}, settings, out=tmp_path / "run", progress=False)
    last = run.metrics()[-1]
    assert last["gradient_steps"] > 0
    assert 0 <= last["success_last"] <= last["success"] <= 1
