"""Meta-World's tasks by EnvPool and by the package: names, goals seen or hidden, seeds that decide."""

import importlib.util

import numpy as np
import pytest

from fedrax.config import resolve
from fedrax.environments.goal_sets import GoalSet
from fedrax.environments.host import make_host
from fedrax.environments.metaworld import HORIZON, MT10, TASKS, id_of
from fedrax.environments.registry import describe_environment
from fedrax.errors import FedraxError
from fedrax.runtime.draws import describe_run
from fedrax.runtime.make import make_runtime

BACKENDS = [
    pytest.param(
        backend, marks=pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"needs {package}")
    )
    for backend, package in (("envpool", "envpool"), ("gymnasium", "metaworld"))
]
by_each = pytest.mark.parametrize("backend", BACKENDS)
SETS = (GoalSet(5, 0, 3), GoalSet(5, 3, 2))
STILL = np.zeros((2, 4), np.float32)


def starts(backend, task, episodes=6, sets=SETS, **kwargs):
    """The first observations of two copies' episodes, ``[episodes, 2, 39]``, and how the first of these ended."""
    environments = make_host(id_of(task), 2, backend=backend, max_episode_steps=5, goals=sets, kwargs=kwargs)
    environments.reseed(np.arange(2))
    seen, ends = [environments.reset()], []
    for _ in range(episodes - 1):
        for _ in range(5):
            _, _, terminated, truncated = environments.step(STILL)
            ends.append((terminated | truncated).tolist())
        observation, reward, *over = environments.step(STILL)
        assert not reward.any()
        assert not np.any(over)
        seen.append(observation)
    environments.close()
    assert ends[:5] == [[False, False]] * 4 + [[True, True]]
    return np.stack(seen)


@pytest.mark.skipif(importlib.util.find_spec("envpool") is None, reason="needs envpool")
def test_names_are_envpools():
    import envpool

    known = {id for id in envpool.list_all_envs() if id.startswith("MetaWorld/")}
    assert {id_of(task) for task in TASKS} == known
    assert len(known) == 50


@pytest.mark.skipif(importlib.util.find_spec("metaworld") is None, reason="needs metaworld")
def test_names_are_the_packages():
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS, MT10_V3

    assert {f"{task}-v3" for task in TASKS} == set(ALL_V3_ENVIRONMENTS)
    assert [f"{task}-v3" for task in MT10] == list(MT10_V3)


@by_each
def test_a_task_is_described_as_the_package_has_it(backend):
    described = describe_environment(id_of("window-close"), backend=backend)
    assert described.spaces.observation.shape == (39,)
    assert described.spaces.action.shape == (4,)
    assert described.time_limit == HORIZON


@by_each
@pytest.mark.parametrize("task", ["reach", "window-close", "drawer-open"])
def test_episodes_start_at_an_agents_goals_alone(backend, task):
    seen = starts(backend, task)
    # The goal, and the places of what is moved; the hand starts where it started.
    own = [{tuple(row.tolist()) for row in seen[:, copy]} for copy in (0, 1)]
    assert [len(each) for each in own] == [3, 2]
    assert not own[0] & own[1]
    assert seen[:, :, -3:].any()
    np.testing.assert_array_equal(starts(backend, task), seen)


@by_each
def test_a_hidden_goal_is_zeros(backend):
    hidden = starts(backend, "reach", partially_observable=True)
    assert not hidden[:, :, -3:].any()
    assert starts(backend, "reach")[:, :, -3:].any()


@by_each
def test_success_is_told_and_an_episode_ends_at_the_horizon(backend):
    environments = make_host(id_of("reach"), 2, backend=backend)
    environments.reseed(np.arange(2))
    observation = environments.reset()
    for step in range(HORIZON):
        # The hand goes to the goal.
        actions = np.clip(10 * (observation[:, -3:] - observation[:, :3]), -1, 1)
        observation, reward, terminated, truncated = environments.step(np.pad(actions, ((0, 0), (0, 1))))
        assert not terminated.any()
        assert truncated.all() == (step == HORIZON - 1)
    assert environments.success.all()
    assert (reward > 9).all()
    _, reward, _, truncated = environments.step(STILL)
    assert not reward.any()
    assert not truncated.any()
    environments.close()


ONE_ROUND = ["budget.rounds=1"]


def test_a_task_by_its_name():
    assert resolve({}, ["environment.task=window-close", *ONE_ROUND]).environment.id == "MetaWorld/WindowClose-v3"
    preset = {"environment": {"task": "reach"}, "budget": {"rounds": 1}}
    assert resolve(preset).environment.id == "MetaWorld/Reach-v3"
    assert resolve(preset, ["environment.task=push-v3"]).environment.id == "MetaWorld/Push-v3"
    assert resolve(preset, ["environment=CartPole-v1"]).environment.id == "CartPole-v1"
    again = resolve(resolve(preset).model_dump())
    assert again == resolve(preset)


