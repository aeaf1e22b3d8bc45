"""Plugins: found from any folder, run once, moved, offered by installed packages; their faults are one line."""

import functools
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedrax
from fedrax import plugins
from fedrax.aggregators.base import aggregators
from fedrax.cli import main
from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.plugins import relocated, short_name
from fedrax.runtime.make import make_runtime
from fedrax.sweeps.attempts import command_of
from fedrax.sweeps.plan import read_plan
from fedrax.sweeps.tasks import tasks_of

from own_files import TINY, project

__all__ = ["project"]

CORRIDOR = "environment.id=OwnCorridor-v0"


def one_line(*overrides, source=None, **settings):
    """The error that resolving ends in."""
    with pytest.raises(FedraxError) as error:
        resolve(source, [*TINY, *overrides], **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("folder", "overrides"),
    [
        (".", ["plugins=['corridor.py']", CORRIDOR]),
        (".", ["plugins=corridor.py", CORRIDOR]),
        ("below", ["plugins=['../corridor.py']", CORRIDOR]),
        (".", ["plugins=['corridor']", CORRIDOR]),
        (".", ["environment.id=corridor:OwnCorridor-v0"]),
        ("below", ["environment.id=../corridor.py:OwnCorridor-v0"]),
    ],
    ids=["own folder", "without a list", "another folder", "module", "id with a module", "id with a file"],
)
def test_a_plugin_whose_entry_point_names_it_runs_from_any_folder(project, monkeypatch, folder, overrides):
    project.copy("corridor.py")
    (project.path / "below").mkdir()
    monkeypatch.chdir(project.path / folder)
    config = resolve(None, [*TINY, *overrides])
    assert config.plugins == (str(project.path / "corridor.py"),)
    assert config.environment.id == "OwnCorridor-v0"
    make_runtime(config).close()
    # A fresh process in another folder, which has the stored configuration alone.
    project.forget()
    monkeypatch.chdir("/")
    stored = project.write("run/config.toml", config.to_toml())
    assert resolve(stored) == config
    make_runtime(resolve(stored)).close()


