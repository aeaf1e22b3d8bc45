"""A run goes on as itself: extended to the bit, never with another's checkpoint, and what was lost is said."""

import json
import math
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import fedrax
from continued import TINY, Killed, assert_same_runs, checkpoints, killed_at, trained
from fedrax.cli import main
from fedrax.errors import FedraxError
from fedrax.records.checkpoint import load_checkpoint
from fedrax.records.metrics import missing_rounds
from fedrax.records.rundir import RunDirectory
from fedrax.records.standing import Progress
from fedrax.runtime import continuation, training


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("eight") / "run", "budget.rounds=8").path


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("four") / "run", "budget.rounds=4").path


@pytest.fixture
def copied(four, tmp_path):
    return shutil.copytree(four, tmp_path / "run")


@pytest.mark.training
def test_a_run_killed_before_its_first_evaluation_resumes(tmp_path, monkeypatch, eight):
    killed_at(monkeypatch, "save_checkpoint", 2)
    with pytest.raises(Killed):
        trained(tmp_path / "run", "budget.rounds=8")
    monkeypatch.undo()
    assert all("return" not in row for row in fedrax.load(tmp_path / "run").metrics()[:3])
    fedrax.resume(tmp_path / "run", progress=False)
    assert_same_runs(tmp_path / "run", eight)


@pytest.mark.training
def test_a_checkpoint_before_an_evaluation_by_an_earlier_version_resumes(tmp_path, monkeypatch, eight):
    """It wrote NaN as null, and not whose the checkpoint is."""
    real = training.save_checkpoint

    def earlier(folder, round, state, meta):
        for counters in meta["counters"]:
            counters |= {k: None for k, v in counters.items() if isinstance(v, float) and math.isnan(v)}
        real(folder, round, state, {key: value for key, value in meta.items() if key != "config"})
        raise Killed

    monkeypatch.setattr(training, "save_checkpoint", earlier)
    with pytest.raises(Killed):
        trained(tmp_path / "run", "budget.rounds=8")
    monkeypatch.undo()
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    del manifest["config"]
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
    fedrax.resume(tmp_path / "run", progress=False)
    assert_same_runs(tmp_path / "run", eight)


@pytest.mark.training
def test_an_extended_run_equals_a_longer_one(copied, eight):
    """Four rounds end between two checkpoints, with an evaluation that eight rounds do not have there."""
    assert fedrax.load(copied).summary()["rounds"] == 4
    before = fedrax.load(copied)
    fedrax.resume(copied, ["budget.rounds=8"], progress=False)
    assert_same_runs(copied, eight)
    assert checkpoints(copied) == checkpoints(eight) == [6, 9]
    assert fedrax.load(copied).config == fedrax.load(eight).config
    manifest = json.loads((copied / "manifest.json").read_text())
    assert manifest["config_hash"] == fedrax.load(eight).config.digest()
    (former,) = manifest["history"]
    assert fedrax.resolve(former["config"]) == before.config
    assert former["summary"]["rounds"] == 4
    assert former["rounds"] == 6  # At the checkpoint: rounds past the budget do nothing.


@pytest.mark.training
def test_seeds_that_ended_in_different_rounds_are_extended_alike(tmp_path):
    settings = ["seeds=3", "federation.agents=3", "strategy.batch_max=9"]
    whole = trained(tmp_path / "whole", "budget.trajectories=60", *settings)
    run = trained(tmp_path / "run", "budget.trajectories=30", *settings)
    assert len(set(run.summary()["rounds"])) > 1
    fedrax.resume(run.path, ["budget.trajectories=60"], progress=False)
    assert_same_runs(run.path, whole.path)
    assert checkpoints(run.path) == checkpoints(whole.path)


@pytest.mark.training
@pytest.mark.parametrize(
    "interrupted",
    ["write_config", *(pytest.param(name, marks=pytest.mark.faults) for name in ("unlink", "save_checkpoint"))],
)
def test_an_interrupted_extension_loses_nothing(copied, eight, monkeypatch, interrupted):
    former = fedrax.load(copied).summary()
    if interrupted == "save_checkpoint":
        killed_at(monkeypatch, interrupted, 1)
    else:

        def fatal(*arguments, **named):
            raise Killed

        target = "fedrax.records.rundir.RunDirectory.write_config"
        monkeypatch.setattr("pathlib.Path.unlink" if interrupted == "unlink" else target, fatal)
    with pytest.raises(Killed):
        fedrax.resume(copied, ["budget.rounds=8"], progress=False)
    monkeypatch.undo()
    overrides = [] if interrupted == "save_checkpoint" else ["budget.rounds=8"]
    fedrax.resume(copied, overrides, progress=False)
    assert_same_runs(copied, eight)
    (entry,) = json.loads((copied / "manifest.json").read_text())["history"]
    assert entry["summary"] == former


