"""What the page on environments of one's own shows runs."""

import json
import shutil
from pathlib import Path

import pytest

import fedrax
from fedrax import api
from fedrax.runtime.draws import all_draws
from fedrax.sweeps.plan import read_plan

from own_files import project

__all__ = ["project"]

EXAMPLE = Path(__file__).parent.parent / "examples" / "point-mass"
MASSES = [{"mass": 0.5}, {"mass": 1.0}, {"mass": 2.0}, {"mass": 4.0}]
SMALL = ["budget.rounds=1", "learner.hidden=[8]", "learner.num_steps=8", "learner.num_minibatches=1"]
SMALL += ["learner.update_epochs=1", "environment.num_envs=1", "environment.horizon=8", "evaluation.episodes=1"]


@pytest.mark.training
def test_one_file_compares_three_methods_in_four_masses(project, monkeypatch):
    shutil.copytree(EXAMPLE, project.path / "example")
    monkeypatch.chdir(project.path.parent)
    plan = read_plan(project.path / "example" / "compare.toml")
    assert sorted(job.name for job in plan.jobs) == [
        f"{method} seed {seed}" for method in ("central", "fedavg", "local") for seed in range(3)
    ]
    for job in plan.jobs[:3]:
        assert all_draws(job.config) == [MASSES]
        out = project.path / "runs" / job.setup.name
        run = fedrax.train(job.setup.preset, [*job.overrides, *SMALL], out=out, progress=False)
        assert json.loads((out / "manifest.json").read_text())["draws"] == [MASSES]
        assert run.summary()["rounds"] == 1
        assert run.evaluate_across(episodes=1)[0].returns.shape == (4 if job.setup.name == "local" else 1, 4, 1)


@pytest.mark.slow
def test_the_sweep_runs_as_a_user_starts_it(project, monkeypatch):
    shutil.copytree(EXAMPLE, project.path / "example")
    path = project.path / "example" / "compare.toml"
    path.write_text(path.read_text().replace("[setups.fedavg]", f"set = {json.dumps(SMALL)}\n[setups.fedavg]", 1))
    monkeypatch.chdir(project.path.parent)
    outcome = api.sweep(path)
    assert [task.state for task in outcome.tasks] == ["done"] * 9
