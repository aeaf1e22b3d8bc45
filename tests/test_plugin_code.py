"""What a plugin is made of is recorded: an edited one is another experiment, and is said wherever the run is used."""

import json
import shutil

import pytest

import fedrax
from fedrax.cli import main
from fedrax.environments.registry import code_of
from fedrax.evaluation.measure import CODE
from fedrax.plugin_code import read_code
from fedrax.report.runs import difference, group_runs, load_run, load_runs

from own_files import TINY, project

__all__ = ["project"]

ENVIRONMENT = """
import gymnasium as gym
import numpy as np

class Paying(gym.Env):
    metadata = {"render_modes": []}
    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), REWARD, False, False, {}

gym.register(id="Paying-v0", entry_point=Paying, max_episode_steps=5)
"""
PAYING = [*TINY, "plugins=['paying.py']", "environment.id=Paying-v0"]
STRATEGY = """
from fedrax.strategies.base import strategies
from fedrax.strategies.fedavg import FedAvg

@strategies.register("NAME")
class Mine(FedAvg):
    "Averages."
"""


def digest(folder, name="plugin.py", **settings):
    return read_code(folder / name, **settings).digest


def test_a_digest_is_of_the_file_and_of_what_it_imports_beside_it(tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    files = {
        "plugin.py": "import json, direct\nfrom within import deep\n\ndef later():\n    from lazily import x\n",
        "direct.py": "import indirect\nimport plugin\n",
        "indirect.py": "",
        "lazily.py": "x = 1",
        "within/__init__.py": "from . import beside",
        "within/deep.py": "from .beside import y",
        "within/beside.py": "y = 1",
    }
    unused = {"other.py": "", "within/unused.py": "", "notes.txt": "", "fedrax/__init__.py": ""}
    for name, text in {**files, **unused}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    before = digest(folder)
    shutil.copytree(folder, tmp_path / "two")
    assert digest(tmp_path / "two") == before, "wherever it lies"
    for name in unused:
        (folder / name).write_text("# edited")
    assert digest(folder) == before
    for name, text in files.items():
        (folder / name).write_text(text + "\n# edited")
        assert digest(folder) != before, name
        (folder / name).write_text(text)
    assert digest(folder) == before


def test_of_an_installed_module_its_own_package_counts_alone(tmp_path):
    (tmp_path / "package").mkdir()
    for name, text in {"package/__init__.py": "import neighbour\nimport package.inner", "package/inner.py": ""}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "neighbour.py").write_text("")
    before = digest(tmp_path, "package/__init__.py", alone=True)
    (tmp_path / "neighbour.py").write_text("# edited")
    assert digest(tmp_path, "package/__init__.py", alone=True) == before
    (tmp_path / "package" / "inner.py").write_text("# edited")
    assert digest(tmp_path, "package/__init__.py", alone=True) != before


def test_a_plugin_that_is_no_python_has_a_digest_all_the_same(tmp_path):
    (tmp_path / "plugin.py").write_bytes(b"\xff(")
    assert digest(tmp_path)


def test_an_environment_is_of_the_plugin_that_registers_it(project):
    project.write("paying.py", ENVIRONMENT.replace("REWARD", "1.0"))
    project.write("beside.py", STRATEGY.replace("NAME", "beside"))
    project.write(
        "renamed.py",
        'import gymnasium\ngymnasium.register("Renamed-v0", "gymnasium.envs.classic_control:CartPoleEnv", '
        "max_episode_steps=9)",
    )
    config = fedrax.resolve(
        None, [*TINY, "plugins=['paying.py', 'beside.py', 'renamed.py']", "environment.id=Paying-v0"]
    )
    plugins = config.plugins
    assert code_of("Paying-v0", plugins) == code_of("Paying-v0", plugins[:1])
    assert code_of("Paying-v0", plugins[1:]) is None
    assert code_of("Renamed-v0", plugins) not in (None, code_of("Paying-v0", plugins))
    assert code_of("CartPole-v1", plugins) is code_of("CartPole-v1", plugins, native=False) is None


@pytest.fixture
def edited(project):
    """One run of a plugin, and one of another seed after it was edited."""
    paths = []
    for seed, reward in enumerate(["1.0", "100.0"]):
        project.forget()
        project.write("paying.py", ENVIRONMENT.replace("REWARD", reward))
        out = project.path / "runs" / str(seed)
        fedrax.train(None, [*PAYING, f"seed={seed}"], out=out, progress=False)
        paths.append(out)
    project.forget()
    return paths


