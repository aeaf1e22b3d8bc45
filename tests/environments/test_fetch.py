"""The Fetch tasks by EnvPool and by Gymnasium-Robotics: the same tasks, the same rules."""

import importlib.util

import numpy as np
import pytest

from fedrax.environments.goals import ACHIEVED, DESIRED, OBSERVATION, Goal
from fedrax.environments.host import make_host
from fedrax.environments.registry import describe_environment
from fedrax.environments.robotics import FETCH, envpool_defaults

needed = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("gymnasium_robotics", "envpool")),
    reason="needs both packages",
)
TASKS = ("FetchReach", "FetchPush", "FetchPickAndPlace", "FetchSlide")
COPIES = 64


def made(id, backend, count=COPIES):
    environments = make_host(id, count, backend=backend)
    environments.reseed(np.arange(count))
    return environments


def episode(environments, actions):
    """Observations ``[51, copies]`` of one episode, rewards, successes and truncations ``[50, copies]``."""
    seen, rows = [environments.reset()], []
    for action in actions:
        observation, reward, terminated, truncated = environments.step(action)
        assert not terminated.any()
        seen.append(observation)
        rows.append((reward, environments.success.copy(), truncated))
    environments.close()
    return {name: np.stack([each[name] for each in seen]) for name in seen[0]}, *map(np.stack, zip(*rows, strict=True))


def actions_of(kind, copies=COPIES):
    generator = np.random.default_rng(0)
    held = generator.uniform(-1, 1, (10, copies, 4)).astype(np.float32)
    return np.repeat(held, 5, 0) if kind == "random" else np.zeros((50, copies, 4), np.float32)


@needed
@pytest.mark.parametrize("dense", [False, True], ids=["sparse", "dense"])
@pytest.mark.parametrize("task", TASKS)
def test_both_backends_have_the_same_spaces_rule_and_limit(task, dense):
    id = f"{task}{'Dense' if dense else ''}-v4"
    described = describe_environment(id)
    # Gymnasium-Robotics misses a goal at the threshold itself by its success, and not by its reward.
    assert described.spaces.goal == Goal("distance" if dense else "sparse", 0.05, inclusive=not dense)
    assert described.time_limit == 50
    environments = made(id, "envpool", 2)
    assert environments.spaces == described.spaces
    environments.close()


@pytest.mark.training
@needed
@pytest.mark.parametrize("backend", ["envpool", "gymnasium"])
@pytest.mark.parametrize("task", [*TASKS, "FetchPushDense"])
def test_rewards_and_successes_follow_from_the_goals(task, backend):
    copies = 8
    environments = made(f"{task}-v4", backend, copies)
    goal = environments.spaces.goal
    seen, reward, success, truncated = episode(environments, actions_of("random", copies))
    achieved, desired = seen[ACHIEVED][1:], seen[DESIRED][1:]
    np.testing.assert_allclose(reward, goal.reward(achieved, desired), atol=1e-6)
    np.testing.assert_array_equal(success, goal.success(achieved, desired))
    assert truncated[-1].all()
    assert not truncated[:-1].any()
    assert all(part.dtype == np.float32 for part in seen.values())


@pytest.mark.training
@needed
@pytest.mark.parametrize("task", TASKS)
def test_both_backends_start_from_the_same_place_and_draw_the_same_goals(task):
    starts = {}
    for backend in ("envpool", "gymnasium"):
        environments = made(f"{task}-v4", backend)
        starts[backend] = environments.reset()
        environments.close()
    gripper = [start[OBSERVATION][:, :3] for start in starts.values()]
    # Another version of MuJoCo would settle centimetres apart.
    np.testing.assert_allclose(*gripper, atol=1e-4)
    for name in (DESIRED, ACHIEVED):
        low, high = (np.stack([edge(start[name], 0) for start in starts.values()]) for edge in (np.min, np.max))
        tolerance = 0.01 + 0.2 * (high - low).max(0)
        assert np.all(np.abs(low[0] - low[1]) < tolerance), name
        assert np.all(np.abs(high[0] - high[1]) < tolerance), name


@needed
@pytest.mark.parametrize("task", TASKS)
def test_the_gripper_moves_alike(task):
    """Objects start where each back end draws them."""
    paths = {}
    for backend in ("envpool", "gymnasium"):
        seen, *_ = episode(made(f"{task}-v4", backend, 4), actions_of("random", 4))
        paths[backend] = seen[OBSERVATION][..., :3]
    moved = np.abs(paths["envpool"][1:] - paths["envpool"][:1]).max()
    assert moved > 0.1
    np.testing.assert_allclose(paths["envpool"], paths["gymnasium"], atol=1e-3)


def test_every_fetch_task_is_told_where_its_robot_stands():
    assert envpool_defaults("FetchSlideDense-v4") == {"initial_slide0": 0.05}
    assert envpool_defaults("HandReach-v3") == {}
    assert FETCH.fullmatch("FetchPickAndPlace-v4")[1] == "PickAndPlace"