def test_without_overrides_a_finished_run_is_left_alone(copied):
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    fedrax.resume(copied, progress=False)
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before


@pytest.mark.parametrize(
    "override",
    [
        *("learner.learning_rate=0.5", "seed=3", "evaluation.episodes=9", "federation.agents=3", "attack=alie"),
        # Contradicts other settings too.
        "privacy.noise=1",
    ],
)
def test_what_would_make_another_experiment_is_refused(copied, override, capsys):
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file() and path.name != ".lock"}
    assert main(["resume", str(copied), override]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "another experiment" in error
    assert "what may change is name, plugins, budget.rounds" in error
    after = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == before


def test_an_edited_configuration_is_named_by_key(copied):
    text = (copied / "config.toml").read_text()
    (copied / "config.toml").write_text(text.replace("learning_rate = 0.001", "learning_rate = 0.1"))
    with pytest.raises(FedraxError) as refused:
        fedrax.resume(copied, progress=False)
    message = str(refused.value)
    assert (
        "config.toml was edited: the run was started with learner.learning_rate = 0.001, and there it is 0.1" in message
    )
    assert "\n" not in message


def test_a_configuration_that_cannot_be_used_any_more_is_named(copied, capsys):
    text = (copied / "config.toml").read_text()
    for content in (text[: text.index("[budget]")].encode(), b"", b"\xff"):
        (copied / "config.toml").write_bytes(content)
        for command in ("evaluate", "resume"):
            assert main([command, str(copied)]) == 1
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith(f"fedrax: {copied / 'config.toml'} is not what the run wrote, and cannot be used: ")
            assert "from 'config' in manifest.json" in line


def test_a_recorded_configuration_that_is_none_is_one_line(copied, capsys):
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps(manifest | {"config": 3}))
    assert main(["resume", str(copied), "budget.rounds=5"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "manifest.json is damaged: at config: input should be a valid dictionary" in line


@pytest.mark.training
def test_a_run_without_checkpoints_says_that_it_begins_anew(copied, four, caplog):
    shutil.rmtree(copied / "checkpoints")
    (copied / "summary.json").unlink()
    fedrax.resume(copied, progress=False)
    assert f"{copied} has no checkpoint that can be used; the run starts at its beginning" in caplog.text
    assert_same_runs(copied, four)


def test_an_evaluation_under_an_edited_configuration_is_warned_of(copied, caplog):
    path = copied / "config.toml"
    fedrax.load(copied)
    assert not caplog.records
    path.write_text(path.read_text().replace("discount = 0.999", "discount = 0.5"))
    fedrax.load(copied)
    (record,) = caplog.records
    expected = f"{path} was edited since the run was trained: learner.discount = 0.5 (before: 0.999)"
    assert record.getMessage() == expected


@pytest.mark.parametrize(("which", "kind"), [("policy", "last"), ("best", "best")])
@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:99])])
def test_a_lost_policy_is_taken_from_the_last_checkpoint(copied, which, kind, damage, caplog):
    before = fedrax.load(copied).policies(kind)
    damage(copied / f"{which}.safetensors")
    after = fedrax.load(copied).policies(kind)
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert "that of the last checkpoint is taken" in caplog.text
    shutil.rmtree(copied / "checkpoints")
    with pytest.raises(FedraxError, match=f"{which}.safetensors"):
        fedrax.load(copied).policies(kind)


@pytest.mark.training
def test_a_budget_edited_in_the_file_extends_too_and_is_said(copied, eight, capsys):
    text = (copied / "config.toml").read_text()
    (copied / "config.toml").write_text(text.replace("rounds = 4", "rounds = 8"))
    assert main(["resume", str(copied)]) == 0
    assert f"{copied} goes on with budget.rounds = 8 (before: 4)" in capsys.readouterr().out
    assert_same_runs(copied, eight)


@pytest.mark.parametrize(
    ("limit", "done"),
    [
        ("rounds", "4 rounds"),
        ("trajectories", r"\d+ trajectories per agent"),
        ("steps", r"\d+ environment steps"),
        ("steps_per_agent", r"\d+ environment steps of each agent"),
    ],
)
def test_what_was_done_is_not_taken_back(copied, limit, done):
    others = [] if limit == "rounds" else ["budget.rounds=none"]
    with pytest.raises(FedraxError, match=rf"budget\.{limit} = 2 is not allowed: .* has done {done}, which"):
        fedrax.resume(copied, [*others, f"budget.{limit}=2"], progress=False)
    assert fedrax.load(copied).summary()["rounds"] == 4
    assert fedrax.load(copied).config.budget.rounds == 4


