"""Imported networks as runs: evaluated, drawn, trained from, exported; PyTorch only where files of it are read."""

import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

import fedrax
from fedrax.cli import main
from fedrax.environments.goals import ACHIEVED, DESIRED, OBSERVATION
from fedrax.errors import FedraxError
from fedrax.exchange.achieved import achieved_at
from fedrax.exchange.exports import export
from fedrax.exchange.formats import FORMATS, named_arrays
from fedrax.exchange.imports import import_arrays
from fedrax.exchange.td3_her import from_params
from fedrax.exchange.torch_files import read_torch
from fedrax.records.checkpoint import load_networks
from fedrax.runtime.draws import describe_run

from reference_networks import act, made

SHORT = ["evaluation.episodes=2", "seeds=2"]
NETWORKS = made(8, 2, 2)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    out = tmp_path_factory.mktemp("imported") / "push"
    return import_arrays(NETWORKS, "td3-her/point-push", SHORT, out=out)


def test_every_seed_and_agent_has_the_networks(imported):
    for policy in imported.policies().values():
        back = from_params(
            jax.tree.map(lambda x: x[0], policy), describe_run(imported.config)[0].spaces, "x", lambda: None
        )
        for kind in ("actor", "critic"):
            for name, array in getattr(NETWORKS, kind).items():
                np.testing.assert_array_equal(getattr(back, kind)[name], array)
    assert sorted(imported.policies("best")) == [0, 1]


def test_widths_follow_from_the_networks(tmp_path):
    networks = made(8, 2, 2, (5, 6, 7))
    run = import_arrays(networks, "td3-her/point-push", ["learner.normalise=true"], out=tmp_path / "run")
    learner = run.config.learner
    assert [list(learner[f"{name}_layers"]) for name in ("actor", "feature", "head")] == [[5, 6, 7], [5], [6, 7]]
    assert learner["normalise"] is False
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["imported"] is True


def test_a_shared_policy_is_imported_once(tmp_path):
    run = import_arrays(
        NETWORKS, "td3-her/point-push", ["strategy=fedavg", "federation.agents=3"], out=tmp_path / "run"
    )
    (policy,) = run.policies().values()
    assert policy.actor.layers[0].bias.shape == (256,)


@pytest.mark.training
def test_an_imported_run_is_evaluated_and_drawn(imported, tmp_path, capsys):
    assert main(["evaluate", str(imported.path), "--episodes", "3"]) == 0
    assert "seed 1: return" in capsys.readouterr().out
    assert main(["render", str(imported.path), "--format", "gif", "--out", str(tmp_path / "video")]) == 0
    assert (tmp_path / "video.gif").stat().st_size > 1000


def test_an_imported_run_does_not_go_on_but_is_trained_from(imported):
    with pytest.raises(
        FedraxError, match=r"no training that could go on; train from them: fedrax train .*config\.toml"
    ):
        fedrax.resume(imported.path, ["budget.steps_per_agent=10"])


