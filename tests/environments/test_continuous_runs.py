"""A run in a continuous environment with a joint distribution and noise: trained, recorded, evaluated, rendered."""

import json

import imageio.v2
import jax
import numpy as np
import pytest

import fedrax
from fedrax.config import resolve
from fedrax.environments.native_collector import collect_episodes
from fedrax.errors import FedraxError
from fedrax.render import render
from fedrax.runtime.draws import physics_draws
from fedrax.runtime.make import make_runtime

SMALL = [
    "learner=ppo",
    "learner.hidden=[8]",
    "learner.num_steps=16",
    "learner.update_epochs=1",
    "strategy=fedavg",
    "environment.num_envs=2",
    "federation.agents=2",
    "budget.rounds=2",
    "checkpoint.every=2",
    "evaluation.episodes=2",
    "evaluation.horizon=12",
]


@pytest.mark.training
def test_a_joint_distribution_with_noise_trains_and_is_recorded(tmp_path, capsys):
    table = ["distribution=fedtd3", "observation_noise=true", "action_noise_std=0.1"]
    settings = ["environment=ContinuousCartPole-v0", *(f"environment.heterogeneity.{text}" for text in table)]
    run = fedrax.train({}, [*SMALL, *settings], out=tmp_path / "run", progress=True)
    assert (
        "agents' environments differ; standard deviation over the default value, if that is not 0: gravity 0.138, "
        in capsys.readouterr().out
    )
    assert np.isfinite(run.metrics()[-1]["return"])
    manifest = json.loads((run.path / "manifest.json").read_text())
    (draws,) = manifest["draws"]
    assert {"length", "masspole", "masscart", "gravity", "observation_noise_mean"} == manifest["divergence"].keys()
    assert draws == physics_draws(run.config)
    assert draws[0]["observation_noise_mean"] != draws[1]["observation_noise_mean"]
    assert run.evaluate_across(episodes=2, unseen=3)[0].returns.shape == (1, 3, 2)
    (video,) = render(run.path, agent=1, formats=("gif",), out=tmp_path / "video")
    frames = imageio.v2.mimread(video)
    assert frames[0].shape[:2] == (400, 600)
    assert not np.array_equal(frames[0], frames[-1])


CENTRAL = ["strategy=central", "learner=policy-gradient", "federation.agents=3", "budget.rounds=2"]
GRAVITIES = "environment.heterogeneity.g=[5.0, 10.0, 15.0]"


@pytest.mark.training
def test_a_centralised_learner_of_whole_episodes_visits_every_agents_environment(tmp_path):
    settings = [*CENTRAL, "environment=Pendulum-v1", "environment.horizon=7", "evaluation.episodes=2"]
    runtime = make_runtime(resolve({}, [*settings, "strategy.batch=5", GRAVITIES]))
    np.testing.assert_array_equal(runtime.agents_draws["g"][0], [[5, 5, 10, 10, 15]])
    run = fedrax.train({}, [*settings, "strategy.batch=6", GRAVITIES], out=tmp_path / "run", progress=False)
    assert np.isfinite(run.metrics()[-1]["train_return"])
    last = run.metrics()[-1]
    assert (last["agent_trajectories"], last["agent_steps"]) == (2 * 6, 2 * 42)


@pytest.mark.training
def test_episodes_of_copies_that_differ_are_those_of_environments_apart():
    settings = [*CENTRAL, "environment=ContinuousCartPole-v0", "environment.horizon=30"]
    lengths = "environment.heterogeneity.length=[0.3, 0.5, 2.0]"
    runtime = make_runtime(resolve({}, [*settings, "strategy.batch=6", lengths]))
    own = jax.tree.map(lambda x: x[0, 0], runtime.agents_draws)

    def collect(physics, **settings):
        def act(observation, key):
            return observation[:, 2:3]

        return collect_episodes(
            runtime.environment, physics, act, jax.random.key(3), count=6, max_count=6, horizon=30, **settings
        )

    together = collect(own, per_copy=True)
    for copy, site in enumerate((0, 0, 1, 1, 2, 2)):
        apart = collect({name: x[2 * site] for name, x in own.items()})
        valid = np.asarray(apart.valid[:, copy])
        np.testing.assert_array_equal(together.valid[:, copy], valid)
        for name in ("observation", "reward"):
            ours, theirs = (np.asarray(getattr(each, name)[:, copy])[valid] for each in (together, apart))
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_too_few_episodes_for_the_agents_environments_are_refused():
    with pytest.raises(FedraxError, match=r"2 episodes .* of 3 agents: set strategy.batch=3 or more, or remove"):
        make_runtime(resolve({}, [*CENTRAL, "environment=Pendulum-v1", "strategy.batch=2", GRAVITIES]))
