"""Exported policies act as the run they are of, in NumPy, ONNX Runtime and PyTorch."""

import builtins
import importlib.util
import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from fedrax.cli import main
from fedrax.environments.minigrid import mission_tokens
from fedrax.errors import FedraxError
from fedrax.exchange.exports import export

from fresh_runs import made


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory):
    return made(tmp_path_factory.mktemp("acting") / "cartpole", "fedpg-br/cartpole")


@pytest.fixture(scope="module")
def push(tmp_path_factory):
    return made(tmp_path_factory.mktemp("acting") / "push", "td3-her/point-push", ["strategy=local"])


def test_whose_policy_is_exported_is_said_by_the_user(push, cartpole, tmp_path, capsys):
    out = tmp_path / "policy.npz"
    assert main(["export", str(push.path), "--to", "npz", "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert "has a policy of its own: give agent=0 to agent=1 (fedrax export: --agent 0 to --agent 1)" in error
    assert not out.exists()
    assert main(["export", str(push.path), "--to", "npz", "--out", str(out), "--agent", "1"]) == 0
    with np.load(out) as file:
        assert json.loads(str(file["about"]))["agent"] == 1
    # Where all share one, there is nothing to say.
    assert main(["export", str(cartpole.path), "--to", "npz", "--out", str(tmp_path / "shared.npz")]) == 0


@pytest.mark.training
def test_the_words_of_missions_are_in_the_metadata(tmp_path):
    """A sentence is made of the metadata alone, as the environment's is."""
    pytest.importorskip("minigrid")
    task = ["environment=MiniGrid-GoToObject-6x6-N2-v0", "environment.mission=true"]
    run = made(tmp_path / "run", None, ["learner=ppo", "strategy=fedavg", "learner.hidden=[8]", *task], seeds=1)
    with np.load(export(run.path, "npz")) as file:
        image, mission = json.loads(str(file["about"]))["observation"]
    assert (image["type"], image["shape"]) == ("float32", [7, 7, 3])
    numbers = [mission["words"].index(word) for word in ("go", "to", "the", "red", "ball")]
    (length,) = mission["shape"]
    assert len(mission["words"]) == mission["vocabulary"]
    assert mission_tokens("go to the red ball", length).tolist() == [*numbers, *[0] * (length - len(numbers))]


def test_an_npz_file_is_all_that_numpy_needs(cartpole, tmp_path, capsys):
    """The policy of the file and its metadata alone."""
    out = tmp_path / "policy.npz"
    assert main(["export", str(cartpole.path), "--to", "npz", "--seed", "1", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    with np.load(out, allow_pickle=False) as file:
        about, arrays = json.loads(str(file["about"])), {name: file[name] for name in file if name != "about"}
    assert (about["format"], about["seed"], about["action"]) == ("fedrax-policy-1", 1, {"count": 2, "first": 0})
    x = batch = np.random.default_rng(0).normal(size=(50, 4))
    count = len(about["learner"]["hidden"]) + 1
    for number in range(count):
        x = x @ arrays[f"layers.{number}.weight"].T + arrays[f"layers.{number}.bias"]
        x = np.maximum(x, 0) if number < count - 1 else x
    np.testing.assert_array_equal(x.argmax(1), cartpole.policy(seed=1)(batch))


@pytest.mark.parametrize("to", ["onnx", "torch"])
def test_a_package_that_is_missing_is_named(cartpole, to, monkeypatch, capsys, tmp_path):
    real = builtins.__import__

    def missing(name, *arguments, **options):
        if name.partition(".")[0] in ("onnx", "torch"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert main(["export", str(cartpole.path), "--to", to, "--out", str(tmp_path / f"policy.{to}")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f'pip install "fedrax[{to}]"' in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", ["onnx", "torch"])
def test_exports_of_a_run_act_as_the_run_does(to, push, tmp_path):
    pytest.importorskip(to)
    policy = push.policy(seed=1, agent=1)
    seen = {
        name: np.stack([policy.observation_space[name].sample() for _ in range(5)]) for name in policy.observation_space
    }
    path = export(push.path, to, seed=1, agent=1, out=tmp_path / {"onnx": "policy.onnx", "torch": "policy.pt"}[to])
    if to == "onnx":
        runtime = pytest.importorskip("onnxruntime")
        session = runtime.InferenceSession(path)
        about = session.get_modelmeta().custom_metadata_map
        assert (json.loads(about["agent"]), json.loads(about["environment"])) == (1, "PointPush-v0")
        (action,) = session.run(["action"], {f"observation.{name}": x for name, x in seen.items()})
    else:
        import torch

        module = runpy.run_path(str(path.with_suffix(".py")))
        given = {name: torch.from_numpy(x) for name, x in seen.items()}
        action = module["load"]()(given)["action"].detach().numpy()
    np.testing.assert_allclose(action, policy(seen), atol=1e-5)


def test_a_module_is_not_written_over_its_weights(cartpole, tmp_path):
    with pytest.raises(FedraxError, match=r"choose a name that ends in \.pt"):
        export(cartpole.path, "torch", out=tmp_path / "policy.py")


def test_the_pages_code_acts(tmp_path, monkeypatch):
    """Of docs/networks.md, block by block, in a folder with a run and its exports."""
    page = (Path(__file__).parent.parent.parent / "docs" / "networks.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 4
    made(tmp_path / "runs" / "cartpole", "fedpg-br/cartpole")
    monkeypatch.chdir(tmp_path)
    for module, to in (("", "npz"), ("onnxruntime", "onnx"), ("torch", "torch")):
        if not module or importlib.util.find_spec(module):
            export("runs/cartpole", to)
    monkeypatch.syspath_prepend("runs/cartpole")
    actions = []
    for block in blocks:
        if ("onnxruntime" in block and not importlib.util.find_spec("onnxruntime")) or (
            "torch" in block and not importlib.util.find_spec("torch")
        ):
            continue
        names = {}
        exec(block, names)
        actions += [int(names["action"][0])] if "action" in names else []
    assert len(actions) == 1 + sum(importlib.util.find_spec(name) is not None for name in ("onnxruntime", "torch"))
    assert len(set(actions)) == 1