@pytest.mark.parametrize(
    ("source", "changes", "why"),
    [
        ("fedtd3/pendulum", [], "need a goal environment"),
        ("fedpg-br/cartpole", [], "need learner td3, not 'policy-gradient'"),
        ("td3-her/point-push", ["environment=PointReach-v0"], "see 10 numbers of observation and goal"),
    ],
)
def test_networks_of_another_environment_leave_nothing(source, changes, why, tmp_path):
    with pytest.raises(FedraxError, match=why):
        import_arrays(NETWORKS, source, changes, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_there_is_nothing_to_report_of_imported_networks(imported, capsys):
    assert main(["report", str(imported.path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "holds imported networks, of which there is nothing to report; train from them" in error


def test_a_run_is_not_overwritten(imported):
    with pytest.raises(FedraxError, match="already holds a run"):
        import_arrays(NETWORKS, "td3-her/point-push", out=imported.path)


def test_where_the_achieved_goal_stands(imported):
    """By hand, of :class:`PointTask`: the puck is third and fourth, PointReach's robot first."""
    assert achieved_at(imported.config) == 2
    reach = fedrax.resolve("td3-her/point-push", ["environment=PointReach-v0"])
    assert achieved_at(reach) == 0


def test_safetensors_hold_what_another_program_needs(imported, capsys):
    """The policy from the file and its metadata alone, in NumPy."""
    assert main(["export", str(imported.path), "--to", "safetensors", "--seed", "1"]) == 0
    path = imported.path / "exported.safetensors"
    assert capsys.readouterr().out == f"{path}\n"
    with safe_open(path, framework="numpy") as file:
        about = {name: text if name == "format" else json.loads(text) for name, text in file.metadata().items()}
    arrays = load_file(path)
    assert (about["format"], about["environment"], about["seed"], about["agent"], about["policy"]) == (
        *("fedrax-policy-1", "PointPush-v0", 1, 0, "last"),
    )
    assert about["tasks"] == []
    with pytest.raises(FedraxError, match="was exported for other programs; give the run that it is of"):
        load_networks(path, {})
    generator = np.random.default_rng(0)
    seen = {
        part["name"]: generator.normal(size=(5, *part["shape"])).astype(part["type"]) for part in about["observation"]
    }
    x = np.concatenate(list(seen.values()), -1)
    count = len(about["learner"]["actor_layers"]) + 1
    for number in range(count):
        x = x @ arrays[f"actor.layers.{number}.weight"].T + arrays[f"actor.layers.{number}.bias"]
        x = np.maximum(x, 0) if number < count - 1 else np.tanh(x)
    np.testing.assert_allclose(x, act(NETWORKS, seen[OBSERVATION], seen[DESIRED]), atol=1e-5)
    assert ACHIEVED in seen
    assert about["action"] == {"shape": [2], "low": [-1.0, -1.0], "high": [1.0, 1.0]}


def test_what_observations_are_normalised_by_is_exported():
    """Of parts received and parts seen since, the moments of both, by which NumPy sees what the networks see."""
    config = fedrax.resolve("td3-her/point-push", ["learner.normalise=true"])
    spaces = describe_run(config)[0].spaces
    params = config.component("learner").init_params(jax.random.key(0), spaces)
    generator = np.random.default_rng(0)
    seen = {
        name: generator.normal(size=(40, *part.shape), loc=3, scale=2).astype(np.float32)
        for name, part in spaces.observation.parts
    }
    normaliser, one = params.normaliser, jnp.asarray([True])
    for first in (0, 20):
        steps = {name: jnp.asarray(x[first : first + 20]) for name, x in seen.items()}
        normaliser = normaliser.observe(steps, jnp.ones(20, bool))
        if not first:
            sent = jax.tree.map(lambda x: x[None], normaliser.own)
            normaliser = normaliser.received(normaliser.pooled(sent, one))
    arrays = dict(named_arrays(dataclasses.replace(params, normaliser=normaliser)))
    goals = np.concatenate([seen[ACHIEVED], seen[DESIRED]])
    for name, x in ((OBSERVATION, seen[OBSERVATION]), (ACHIEVED, goals)):
        np.testing.assert_allclose(arrays[f"normaliser.{name}.mean"], x.mean(0), rtol=1e-4)
        np.testing.assert_allclose(arrays[f"normaliser.{name}.deviation"], x.std(0), rtol=1e-4)
    assert sum(name.startswith("normaliser") for name in arrays) == 4


def test_exported_weights_are_by_output_whatever_the_learner():
    config = fedrax.resolve({}, ["learner=ppo", "learner.hidden=[5]", "budget.rounds=1"])
    spaces = describe_run(config)[0].spaces
    arrays = dict(named_arrays(config.component("learner").init_params(jax.random.key(0), spaces)))
    shapes = {array.shape for name, array in arrays.items() if name.endswith("weight")}
    assert shapes >= {(5, 4), (2, 5)}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--to", "pht"], "unknown format 'pht' (did you mean 'pth'?); allowed: npz, onnx, pth, safetensors, torch"),
        (["--to", "safetensors", "--seed", "5"], "seed = 5 is not allowed: the run has seeds 0 to 1"),
        (["--to", "safetensors", "--agent", "4"], "agent = 4 is not allowed: the run has agents 0 to 0"),
        (["--to", "safetensors", "--policy", "7"], "holds no policy after 7 rounds"),
        (["--to", "safetensors", "--out", "RUN/policy.safetensors"], "is there already, in a run's directory"),
        (["--to", "safetensors", "--out", "RUN/config.toml"], "is there already, in a run's directory"),
        (["--to", "safetensors", "--out", "RUN/config.toml/x"], "is a file, and no folder to write in"),
        (["--to", "safetensors", "--out", "RUN"], "is a directory; give a file in it"),
    ],
)
def test_what_cannot_be_exported_is_one_line(imported, words, why, capsys):
    words = [word.replace("RUN", str(imported.path)) for word in words]
    assert main(["export", str(imported.path), *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert why in line


def test_networks_of_another_form_say_to_what_they_can_be_exported(tmp_path):
    run = import_arrays(made(8, 2, 2, (4, 4, 4)), "td3-her/point-push", out=tmp_path / "run")
    with pytest.raises(FedraxError, match=r"hidden layers are \[4, 4, 4\].*; export to safetensors instead"):
        export(run.path, "pth")
    assert set(FORMATS) == {"npz", "onnx", "pth", "safetensors", "torch"}


def test_without_pytorch_its_files_are_refused(imported, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "actor.pth").touch()
    for words in (
        ["import", "td3-her/point-push", str(tmp_path / "actor.pth")],
        ["export", str(imported.path), "--to", "pth"],
    ):
        assert main(words) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert 'pip install "fedrax[torch]"' in line


def test_files_there_and_back_are_the_same_to_the_bit(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    first, second = tmp_path / "final_critic.pth", tmp_path / "final_actor.pth"
    for path, state in ((first, NETWORKS.critic), (second, NETWORKS.actor)):
        torch.save({name: torch.from_numpy(array) for name, array in state.items()}, path)
    run = tmp_path / "run"
    words = ["td3-her/point-push", str(first), "learner.discount=0.9", str(second), "--out", str(run)]
    assert main(["import", *words]) == 0
    assert fedrax.load(run).config.learner["discount"] == 0.9
    sources = json.loads((run / "manifest.json").read_text())["networks_from"]
    assert list(sources) == [str(first), str(second)]

    assert main(["export", str(run), "--to", "pth", "--out", str(tmp_path / "model.pth")]) == 0
    loaded = torch.load(tmp_path / "model.pth", weights_only=True)
    for kind in ("actor", "critic"):
        for name, array in getattr(NETWORKS, kind).items():
            np.testing.assert_array_equal(loaded[kind][name].numpy(), array)

    assert main(["import", "td3-her/point-push", str(tmp_path / "model.pth"), "--out", str(tmp_path / "again")]) == 0
    ours, theirs = (fedrax.load(path).policies()[0] for path in (run, tmp_path / "again"))
    assert jax.tree.all(jax.tree.map(lambda x, y: bool(jnp.array_equal(x, y)), ours, theirs))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("policy.safetensors", r"is no \.pth file, .* learner\.initial=RUN"),
        ("missing.pth", "cannot read .*missing.pth: .*; give the path of a .pth file"),
        ("folder", "is a directory; give the .pth files in it"),
        ("actor.pth", r'pip install "fedrax\[torch\]"'),
    ],
)
def test_nobody_installs_pytorch_for_files_that_it_does_not_read(tmp_path, monkeypatch, name, said):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "folder").mkdir()
    for file in ("policy.safetensors", "actor.pth"):
        (tmp_path / file).touch()
    with pytest.raises(FedraxError, match=said):
        read_torch(tmp_path / name)
