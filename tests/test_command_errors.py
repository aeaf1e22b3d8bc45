"""Errors of the command line: one line, the traceback in a file, and how to go on."""

import tempfile

import pytest

from fedrax import cli
from fedrax.cli import main
from fedrax.records import lock

RAISING = """
import jax.numpy as jnp
from fedrax.environments.base import Box, Discrete, NativeEnvironment, Spaces, Transition
from fedrax.environments.native import native_environments

@native_environments.register("OwnRaising-v0")
class Raising(NativeEnvironment):
    spaces = Spaces(Box((1,), (-1.0,), (1.0,)), Discrete(2))
    time_limit = 5

    def physics(self):
        return {}

    def reset(self, key, physics):
        return jnp.zeros(1), jnp.zeros(1)

    def step(self, state, action, key, physics):
        raise RuntimeError("the pump\\nran dry")
"""


def test_mistakes_leave_one_line_and_status_1(capsys):
    assert main(["train", "fedpg-br/cartpole", "federation.agent=3"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "did you mean 'agents'" in error


def test_an_error_in_a_plugins_own_code_is_one_line_with_its_traceback_in_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lock, "_taken_so_far", [])
    plugin = tmp_path / "raising.py"
    plugin.write_text(RAISING)
    words = ["environment.id=OwnRaising-v0", "budget.rounds=1", "federation.agents=2", "learner.hidden=[4]"]
    assert main(["train", *words, "--quiet", "--out", str(tmp_path / "run"), "--plugins", str(plugin)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    error = tmp_path / "run" / "error.txt"
    assert line == (f"fedrax: {plugin}, line 18: RuntimeError: the pump ran dry; the traceback is in {error}; mend it")
    assert 'raise RuntimeError("the pump\\nran dry")' in error.read_text()


def test_an_error_before_there_is_a_run_leaves_its_traceback_too(tmp_path, capsys, monkeypatch):
    def broken(options):
        raise LookupError("x" * 1000)

    monkeypatch.setitem(cli.COMMANDS, "list", broken)
    monkeypatch.setattr(lock, "_taken_so_far", [])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert main(["list"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    (error,) = tmp_path.glob("fedrax-*/error.txt")
    assert f"LookupError: {'x' * 387} ...; the traceback is in {error}; " in line
    assert "x" * 1000 in error.read_text()


@pytest.mark.parametrize(
    "arguments", [["certificates", "FILE/trial"], ["deploy", "fedpg-br/cartpole", "--app", "FILE"]]
)
def test_a_path_that_cannot_be_written_is_one_line(arguments, tmp_path, capsys):
    pytest.importorskip("flwr")
    file = tmp_path / "file"
    file.touch()
    assert main([word.replace("FILE", str(file)) for word in arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fedrax: {file}")
    assert "mend that, or give another path" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["resume", "RUN"], "; `fedrax resume {run}` continues from round 40"),
        (["server", "PRESET"], "; the same command with --out {run} continues from round 40"),
        (["node"], ""),
        (["evaluate", "RUN"], ""),
    ],
)
@pytest.mark.parametrize("saved", [(), ("checkpoint-40",), ("checkpoint-40", "summary")])
def test_an_interrupt_says_how_to_go_on_where_one_can(arguments, said, saved, tmp_path, monkeypatch, capsys):
    """That is, where there is a checkpoint of a run that is not finished."""
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    for name in saved:
        (run / "summary.json" if name == "summary" else run / "checkpoints" / f"{name}.safetensors").touch()

    def stopped(options):
        with lock.held(run):
            raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, arguments[0], stopped)
    monkeypatch.setattr(lock, "_taken_so_far", [])
    assert cli.main(arguments) == 130
    words = said.format(run=run) if saved == ("checkpoint-40",) else ""
    assert capsys.readouterr().err == f"fedrax: interrupted{words}\n"
