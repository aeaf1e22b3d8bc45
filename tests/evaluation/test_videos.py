"""Videos and evaluations across environments, of shared and of personal policies."""

import imageio.v2
import numpy as np
import pytest

import fedrax
from fedrax.cli import main
from fedrax.environments.native import native_environments
from fedrax.records.across import read_across
from fedrax.render import render

SMALL = [
    "learner=ppo",
    "learner.hidden=[8]",
    "learner.num_steps=16",
    "learner.update_epochs=1",
    "environment.num_envs=2",
    "federation.agents=2",
    "budget.rounds=4",
    "checkpoint.every=2",
    "evaluation.episodes=2",
    "evaluation.horizon=12",
]


@pytest.fixture(scope="module")
def crossing(tmp_path_factory):
    """Two agents alone in mazes of their own, recorded on video while they learn."""
    corners = ["environment.heterogeneity.start_corner=[0, 1]", "environment.heterogeneity.goal_corner=[2, 3]"]
    settings = ["environment=MiniGrid-SimpleCrossingS9N1-v0", "strategy=local", "video.every=4", "video.agent=1"]
    out = tmp_path_factory.mktemp("crossing") / "run"
    return fedrax.train({}, [*SMALL, *settings, *corners], out=out, progress=False)


@pytest.mark.training
def test_a_run_videos_itself_every_so_many_rounds(crossing):
    (path,) = (crossing.path / "videos").iterdir()
    assert path.name == "round-4.mp4"
    assert imageio.v2.get_reader(path).count_frames() == 13


@pytest.mark.training
def test_render_videos_the_agent_asked_for(crossing, tmp_path):
    first = [render(crossing.path, agent=agent, formats=("gif",), out=tmp_path / str(agent))[0] for agent in (0, 1)]
    frames = [imageio.v2.mimread(path)[0] for path in first]
    assert frames[0].shape[:2] == (288, 288)
    assert not np.array_equal(*frames), "they start in different corners"


@pytest.mark.training
def test_every_policy_in_every_environment(crossing, capsys):
    results = crossing.evaluate_across(episodes=3)[0]
    assert results.returns.shape == results.lengths.shape == (2, 2, 3)
    own = crossing.evaluate(episodes=3, environments="own")[0]
    np.testing.assert_array_equal(own.returns, results.returns[[0, 1], [0, 1]])
    assert main(["evaluate", str(crossing.path), "--episodes", "3", "--across"]) == 0
    kept, episodes, policy, rounds = read_across(crossing.path)
    assert (kept[0].ndim, episodes, policy) == (2, 3, "last")
    assert rounds == crossing.summary()["rounds"]
    assert "policy by environment" in capsys.readouterr().out


@pytest.mark.training
def test_unseen_environments_need_distributions(crossing, tmp_path, capsys):
    assert main(["evaluate", str(crossing.path), "--unseen", "2"]) == 1
    assert "unseen environments need distributions" in capsys.readouterr().err
    table = "environment.heterogeneity.length={distribution='uniform', low=0.3, high=0.9}"
    overrides = [*SMALL, "environment=CartPole-v1", "strategy=fedavg", table]
    run = fedrax.train({}, overrides, out=tmp_path / "run", progress=False)
    assert run.evaluate_across(episodes=3, unseen=4)[0].returns.shape == (1, 4, 3)
    assert run.evaluate_across(episodes=3)[0].returns.shape == (1, 2, 3)


@pytest.mark.training
def test_equal_environments_are_not_compared(tmp_path, capsys):
    run = fedrax.train({}, [*SMALL, "environment=CartPole-v1", "strategy=local"], out=tmp_path / "run", progress=False)
    assert main(["evaluate", str(run.path), "--across"]) == 1
    assert "all agents have the same 'CartPole-v1'" in capsys.readouterr().err


def test_the_start_on_the_goal_is_refused(capsys, tmp_path):
    overrides = [
        *SMALL,
        "environment=MiniGrid-LavaCrossingS9N1-v0",
        "strategy=local",
        "environment.heterogeneity.goal_corner=0",
    ]
    assert main(["train", "fedppo/simple-crossing", *overrides, "--out", str(tmp_path / "x")]) == 1
    assert "start_corner and goal_corner are both 0" in capsys.readouterr().err


@pytest.mark.parametrize("id", ["CartPole-v1", "Acrobot-v1", "MiniGrid-LavaCrossingS9N2-v0"])
def test_native_environments_can_be_drawn(id):
    import jax

    environment = native_environments[id]()
    physics = environment.physics()
    pictures = []
    for seed in range(2):
        state, _ = environment.reset(jax.random.key(seed), physics)
        pictures.append(environment.draw(state, physics))
    assert pictures[0].dtype == np.uint8
    assert pictures[0].ndim == 3
    assert not np.array_equal(*pictures)