@pytest.mark.training
def test_seeds_before_and_after_an_edit_are_not_one_experiment(edited, capsys, caplog):
    assert main(["report", str(edited[0].parent), "--table", "csv"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "paying" in line]
    assert len(lines) == 2
    groups = group_runs(load_runs([edited[0].parent]))
    assert [len(group.runs) for group in groups] == [1, 1]
    assert difference(groups).count(f"{CODE} = ") == 2
    # The first was trained with what is gone; the second is as it was.
    caplog.clear()
    fedrax.load(edited[0])
    (record,) = caplog.records
    for words in ("plugin ", "paying.py", f"is not what {edited[0]} was trained with", "by its new content"):
        assert words in record.getMessage()
    assert "\n" not in record.getMessage()
    caplog.clear()
    fedrax.load(edited[1])
    assert not caplog.records


@pytest.mark.training
def test_a_run_that_goes_on_with_an_edited_plugin_remembers(edited, caplog):
    path, before = edited[0], json.loads((edited[0] / "manifest.json").read_text())
    fedrax.resume(path, ["budget.rounds=2"], progress=False)
    (record,) = [one for one in caplog.records if "other code" in one.getMessage()]
    assert f"{path} goes on with other code than before: plugin " in record.getMessage()
    after = json.loads((path / "manifest.json").read_text())
    (former,) = after["history"]
    assert former["plugins"] == before["plugins"] != after["plugins"]
    caplog.clear()
    fedrax.load(path)
    assert not caplog.records, "it is what the run was trained with last"
    assert ", then " in load_run(path).measure[CODE]
    assert len(group_runs(load_runs(edited))) == 2


@pytest.mark.training
def test_a_plugin_mended_after_a_crash_is_recorded_without_other_changes(project, caplog):
    crashing = ENVIRONMENT.replace("REWARD", "1.0 / (Paying.steps < 45)").replace(
        "        return np.zeros(1, np.float32), 1.0",
        "        Paying.steps += 1\n        return np.zeros(1, np.float32), 1.0",
    )
    project.write("paying.py", crashing.replace("class Paying(gym.Env):", "class Paying(gym.Env):\n    steps = 0"))
    out = project.path / "run"
    with pytest.raises(fedrax.FedraxError, match="ZeroDivisionError"):
        fedrax.train(None, [*PAYING, "budget.rounds=3"], out=out, progress=False)
    assert (out / "checkpoints" / "checkpoint-1.safetensors").exists()
    project.forget()
    project.write("paying.py", ENVIRONMENT.replace("REWARD", "1.0"))
    fedrax.resume(out, progress=False)
    manifest = json.loads((out / "manifest.json").read_text())
    (former,) = manifest["history"]
    assert former["plugins"] != manifest["plugins"]
    assert former["config"] == manifest["config"]
    assert former["rounds"] >= 1
    assert "goes on with other code than before" in caplog.text


@pytest.mark.training
def test_a_run_from_before_there_were_digests_is_used_as_ever(edited, caplog):
    for path in edited:
        manifest = json.loads((path / "manifest.json").read_text())
        del manifest["plugins"], manifest["environment_code"]
        (path / "manifest.json").write_text(json.dumps(manifest))
    caplog.clear()
    fedrax.resume(edited[0], ["budget.rounds=2"], progress=False)
    assert not caplog.records
    fedrax.resume(edited[1], ["budget.rounds=2"], progress=False)
    assert len(group_runs(load_runs(edited))) == 1


@pytest.mark.training
def test_a_strategys_plugin_parts_seeds_but_not_axes(project):
    """An experiment with a user's strategy is compared with one without."""
    project.write("mine.py", STRATEGY.replace("NAME", "own-averaging"))
    cartpole = [*TINY, "environment.id=CartPole-v1", "environment.horizon=10"]
    fedrax.train(None, cartpole, out="runs/ours", progress=False)
    own = [*cartpole, "plugins=['mine.py']", "strategy=own-averaging"]
    fedrax.train(None, own, out="runs/own", progress=False)
    groups = group_runs(load_runs(["runs"]))
    assert len(groups) == 2
    assert not difference(groups)
