"""Files of PyTorch: the reference's networks as PyTorch computes them, and files that are something else."""

import os
import pickle
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.environments.base import Box, Dict, Spaces
from fedrax.environments.goals import ACHIEVED, DESIRED, OBSERVATION
from fedrax.errors import FedraxError
from fedrax.exchange.td3_her import networks_in, to_params
from fedrax.exchange.torch_files import read_torch, write_torch
from fedrax.learners.base import learners

from reference_networks import made

torch = pytest.importorskip("torch")


class Perceptrons(torch.nn.Module):
    """Hidden ReLU layers and an output under the reference's names, one perceptron or several side by side."""

    def __init__(self, names, inputs, outputs):
        super().__init__()
        self.names = names
        for perceptron in names:
            for number, name in enumerate(perceptron):
                out = outputs if number == 3 else 256
                self.add_module(name, torch.nn.Linear(256 if number else inputs, out))

    def forward(self, x):
        results = []
        for *hidden, last in self.names:
            y = x
            for name in hidden:
                y = torch.relu(getattr(self, name)(y))
            results.append(getattr(self, last)(y))
        return results


@pytest.fixture(scope="module")
def modules():
    torch.manual_seed(0)
    actor = Perceptrons([("fc1", "fc2", "fc3", "action_out")], 10, 3)
    critic = Perceptrons([(*(f"fc{n}_{i}" for i in (1, 2, 3)), f"q{n}_out") for n in (1, 2)], 13, 1)
    return actor, critic


@pytest.mark.parametrize("layout", ["two files", "one file"])
def test_our_networks_compute_what_pytorch_does(modules, layout, tmp_path):
    actor, critic = modules
    if layout == "two files":
        torch.save(actor.state_dict(), tmp_path / "final_actor.pth")
        torch.save(critic.state_dict(), tmp_path / "final_critic.pth")
    else:
        states = {"actor": dict(actor.state_dict()), "critic": dict(critic.state_dict())}
        torch.save(states, tmp_path / "model_round_20.pth")
    networks = networks_in([(path.name, read_torch(path)) for path in tmp_path.iterdir()])

    def box(count):
        return Box((count,), (-1.0,) * count, (1.0,) * count)

    spaces = Spaces(Dict.of({OBSERVATION: box(8), ACHIEVED: box(2), DESIRED: box(2)}), box(3))
    settings = {"actor_layers": (256,) * 3, "feature_layers": (256,) * 2, "head_layers": (256,)}
    params = to_params(networks, learners.build("td3", settings).init_params(jax.random.key(0), spaces), spaces, "x")

    generator = np.random.default_rng(2)
    parts = {name: generator.normal(size=(50, box.shape[0])).astype("f4") for name, box in spaces.observation.parts}
    action = generator.uniform(-1, 1, (50, 3)).astype("f4")
    seen = torch.tensor(np.concatenate([parts[OBSERVATION], parts[DESIRED]], -1))
    with torch.no_grad():
        acted = torch.tanh(actor(seen)[0]).numpy()
        judged = [value[:, 0].numpy() for value in critic(torch.cat([seen, torch.tensor(action)], -1))]
    ours = jax.tree.map(jnp.asarray, parts)
    np.testing.assert_allclose(params.act(ours), acted, atol=1e-5)
    for mine, theirs in zip(params.values(ours, jnp.asarray(action)), judged, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_pytorch_loads_what_is_written(modules, tmp_path):
    networks = made(8, 2, 3)
    path = tmp_path / "model_round_1.pth"
    write_torch(path, networks._asdict())
    loaded = torch.load(path, weights_only=True)
    for module, kind in zip(modules, ("actor", "critic"), strict=True):
        assert list(loaded[kind]) == list(module.state_dict())
        module.load_state_dict(loaded[kind])
    back = read_torch(path)
    for kind, state in networks._asdict().items():
        for name, array in state.items():
            np.testing.assert_array_equal(back[kind][name], array)


class Code:
    """What a pickle may hold: a call."""

    def __reduce__(self):
        return os.mkdir, ("made-by-a-pickle",)


def damaged(path):
    torch.save({"a": torch.zeros(1000)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def empty_archive(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "nothing")


def changed(path):
    """A number of an array is another than was saved; PyTorch loads it."""
    torch.save({"a": torch.arange(100, dtype=torch.float32)}, path)
    whole = bytearray(path.read_bytes())
    whole[whole.index(np.float32(50).tobytes() + np.float32(51).tobytes())] ^= 64
    path.write_bytes(bytes(whole))


def renamed(path):
    """An entry's name is no text any more."""
    torch.save({"a": torch.zeros(2)}, path)
    path.write_bytes(path.read_bytes().replace(b"data.pkl", b"dat\xe4.pkl"))


WRONG = {
    "renamed": renamed,
    "changed": changed,
    "claiming": lambda path: torch.save({"a": torch.zeros(1).expand(10**6, 10**6)}, path),
    "on no device": lambda path: torch.save({"a": torch.zeros(2, device="meta")}, path),
    "text": lambda path: path.write_text("weights\n"),
    "empty": lambda path: path.touch(),
    "bytes": lambda path: path.write_bytes(bytes(range(256))),
    "damaged": damaged,
    "archive": empty_archive,
    "code": lambda path: torch.save({"actor": Code()}, path),
    "plain pickle": lambda path: path.write_bytes(pickle.dumps(Code())),
    "directory": lambda path: path.mkdir(),
    "missing": lambda path: None,
    "number": lambda path: torch.save(3, path),
    "list": lambda path: torch.save([torch.zeros(2)], path),
    "halves": lambda path: torch.save({"fc1.weight": torch.zeros(2, dtype=torch.float16)}, path),
    "sparse": lambda path: torch.save({"fc1.weight": torch.zeros(2, 2).to_sparse()}, path),
    "nested": lambda path: torch.save({"actor": {"fc1": {"weight": torch.zeros(2)}}}, path),
    "module": lambda path: torch.save(torch.nn.Linear(1, 1), path),
}


@pytest.mark.parametrize("kind", WRONG)
def test_another_file_is_refused_in_one_line_and_nothing_in_it_runs(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.pth"
    WRONG[kind](path)
    with pytest.raises(FedraxError) as error:
        read_torch(path)
    assert str(error.value).startswith(("cannot read", str(path)))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
    assert not (tmp_path / "made-by-a-pickle").exists()