@pytest.mark.training
def test_a_run_goes_on_when_it_is_moved_and_when_its_plugin_is(project, monkeypatch, tmp_path, capsys):
    project.copy("corridor.py")
    run = fedrax.train(None, [*TINY, "plugins=['corridor.py']", CORRIDOR], out="run", progress=False)
    returns = run.evaluate(episodes=2)[0].returns
    shutil.move("run", tmp_path / "run")
    monkeypatch.chdir("/")
    project.forget()
    assert (fedrax.load(tmp_path / "run").evaluate(episodes=2)[0].returns == returns).all()

    moved = tmp_path / "elsewhere" / "corridor.py"
    moved.parent.mkdir()
    shutil.move(project.path / "corridor.py", moved)
    project.forget()
    assert main(["evaluate", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for words in (f"there is no plugin {project.path / 'corridor.py'}", "--plugins FILE", "called corridor.py"):
        assert words in error
    assert main(["evaluate", str(tmp_path / "run"), "--episodes", "2", "--plugins", str(moved)]) == 0
    assert f"return {returns.mean():.2f}" in capsys.readouterr().out
    # A resumed run remembers the new place.
    assert fedrax.resume(tmp_path / "run", progress=False, plugins=[str(moved)]).config.plugins == (str(moved),)
    project.forget()
    assert fedrax.load(tmp_path / "run").config.plugins == (str(moved),)


def test_an_experiment_is_the_same_wherever_its_plugin_lies(project):
    project.copy("corridor.py")
    here = resolve(None, [*TINY, "plugins=['corridor.py']", CORRIDOR])
    project.forget()
    shutil.copytree(project.path, project.path.parent / "copy")
    there = resolve(None, [*TINY, f"plugins=['{project.path.parent / 'copy' / 'corridor.py'}']", CORRIDOR])
    assert here.plugins != there.plugins
    assert here.digest() == there.digest()
    assert here.digest() != resolve(None, [*TINY, CORRIDOR]).digest()


def test_a_modern_file_with_a_dataclass_and_a_component(project):
    project.copy("future.py")
    chosen = ["environment.id=OwnFuture-v0", "aggregator=own-scaled-mean", "aggregator.scale=2.0"]
    config = resolve(None, [*TINY, "plugins=['future.py']", *chosen])
    assert config.aggregator["scale"] == 2.0
    runtime = make_runtime(config)
    assert runtime.federation.aggregator.scale == 2.0
    runtime.close()


def test_a_plugin_runs_once_in_a_process_by_whatever_name(project):
    counted = 'from pathlib import Path\nwith Path(__file__).with_name("count").open("a") as f:\n    f.write("x")\n'
    project.write("corridor.py", counted + (Path(__file__).parent / "own" / "corridor.py").read_text())
    for overrides in (["plugins=['corridor.py']", CORRIDOR], ["environment.id=corridor:OwnCorridor-v0"]):
        config = resolve(None, [*TINY, *overrides])
        make_runtime(config).close()
    resolve(None, [*TINY, f"plugins=['{project.path}/../project/corridor.py']"])
    __import__("corridor")
    assert (project.path / "count").read_text() == "x"
    assert type(gymnasium.make("OwnCorridor-v0").unwrapped) is sys.modules["corridor"].Corridor


def test_a_plugin_finds_its_helpers_and_a_module_of_a_package_its_own(project, monkeypatch):
    project.write("helper.py", "ID = 'OwnHelped-v0'\n")
    project.write("mine.py", "import gymnasium\nimport helper\ngymnasium.register(helper.ID, entry_point='mine:X')\n")
    project.write("pkg/__init__.py", "")
    project.write("pkg/names.py", "ID = 'OwnPackaged-v0'\n")
    text = "import gymnasium\nfrom .names import ID\ngymnasium.register(ID, entry_point='pkg.envs:X')\n"
    project.write("pkg/envs.py", text)
    resolve(None, [*TINY, "plugins=['mine.py']"])
    config = resolve(None, [*TINY, "environment.id=pkg.envs:OwnPackaged-v0"])
    assert {"OwnHelped-v0", "OwnPackaged-v0"} <= gymnasium.registry.keys()
    assert config.plugins == (str(project.path / "pkg" / "envs.py"),)
    assert sys.modules["pkg.envs"] is sys.modules["envs"]
    project.forget()
    monkeypatch.chdir("/")
    resolve(None, [*TINY, f"plugins={list(config.plugins)}"])
    assert "OwnPackaged-v0" in gymnasium.registry


def test_a_path_in_a_file_is_relative_to_that_file(project, monkeypatch):
    project.copy("corridor.py")
    project.write("experiments/mine.toml", 'plugins = ["../corridor.py"]\n[environment]\nid = "OwnCorridor-v0"\n')
    monkeypatch.chdir("/")
    config = resolve(project.path / "experiments" / "mine.toml", TINY)
    assert config.plugins == (str(project.path / "corridor.py"),)
    project.forget()
    beside = project.write("experiments/other.toml", 'plugins = ["corridor.py"]')
    assert str(project.path / "experiments" / "corridor.py") in one_line(source=beside)


def test_plugins_of_all_layers_add_up(project):
    project.copy("corridor.py", "future.py", "environments.py")
    base = project.write("base.toml", 'plugins = ["corridor.py"]')
    config = resolve(base, [*TINY, "plugins=['future.py']"], plugins=["environments.py"])
    assert [short_name(plugin) for plugin in config.plugins] == ["corridor", "future", "environments"]


def test_two_files_of_one_name_do_not_pass_for_each_other(project):
    project.write("one/mine.py", "")
    project.write("two/mine.py", "")
    message = one_line("plugins=['one/mine.py', 'two/mine.py']")
    for words in ("two/mine.py", "one/mine.py", "rename"):
        assert words in message
    project.write("json.py", "")
    assert "another module of that name" in one_line("plugins=['json.py']")


def test_two_files_do_not_register_one_name(project):
    project.copy("future.py")
    shutil.copy("future.py", "other.py")
    message = one_line("plugins=['future.py', 'other.py']")
    for words in ("other.py, line 34", "aggregator 'own-scaled-mean' is already registered by future"):
        assert words in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import os\nx = = 1\n", ["mine.py, line 2", "SyntaxError: invalid syntax"]),
        ("\n\nprint(undefined)\n", ["mine.py, line 3", "NameError: name 'undefined' is not defined"]),
        ("import numpy\nnumpy.zeros(-1)\n", ["mine.py, line 2", "ValueError"]),
        ("import helper\n", ["helper.py, line 1", "ZeroDivisionError"]),
        ("import nowhere_to_be_found\n", ["mine.py, line 1", "No module named 'nowhere_to_be_found'"]),
        ("raise SystemExit(3)\n", ["mine.py, line 1", "SystemExit: 3"]),
        ("raise KeyError('a\\nb')\n", ["mine.py, line 1", "KeyError"]),
        ("import sys\nsys.exit()\n", ["mine.py, line 2", "SystemExit"]),
        ("\nraise GeneratorExit('no')\n", ["mine.py, line 2", "GeneratorExit: no"]),
        ("class Own(BaseException): pass\nraise Own('no')\n", ["mine.py, line 2", "Own: no"]),
        ("x = 1\n\0\n", ["mine.py", "null bytes"]),
        ("x = '\ud800'.encode()\n".encode("ascii", "backslashreplace").decode(), ["mine.py, line 1", "Unicode"]),
        ("(" * 5000, ["mine.py", "Error"]),
        ("def f():\n    f()\nf()\n", ["mine.py, line 2", "RecursionError"]),
        ("from fedrax.learners.base import learners\nlearners['no']\n", ["mine.py, line 2", "unknown learner 'no'"]),
    ],
)
def test_whatever_a_plugin_raises_is_one_line_with_its_place(project, text, words):
    project.write("helper.py", "1 / 0\n")
    path = project.write("mine.py", text)
    message = one_line("plugins=['mine.py']")
    for word in [f"plugin {path}", *words]:
        assert word in message
    # Mended, it loads.
    path.write_text("x = 10_000_000_000\n")
    resolve(None, [*TINY, "plugins=['mine.py']"])


