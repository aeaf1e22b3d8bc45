"""Success is recorded wherever an environment tells of it, and nowhere else."""

import math
import re
import types

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedrax
from fedrax.environments.actions import Actions, TransformHostActions
from fedrax.environments.base import Box, Discrete
from fedrax.environments.host import make_host
from fedrax.environments.host_collector import evaluate_host
from fedrax.environments.host_joined import JoinedEnvironments
from fedrax.environments.native import native_environments
from fedrax.environments.native_collector import episode_returns
from fedrax.environments.success import is_true, told
from fedrax.evaluation.pairs import Evaluation
from fedrax.printing import evaluation_lines, summary_lines
from fedrax.report.runs import group_runs, load_runs
from fedrax.report.successes import success_table

SCRIPT = {0: [False, True, False, False], 1: [False, False, True], 2: [False, False]}


class Scripted(gymnasium.Env):
    """Success and the end of the episode come by the seed."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    named = "is_success"

    def __init__(self, offset=0.0):
        self.offset = offset

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.script = SCRIPT[seed % 3]
        self.count = 0
        return np.zeros(1, np.float32), {self.named: True}

    def step(self, action):
        success = self.script[self.count] and self.offset < 0.4
        self.count += 1
        return np.zeros(1, np.float32), 1.0 - self.offset, self.count == len(self.script), False, self.info(success)

    def info(self, success):
        return {"is_success": success}


class Numbered(Scripted):
    def info(self, success):
        return {"success": np.float64(success), "others": np.zeros(self.count)}


class Silent(Scripted):
    def info(self, success):
        return None


@pytest.fixture(autouse=True)
def registered():
    for name, kind in (("Scripted-v0", Scripted), ("Numbered-v0", Numbered), ("Silent-v0", Silent)):
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=kind, max_episode_steps=10)


def nothing(observation, step):
    return np.zeros(len(observation), np.int64)


@pytest.mark.parametrize("name", ["Scripted-v0", "Numbered-v0"])
@pytest.mark.parametrize("joined", [False, True])
def test_success_in_any_step_in_the_last_and_its_share(name, joined):
    environments = make_host(name, 3)
    if joined:
        environments = JoinedEnvironments([make_host(name, 1) for _ in range(3)])
    environments = TransformHostActions(environments, Actions(Discrete(2)))
    environments.reseed(np.array([0, 1, 2]))
    measured = evaluate_host(environments, nothing)
    np.testing.assert_array_equal(measured["length"], [4, 3, 2])
    np.testing.assert_array_equal(measured["success"], [1, 1, 0])
    np.testing.assert_array_equal(measured["success_last"], [0, 1, 0])
    np.testing.assert_allclose(measured["success_share"], [1 / 4, 1 / 3, 0])
    environments.close()


def test_an_environment_that_does_not_tell_has_no_success():
    environments = make_host("Silent-v0", 2)
    environments.reseed(np.array([0, 1]))
    assert set(evaluate_host(environments, nothing)) == {"return", "length"}
    environments.close()


@pytest.mark.training
@pytest.mark.parametrize("native", [True, False])
def test_minigrid_succeeds_by_a_reward_at_the_end(native):
    name = "MiniGrid-Empty-5x5-v0" if not native else "MiniGrid-SimpleCrossingS9N1-v0"
    if native:
        environment = native_environments[name]()
        measured = episode_returns(
            environment,
            environment.physics(),
            lambda observation, key: jax.random.randint(key, (observation.shape[0],), 0, 3),
            jax.random.key(1),
            episodes=64,
            horizon=300,
        )
    else:
        environments = make_host(name, 64)
        environments.reseed(np.arange(64))
        draws = np.random.default_rng(0)
        measured = evaluate_host(environments, lambda observation, step: draws.integers(0, 3, 64).astype(np.int32))
        environments.close()
    reached = np.asarray(measured["return"]) > 0
    assert 0 < reached.sum() < 64
    np.testing.assert_array_equal(measured["success"], reached)
    np.testing.assert_array_equal(measured["success_last"], reached)
    np.testing.assert_allclose(measured["success_share"], reached / np.asarray(measured["length"]), rtol=1e-6)


def test_cartpole_in_jax_has_no_success():
    environment = native_environments["CartPole-v1"]()
    shapes = jax.eval_shape(
        lambda key: episode_returns(
            environment,
            environment.physics(),
            lambda observation, key: jnp.zeros(observation.shape[0], int),
            key,
            episodes=2,
            horizon=5,
        ),
        jax.random.key(0),
    )
    assert set(shapes) == {"return", "length"}


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"is_success": True}, True),
        ({"success": 0.0}, False),
        ({"success": np.array([1.0])}, True),
        ({"is_success": None}, None),
        ({"success": "yes"}, None),
        ({"success": np.zeros(3)}, None),
        ({}, None),
        (None, None),
    ],
)
def test_what_counts_as_success(info, expected):
    assert is_true(told(info)) is expected


@pytest.mark.training
def test_success_reaches_rows_summary_evaluation_and_report(tmp_path):
    run = fedrax.train(
        {},
        [
            *(
                "environment=Scripted-v0",
                "learner=ppo",
                "learner.num_steps=8",
                "strategy=fedavg",
                "federation.agents=2",
            ),
            *("environment.num_envs=2", "budget.rounds=2", "evaluation.every=2", "evaluation.episodes=6"),
            *("environment.heterogeneity.offset=[0.0, 0.5]", "checkpoint.every=2", "learner.hidden=[4]"),
        ],
        out=tmp_path / "run",
        progress=False,
    )
    first, last = run.metrics()
    assert "success" not in first
    assert last["agent_success"][0] > 0
    assert last["agent_success"][1] == 0
    assert last["success_last"] <= last["success"]
    np.testing.assert_allclose(np.mean(last["agent_success"]), last["success"])
    assert run.summary()["final_success"] == last["success"]
    measured = run.evaluate(episodes=6)[0]
    assert measured.success.shape == measured.returns.shape == (2, 3)
    assert last["success_worst"] == last["success_last_worst"] == 0
    np.testing.assert_allclose(np.mean(last["agent_success_last"]), last["success_last"])
    np.testing.assert_allclose(np.mean(last["agent_success_share"]), last["success_share"])
    assert run.summary()["final_success_last"] == last["success_last"]
    headings, lines = success_table(group_runs(load_runs([run.path])))
    assert headings == ["", "success", "all episodes", "worst agent", "agent 0", "agent 1"]
    for line, kind in zip(lines, ("success", "success_last", "success_share"), strict=True):
        told = [float(cell.split()[0]) for cell in line[2:]]
        each = last[f"agent_{kind}"]
        assert told == pytest.approx([100 * last[kind], 100 * min(each), *(100 * x for x in each)], abs=0.51)


def test_agents_are_told_by_the_measures_of_the_headline():
    """The headline said any step, and its agents the last alone, whose mean is another number."""
    ever, last = np.array([[1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]]), np.zeros((2, 4))
    table = {"return": ever, "length": ever, "success": ever, "success_last": last, "success_share": ever}
    lines = list(evaluation_lines(0, Evaluation(table), personal=False, asked=8))
    assert lines[1].startswith("  success in any step 50.0 % [")
    told = {line.partition(": ")[0]: re.findall(r"([\d.]+) % \[", line) for line in lines}
    assert told["  success in any step, in each agent's environment"] == ["75.0", "25.0"]
    assert told["  success in the last step, in each agent's environment"] == ["0.0", "0.0"]
    assert told["  share of steps at the goal, in each agent's environment"] == ["75.0", "25.0"]


def test_a_summarys_success_is_a_percentage():
    """Of one digit after the point, an eighth was 0.1."""
    evaluation = types.SimpleNamespace(episodes=8, environments="registered")
    summary = {"seeds": [0, 1, 2], "final_return": [1.25, 2.0, 3.0], "final_success": [0.125, 1.0, math.nan]}
    run = types.SimpleNamespace(
        summary=lambda: summary, config=types.SimpleNamespace(evaluation=evaluation), path="runs/a"
    )
    (line,) = [line for line in summary_lines(run) if line.startswith("final_success")]
    assert line[19:] == "12.5 %, 100.0 %, - of episodes reached the goal in any step, evaluation.episodes = 8"


def test_box_actions_pass_success_on():
    actions = Actions(Box((1,), (-1.0,), (1.0,)))
    inner = make_host("Silent-v0", 1)
    assert TransformHostActions(inner, actions).success is None
    inner.close()
