"""A run in a continuous environment with a law and noise: trained, recorded, evaluated elsewhere and filmed."""

import json

import imageio.v2
import numpy as np

import fedrax
from fedrax.evaluation.render import render
from fedrax.runtime.draws import physics_draws

SMALL = [
    "learner=ppo",
    "learner.hidden=[8]",
    "learner.num_steps=16",
    "learner.update_epochs=1",
    "strategy=fedavg",
    "environment.copies=2",
    "federation.agents=2",
    "budget.rounds=2",
    "checkpoint.every=2",
    "evaluation.episodes=2",
    "evaluation.horizon=12",
]


def test_a_law_with_noise_trains_and_is_recorded(tmp_path):
    table = ["law=fedtd3", "observation_noise=true", "action_noise_std=0.1"]
    settings = ["environment=ContinuousCartPole-v0", *(f"environment.heterogeneity.{text}" for text in table)]
    run = fedrax.train({}, [*SMALL, *settings], out=tmp_path / "run", progress=False)
    assert np.isfinite(run.metrics()[-1]["return"])
    draws = json.loads((run.path / "manifest.json").read_text())["draws"]
    assert draws == physics_draws(run.config)
    assert draws[0]["observation_noise_mean"] != draws[1]["observation_noise_mean"]
    assert run.evaluate_across(episodes=2, unseen=3)[0].returns.shape == (1, 3, 2)
    (film,) = render(run.path, agent=1, formats=("gif",), out=tmp_path / "film")
    frames = imageio.v2.mimread(film)
    assert frames[0].shape[:2] == (400, 600)
    assert not np.array_equal(frames[0], frames[-1])
