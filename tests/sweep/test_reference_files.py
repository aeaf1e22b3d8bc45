"""Sweeps: files of the reference's shape."""

import json

import pytest

import fedrax
from fedrax.cli import main
from fedrax.sweeps.plan import read_plan

REFERENCE = {
    "num_runs": 5,
    "setups": {
        "mdpo_2_linked": {
            "gym-id": "MiniGrid-SimpleCrossingS9N2-v0",
            "use-gym-id-in-run-name": "True",
            "total-timesteps": 5000000,
            "n-agents": 3,
            "local-updates": 32,
            "num-envs": 4,
            "objective-mode": 4,
            "comm-penalty-coeff": "0.1",
            "comm-matrix-config": "matrices/3_agents.json",
            "vf-coef": 0.001,
            "target-kl": None,
            "track": True,
            "wandb-project-name": "FedRL",
            "cuda": False,
            "seed": 7,
        },
        "clip_solo": {"--objective_mode": "2", "use-comm-penalty": "false", "anneal-lr": "False", "penalty-coeff": 0.4},
        "averaged": {"use-comm-penalty": False, "average-weights": True, "policy-aggregation-mode": "average_return"},
        "both": {"average-weights": True, "policy-aggregation-mode": "scalar_product", "sum-kl-divergencies": True},
    },
}


@pytest.fixture
def unresolved(monkeypatch):
    """Translating does not depend on what resolves."""
    monkeypatch.setattr("fedrax.sweeps.plan.resolve", lambda *_: fedrax.resolve("fedpg-br/cartpole"))


def test_the_references_files_are_translated(tmp_path, unresolved):
    (tmp_path / "matrices").mkdir()
    (tmp_path / "matrices" / "3_agents.json").write_text("{}")
    path = tmp_path / "04_02_3.json"
    path.write_text(json.dumps(REFERENCE))
    plan = read_plan(path)
    assert {seed for job in plan.jobs for seed in job.seeds} == {1, 2, 3, 4, 5}
    assert {job.setup.preset for job in plan.jobs} == {"fedppo/simple-crossing"}
    mdpo, clip, averaged, both = ({*setup.overrides} for setup in plan.setups)
    assert mdpo == {
        "strategy=neighbours",
        "strategy.coefficient=0.1",
        "strategy.weights=fixed",
        f"strategy.topology={tmp_path / 'matrices' / '3_agents.json'}",
        "environment.id=MiniGrid-SimpleCrossingS9N2-v0",
        "environment.num_envs=4",
        "federation.agents=3",
        "federation.local_updates=32",
        "budget.steps_per_agent=5000000",
        "learner.num_steps=128",
        "learner.num_minibatches=4",
        "learner.update_epochs=4",
        "learner.learning_rate=0.00025",
        "learner.anneal_learning_rate=true",
        "learner.discount=0.99",
        "learner.gae_lambda=0.95",
        "learner.normalise_advantages=true",
        "learner.objective=mdpo",
        "learner.clip_coefficient=0.2",
        "learner.clip_value_loss=true",
        "learner.entropy_coefficient=0.01",
        "learner.value_coefficient=0.001",
        "learner.max_gradient_norm=0.5",
        "learner.target_kl=none",
        "learner.kl_coefficient=0.0",
        "strategy.direction=mdpo",
        "strategy.pool=arithmetic",
    }
    assert clip >= {
        "strategy=local",
        "learner.objective=clip",
        "learner.kl_coefficient=0.4",
        "learner.anneal_learning_rate=false",
        "environment.id=CartPole-v1",
    }
    assert not any(text.startswith("strategy.") for text in clip)
    assert averaged >= {
        "strategy=gossip",
        "strategy.weights=return",
        "strategy.topology=complete",
        "learner.kl_coefficient=1.0",
    }
    assert not any(text.startswith("strategy.coefficient") for text in averaged)
    assert both >= {
        "strategy=neighbours",
        'strategy.average=["torso", "actor", "critic"]',
        "strategy.weights=similarity",
        "strategy.direction=mdpo",
        "strategy.pool=mean-of-kls",
    }
    (note,) = plan.notes
    assert note.endswith("cuda, track, use-gym-id-in-run-name, wandb-project-name")


@pytest.mark.parametrize(
    ("flags", "needles"),
    [
        ({"n-agent": 3}, ["setup 'x'", "did you mean 'n-agents'"]),
        ({"objective-mode": 5}, ["objective-mode", "'5'", "1, 2, 3, 4"]),
        ({"anneal-lr": "yes"}, ["anneal-lr = 'yes'", "true or false"]),
        ({"comm-matrix-config": "nowhere.json"}, ["nowhere.json", "no file"]),
        (3, ["x = 3", "table"]),
    ],
)
def test_a_mistake_in_a_references_file_is_one_line(tmp_path, capsys, unresolved, flags, needles):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"num_runs": 1, "setups": {"x": flags}}))
    assert main(["sweep", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for needle in needles:
        assert needle in error
