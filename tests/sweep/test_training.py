"""Sweeps that train."""

import json
import shutil
import signal
import subprocess
import sys

import pytest

import fedrax
from fedrax import api
from fedrax.cli import main
from fedrax.records.lock import held
from fedrax.sweeps.attempts import command_of
from fedrax.sweeps.plan import read_plan
from fedrax.sweeps.runner import run_plan
from fedrax.sweeps.tasks import tasks_of

from sweep_files import DEADLINE, TINY, until, written


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two setups and two seeds, trained; and a setup that fails in its own process."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "plugin.py").write_text('import sys\nif "train" in sys.argv:\n    raise RuntimeError("no such luck")\n')
    text = f"""
    seeds = 2
    jobs = 2
    [setups.plain]
    [setups.three]
    federation.agents = 3
    [setups.bad]
    plugins = ["{folder / "plugin.py"}"]
    """
    path = written(folder, text)
    return folder, path, api.sweep(path, retry=1)


@pytest.mark.training
def test_a_sweep_trains_its_setups(trained, capsys):
    folder, path, outcome = trained
    assert outcome.status == 1
    for task in outcome.tasks:
        bad = task.job.setup.name == "bad"
        assert (task.state, task.attempts) == (("failed", 2) if bad else ("done", 1)), task.job.log.read_text()
        if bad:
            assert task.reason == f"fedrax: plugin {folder / 'plugin.py'}, line 3: RuntimeError: no such luck"
        else:
            run = fedrax.load(task.job.directory)
            assert run.config == task.job.config
            assert run.summary()["seeds"] == [*task.job.seeds]
    assert main(["sweep", str(path), "--dry-run"]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["all", "setups:", *TINY] in shown
    assert ["plain", "fedpg-br/cartpole", "2"] in shown
    assert len(list((folder / "out").glob("*/seed-*/policy.safetensors"))) == 4


@pytest.mark.training
def test_starting_again_does_only_what_is_missing(trained):
    _, path, outcome = trained
    before = {path: path.stat().st_mtime_ns for path in (outcome.out / "plain").rglob("*")}
    started = []

    def command(task):
        started.append(task.job.name)
        return [sys.executable, "-S", "-c", "raise SystemExit(2)"]

    again = run_plan(read_plan(path), command=command)
    assert sorted(started) == ["bad seed 0", "bad seed 1"]
    assert {path: path.stat().st_mtime_ns for path in (outcome.out / "plain").rglob("*")} == before
    assert [task.attempts for task in again.tasks if task.state == "done"] == [1] * 4


@pytest.mark.training
def test_a_run_configured_otherwise_is_refused(trained, tmp_path, capsys):
    folder, _, _ = trained
    shutil.copytree(folder / "out" / "plain", tmp_path / "out" / "plain")
    path = written(tmp_path, "[setups.plain]\nlearner.learning_rate = 0.5")
    assert main(["sweep", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for needle in ("plain seed 0", "learner.learning_rate = 0.001", "0.5"):
        assert needle in error


@pytest.mark.faults
def test_an_interrupted_sweep_goes_on_where_it_was(tmp_path):
    changes = [*TINY, "budget.rounds=100000", "checkpoint.every=2"]
    path = written(tmp_path, "jobs = 2\n[setups.a]\n[setups.b]", changes=changes)
    run = tmp_path / "out" / "a" / "seed-0"
    log = run.with_name("seed-0.log")

    def rows():
        records = run / "metrics.jsonl"
        return records.read_bytes().count(b"\n") if records.exists() else 0

    def interrupted_once(condition):
        process = subprocess.Popen(
            [sys.executable, "-m", "fedrax.cli", "sweep", str(path), "--jobs", "1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        until(condition, process)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=DEADLINE)
        assert process.returncode == 130, out
        return out

    out = interrupted_once(lambda: len(list((run / "checkpoints").glob("checkpoint-*.safetensors"))) > 1)
    assert "a seed 0: interrupted" in out
    assert f"fedrax sweep {path} continues" in out
    with held(tmp_path / "out"):
        pass  # No process of the sweep is left.
    (first, other) = tasks_of(read_plan(path))
    assert (first.state, other.state, other.started) == ("waiting", "waiting", False)
    assert first.progress.fraction > 0
    assert command_of(first)[3:] == ["resume", str(run), "--quiet"]
    before = rows()

    interrupted_once(lambda: rows() > before)
    assert log.read_text().count("=== attempt") == 2
    rounds = [row["round"] for row in fedrax.load(run).metrics()]
    assert rounds == list(range(len(rounds)))
    (entry, _) = json.loads((tmp_path / "out" / "sweep.json").read_text())["jobs"]
    assert (entry["state"], entry["attempts"]) == ("interrupted", 2)