RULE = """
from fedrax.aggregators.base import Aggregator, aggregators

@aggregators.register("own-{name}")
class Own(Aggregator):
    def check(self, agents):
        pass

{body}
"""


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        (
            "short",
            "    def __call__(self):\n        return 0\n",
            ["aggregator 'own-short' defines __call__(self) in line 9, which is called as __call__(self, vectors, "],
        ),
        (
            "more",
            "    def __call__(self, vectors, weights, more, *, samples, key):\n        return 0\n",
            ["defines __call__(self, vectors, weights, more, *, samples, key) in line 9"],
        ),
        (
            "less",
            "    def __call__(self, vectors, weights, **more):\n        return\n\n    def informed(self): ...",
            ["defines informed(self) in line 12, which is called as informed(self, server)"],
        ),
        ("bare", "", ["aggregator 'own-bare' lacks __call__; define"]),
    ],
)
def test_a_component_that_cannot_be_called_is_refused_where_it_registers(project, name, body, words):
    path = project.write("mine.py", RULE.format(name=name, body=body))
    message = one_line("plugins=['mine.py']")
    for word in [f"plugin {path}, line 4: ", *words]:
        assert word in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("class Own:\n    pass\n", "is no aggregator: derive mine.Own from fedrax's Aggregator"),
        ("def own():\n    pass\n", "'own-odd' is no class"),
        (
            "class Own(Aggregator):\n    x: Nowhere = option(1, 'x')\n    def check(self, agents): return\n"
            "    def __call__(self, *all, **more): return 0\n",
            "the annotations of Own cannot be read: NameError: name 'Nowhere' is not defined",
        ),
    ],
)
def test_a_component_of_no_kind_is_refused(project, monkeypatch, text, words):
    monkeypatch.setattr(aggregators, "_classes", dict(aggregators._classes))
    head = "from __future__ import annotations\nfrom fedrax.aggregators.base import Aggregator, aggregators\n"
    project.write("mine.py", f"{head}from fedrax.registry import option\n@aggregators.register('own-odd')\n{text}")
    assert words in one_line("plugins=['mine.py']", "aggregator=own-odd")