@pytest.mark.training
def test_another_engine_is_told_and_recorded(copied, caplog):
    """As on a machine without EnvPool, where ``environment.backend=auto`` comes to something else."""
    known = json.loads((copied / "manifest.json").read_text())
    (id,) = known["engines"]
    (copied / "manifest.json").write_text(json.dumps(known | {"engines": {id: "envpool"}}))
    fedrax.resume(copied, progress=False)
    assert json.loads((copied / "manifest.json").read_text())["engines"] == {id: "envpool"}, "it was finished"
    with pytest.raises(FedraxError, match="not allowed"):
        fedrax.resume(copied, ["budget.rounds=2"], progress=False)
    assert json.loads((copied / "manifest.json").read_text())["engines"] == {id: "envpool"}, "it was refused"
    for _ in range(2):
        fedrax.resume(copied, ["budget.rounds=5"], progress=False)
        assert json.loads((copied / "manifest.json").read_text())["engines"] == {id: "envpool, then jax"}
    assert caplog.text.count(f"stepped by others than before: {id} by jax (envpool)") == 1


@pytest.mark.training
def test_a_checkpoint_of_another_run_is_refused(copied, tmp_path):
    """Its arrays are of the same shapes."""
    other = trained(tmp_path / "other", "budget.rounds=7", "seed=1").path
    shutil.copy(other / "checkpoints" / "checkpoint-9.safetensors", copied / "checkpoints")
    (copied / "summary.json").unlink()
    with pytest.raises(FedraxError) as refused:
        fedrax.resume(copied, progress=False)
    assert "checkpoint-9.safetensors is of another run: it has seed = 1, and this run 0; " in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("difference", "refused"),
    [("learner.learning_rate=0.5", True), ("seeds=2", True), ("budget.rounds=8", False), ("video.every=4", False)],
)
def test_only_what_may_change_differs_from_a_checkpoints_configuration(difference, refused):
    config, other = (fedrax.resolve(TINY[0], [*TINY[1:], "budget.rounds=4", *more]) for more in ([], [difference]))
    accept, meta = continuation.accepting(config), {"config": continuation.table(other)}
    if refused:
        with pytest.raises(FedraxError, match=f"x is of another run: it has {difference.partition('=')[0]}"):
            accept(Path("x"), meta)
    else:
        assert accept(Path("x"), meta)
    assert accept(Path("x"), {})  # Earlier versions did not say.


def test_a_checkpoint_says_whose_it_is(four):
    meta = {}

    def accept(path, found):
        meta.update(found)
        return False

    assert load_checkpoint(four / "checkpoints", (), accept) is None
    assert fedrax.resolve(meta["config"]) == fedrax.load(four).config


@pytest.mark.training
def test_lost_metrics_are_said(copied, caplog):
    metrics = copied / "metrics.jsonl"
    metrics.write_text(metrics.read_text().splitlines(keepends=True)[0])
    lost = "rounds 2 to 4 of seed 0"
    standing = Progress(RunDirectory(copied))
    standing.read()
    assert {(one.state, one.rounds) for one in standing.standings().values()} == {("finished", 4)}
    with caplog.at_level("WARNING"):
        assert main(["report", str(copied), "--table", "csv"]) == 0
    assert f"{copied.name} lacks the records of {lost}." in caplog.messages
    with pytest.MonkeyPatch.context() as patched:
        said = []
        patched.setattr(training.logger, "warning", lambda text, *values: said.append(text % values))
        run = fedrax.resume(copied, ["budget.rounds=8"], progress=False)
    assert said == [f"{metrics} lacks {lost}; the run goes on without"]
    assert run.summary()["missing_metrics"] == [lost]
    assert [row["round"] for row in run.metrics()] == [0, *range(4, 8)]
    assert main(["report", str(copied)]) == 0
    assert f"lacks the records of {lost}" in (copied / "report.html").read_text()


def test_missing_rounds_are_counted_by_seed(tmp_path):
    run = RunDirectory(tmp_path)
    assert missing_rounds(run, {0: 0, 1: 0}) == []
    assert missing_rounds(run, {0: 3, 1: 1}) == ["rounds 1 to 3 of seed 0", "round 1 of seed 1"]
    kept = [(0, 0), (0, 1), (1, 0), (0, 3), (0, 6), (1, 4)]
    run.metrics_jsonl.write_text("".join(json.dumps({"seed": seed, "round": round}) + "\n" for seed, round in kept))
    expected = ["round 3 of seed 0", "rounds 5 to 6 of seed 0", "rounds 2 to 4 of seed 1"]
    assert missing_rounds(run, {0: 7, 1: 5}) == expected


def test_what_may_change_are_keys_of_the_configuration():
    config = fedrax.resolve("fedpg-br/cartpole")
    keys = continuation.leaves(config)
    assert all(any(continuation.may_change(key, [name]) for key in keys) for name in continuation.CHANGEABLE)