@pytest.mark.parametrize(
    ("source", "overrides", "message"),
    [
        ({}, ["environment.task=window-clsoe"], "did you mean 'window-close'"),
        ({"environment": {"task": "reach", "id": "CartPole-v1"}}, [], "leave one out"),
        ({}, ["environment.tasks=MT11"], "or MT10 for Meta-World's ten"),
        ({}, ["environment.task=reach", "environment.id=CartPole-v1"], "leave one out"),
        ({}, ["environment=CartPole-v1", "environment.task=reach"], "leave one out"),
    ],
)
def test_a_task_that_is_none_is_refused(source, overrides, message):
    with pytest.raises(FedraxError, match=message):
        resolve(source, overrides)


@pytest.mark.parametrize(
    ("id", "meant"),
    [
        ("MetaWorld/Window-Close-v3", "MetaWorld/WindowClose-v3"),
        ("MetaWorld/window-close-v3", "MetaWorld/WindowClose-v3"),
        ("MetaWorld/Reech-v3", "MetaWorld/Reach-v3"),
    ],
)
def test_an_unknown_id_of_meta_world_is_refused(id, meant):
    with pytest.raises(FedraxError, match=rf"unknown environment '{id}' \(did you mean '{meant}'\?\)"):
        describe_environment(id, native=False)


@pytest.mark.skipif(importlib.util.find_spec("envpool") is None, reason="needs envpool")
@pytest.mark.skipif(importlib.util.find_spec("metaworld") is not None, reason="which takes anything for a truth")
def test_a_goal_is_hidden_or_not():
    with pytest.raises(FedraxError, match="partially_observable is true or false"):
        describe_environment(id_of("push"), kwargs={"partially_observable": "perhaps"})


def test_without_any_package_it_says_what_to_install(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in ("envpool", "metaworld") else find(name, *rest)
    )
    with pytest.raises(FedraxError, match=r'pip install "fedrax\[envpool\]", or "fedrax\[metaworld\]"'):
        describe_environment(id_of("push-back"))


@pytest.mark.skipif(importlib.util.find_spec("envpool") is None, reason="needs envpool")
def test_ten_agents_have_the_ten_tasks_of_mt10():
    alike = ["environment.task_identity=true", "learner=sac", "strategy=local", *ONE_ROUND]
    config = resolve({}, ["environment.tasks=MT10", "federation.agents=10", *alike])
    assert config.environment.tasks == [id_of(task) for task in MT10]
    described, _ = describe_run(config)
    assert {name: part.shape for name, part in described.spaces.observation.parts} == {
        "observation": (39,),
        "task_identity": (10,),
    }


@pytest.mark.training
@by_each
def test_ten_agents_train_on_the_ten_tasks_of_mt10(backend):
    settings = [
        *("environment.tasks=MT10", f"environment.backend={backend}", "environment.task_identity=true"),
        *("environment.num_envs=1", "environment.horizon=4", "environment.goals=2", "environment.held_out_goals=1"),
        *("federation.agents=10", "learner=sac", "learner.num_steps=6", "learner.learning_starts=10"),
        *("learner.batch_size=8", "learner.buffer_size=50", "strategy=fedavg", "budget.rounds=3"),
        *("evaluation.episodes=1", "evaluation.environments=own"),
    ]
    runtime = make_runtime(resolve({}, settings))
    *_, (_, rows) = runtime.advance(runtime.init(), 0)
    runtime.close()
    returns = np.asarray(rows["agent_returns"])[0, -1]
    assert returns.shape == (10,)
    assert (returns >= 0).all()
    assert len(set(returns.tolist())) == 10, "each agent has a task of its own"
    assert not rows["agent_success_last"][0, -1].any()
    assert rows["gradient_steps"][0, -1] > 0
    assert np.isfinite(rows["critic_loss"][0, -1])


@pytest.mark.training
@by_each
def test_a_run_that_goes_on_at_a_checkpoint_sees_the_goals_it_would_have_seen(backend):
    settings = [
        *("environment.task=reach", f"environment.backend={backend}", "environment.num_envs=2", "environment.goals=3"),
        *("environment.held_out_goals=2", "environment.horizon=7", "federation.agents=2", "learner=sac"),
        *("learner.num_steps=10", "learner.learning_starts=20", "learner.batch_size=16", "learner.buffer_size=500"),
        *("strategy=fedavg", "budget.rounds=4", "evaluation.episodes=4", "checkpoint.every=2"),
    ]

    def trained(runtime, state, first):
        *_, (state, rows) = runtime.advance(state, first)
        return state, rows

    runtime = make_runtime(resolve({}, settings))
    middle, _ = trained(runtime, runtime.init(), 0)
    _, through = trained(runtime, middle, 2)
    runtime.close()
    again = make_runtime(resolve({}, settings))
    _, resumed = trained(again, middle, 2)
    again.close()
    assert np.isfinite(through["return"]).all()
    np.testing.assert_array_equal(through["return"], resumed["return"])
    np.testing.assert_array_equal(through["train_return"], resumed["train_return"])