@pytest.mark.parametrize("body", ["raise SystemExit(0)", "raise KeyError", "raise GeneratorExit"])
def test_a_component_that_raises_or_ends_the_process_is_named(project, capsys, tmp_path, monkeypatch, body):
    """The line says which file and where; `sys.exit(0)` in a component is no success."""
    monkeypatch.setattr(aggregators, "_classes", dict(aggregators._classes))
    method = f"    def __call__(self, vectors, weights, **more):\n        {body}\n"
    path = project.write("mine.py", RULE.format(name="raises", body=method))
    words = [*TINY, "plugins=['mine.py']", "aggregator=own-raises"]
    assert main(["train", *words, "--quiet", "--out", str(tmp_path / "run")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fedrax: {path}, line 10: {body[6:].split('(')[0]}")
    assert line.endswith("; mend it")


def test_an_error_of_no_line_of_a_plugins_names_the_plugin_all_the_same(project, capsys, monkeypatch):
    """As where a component returns what the package cannot use."""
    path = project.write("mine.py", "")
    monkeypatch.setattr("fedrax.listing.overview", statistics.fmean)
    assert main(["list", "--plugins", str(path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    report = rf"StatisticsError: .*; the traceback is in .*; please report it .*, unless it comes from .*{path}"
    assert re.search(report, line), line


def test_what_is_no_plugin_is_said(project):
    assert "there is no plugin module 'nowhere_to_be_found'" in one_line("plugins=['nowhere_to_be_found']")
    assert f"there is no plugin {project.path / 'mine.py'}" in one_line("plugins=['mine.py']")
    assert "plugins = [3] is not allowed" in one_line("plugins=[3]")
    project.write("my.mine.py", "")
    assert "rename it" in one_line("plugins=['my.mine.py']")


def test_installed_packages_offer_plugins_and_a_broken_one_is_passed_over(project, monkeypatch, caplog):
    code = (Path(__file__).parent / "own" / "future.py").read_text().replace("own-scaled-mean", "own-installed")
    project.write("site/offered.py", f"{code}\ncalls = []\ndef begin():\n    calls.append(1)\n")
    project.write("site/broken.py", "\nboom\n")
    entry_points = "[fedrax.plugins]\nb = broken\ngood = offered\nfunction = offered:begin\n"
    project.write("site/bad_package-1.0.dist-info/entry_points.txt", entry_points)
    project.write("site/bad_package-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: bad-package\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(project.path / "site")
    # As in a fresh process.
    monkeypatch.setattr(plugins, "_waiting", functools.cache(plugins._waiting.__wrapped__))
    monkeypatch.setattr(aggregators, "_loaded", False)
    for _ in range(2):
        assert resolve(None, [*TINY, "aggregator=own-installed"]).aggregator["kind"] == "own-installed"
    assert sys.modules["offered"].calls == [1]
    (record,) = caplog.records
    message = record.getMessage()
    assert "\n" not in message
    for words in ("package bad-package", "'b'", "broken.py, line 2", "NameError: name 'boom' is not defined"):
        assert words in message


def test_list_and_describe_take_plugins(project, capsys):
    project.copy("environments.py", "future.py")
    assert main(["list", "--plugins", "future.py", "--plugins", "environments.py"]) == 0
    shown = capsys.readouterr().out
    for name in ("own-scaled-mean", "OwnFuture-v0", "OwnPointMass-v0"):
        assert name in shown
    project.forget()
    assert main(["describe", "own-scaled-mean", "--plugins", "future.py"]) == 0
    assert "aggregator.scale = 1.0" in capsys.readouterr().out
    assert main(["describe", "OwnArgs-v0", "--plugins", "environments.py"]) == 0
    shown = capsys.readouterr().out
    for words in ("time limit   10 steps", "environment.kwargs.level, required", "environment.kwargs.size = 3"):
        assert words in shown
    assert main(["describe", "OwnArgs-v0", "--plugins", "nowhere.py"]) == 1
    assert "there is no plugin" in capsys.readouterr().err


def test_a_sweep_finds_plugins_beside_its_file(project, monkeypatch):
    project.copy("corridor.py", "future.py")
    text = """
    preset = "fedpg-br/cartpole"
    out = "out"
    [set]
    plugins = ["future.py"]
    [setups.by-id]
    environment.id = "corridor:OwnCorridor-v0"
    [setups.by-path]
    plugins = ["corridor.py"]
    set = ["environment={id='OwnCorridor-v0', native=false}"]
    """
    path = project.write("sweep.toml", text)
    monkeypatch.chdir(project.path.parent)
    plan = read_plan(path)
    both = [str(project.path / "future.py"), str(project.path / "corridor.py")]
    for job in plan.jobs:
        assert list(job.config.plugins) == both
        assert job.config.environment.id == "OwnCorridor-v0"
        # The job's own process reads the setup's overrides in whatever folder it is.
        again = resolve(job.setup.preset, job.overrides)
        assert again == job.config
    # What was begun goes on although the plugins were moved meanwhile.
    first = plan.jobs[0]
    project.write(f"../out/{first.setup.name}/seed-0/config.toml", first.config.to_toml())
    project.forget()
    shutil.move(project.path, project.path.parent / "moved")
    moved = read_plan(project.path.parent / "moved" / "sweep.toml")
    task = tasks_of(moved)[0]
    assert task.started
    new = [str(project.path.parent / "moved" / name) for name in ("future.py", "corridor.py")]
    assert command_of(task)[-4:] == ["--plugins", new[0], "--plugins", new[1]]


names = st.sampled_from(["a.py", "b.py", "/x/a.py", "/y/a.py", "/y/b/__init__.py", "m.a", "c"])


@given(st.lists(names, unique_by=short_name), st.lists(names, unique_by=short_name))
def test_given_plugins_take_the_place_of_those_of_their_name(stored, given):
    found = relocated(stored, given)
    kept = {short_name(plugin): plugin for plugin in stored} | {short_name(plugin): plugin for plugin in given}
    assert {short_name(plugin): plugin for plugin in found} == kept
    assert [short_name(plugin) for plugin in found][: len(stored)] == [short_name(plugin) for plugin in stored]
    assert len(found) == len(kept)


@pytest.mark.training
def test_the_command_line_finds_a_module_in_the_current_folder(project):
    """Also the installed script, whose own folder is first on Python's path."""
    project.copy("corridor.py")
    code = "import sys; sys.path.remove(''); from fedrax.cli import main; sys.exit(main(sys.argv[1:]))"
    overrides = [*TINY, "environment.id=corridor:OwnCorridor-v0"]
    project.write("empty.toml", "")
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "empty.toml", *overrides, "--out", "run", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr
    assert (project.path / "run" / "summary.json").is_file()
