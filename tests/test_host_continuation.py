"""A run on a host environment goes on: to the bit at a checkpoint, and between two it says what is not the same."""

import json
import shutil

import pytest

import fedrax
from continued import Killed, assert_same_runs, killed_at, rows, trained, without_evaluation
from fedrax.cli import main
from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.runtime.make import make_runtime

HOST = ["environment.native=false", "environment.backend=gymnasium", "environment.num_envs=2"]


@pytest.fixture(scope="module")
def seven_on_host(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("seven") / "run", "budget.rounds=7", *HOST).path


@pytest.mark.training
def test_a_run_on_a_host_environment_extended_at_a_checkpoint_equals_a_longer_one(tmp_path, seven_on_host, caplog):
    run = trained(tmp_path / "run", "budget.rounds=6", *HOST)
    with pytest.raises(FedraxError, match=r"checkpoint\.every = 5 would make .* another experiment"):
        fedrax.resume(run.path, ["checkpoint.every=5"], progress=False)
    fedrax.resume(run.path, ["budget.rounds=7"], progress=False)
    assert_same_runs(run.path, seven_on_host)
    assert not caplog.records
    assert "notes" not in json.loads((run.path / "manifest.json").read_text())["history"][0]


@pytest.mark.training
@pytest.mark.parametrize(
    "short", [pytest.param(2, id="before the first checkpoint"), pytest.param(4, id="between two")]
)
def test_an_extended_run_on_a_host_environment_keeps_what_it_did(tmp_path, short, seven_on_host, monkeypatch, caplog):
    """Environments start anew in rounds 0, 3 and 6: a run that ended in between is continued, and says so."""
    run = trained(tmp_path / "run", f"budget.rounds={short}", *HOST)
    before = rows(run.path)[0]
    assert before != (earlier := without_evaluation(before))
    assert earlier == rows(seven_on_host)[0][:short]
    killed = shutil.copytree(run.path, tmp_path / "killed")
    fedrax.resume(run.path, ["budget.rounds=7"], progress=False)
    after = rows(run.path)[0]
    assert after[:short] == earlier
    assert [row["round"] for row in after] == list(range(7))
    (record,) = caplog.records
    said = f"goes on after round {short}, where its environments start anew: from there on it is not the same as one"
    assert f"{run.path} {said} uninterrupted run" in record.getMessage()
    (entry,) = json.loads((run.path / "manifest.json").read_text())["history"]
    assert [note.startswith(said) for note in entry["notes"]] == [True]

    killed_at(monkeypatch, "save_checkpoint", 1)
    with pytest.raises(Killed):
        fedrax.resume(killed, ["budget.rounds=7"], progress=False)
    monkeypatch.undo()
    fedrax.resume(killed, progress=False)
    assert_same_runs(killed, run.path)
    (entry,) = json.loads((killed / "manifest.json").read_text())["history"]
    assert len(entry["notes"]) == 1


@pytest.mark.training
def test_seeds_on_a_host_environment_that_ended_in_different_rounds_go_on_each_from_its_own(tmp_path):
    settings = ["seeds=3", "federation.agents=3", "strategy.batch_max=9", "checkpoint.every=2", *HOST]
    run = trained(tmp_path / "run", "budget.trajectories=20", *settings)
    ends = dict(zip(run.config.all_seeds, run.summary()["rounds"], strict=True))
    assert len(set(ends.values())) > 1
    before = rows(run.path)
    fedrax.resume(run.path, ["budget.trajectories=40"], progress=False)
    after = rows(run.path)
    for seed, end in ends.items():
        assert after[seed][:end] == without_evaluation(before[seed])
        assert [row["round"] for row in after[seed]] == list(range(len(after[seed])))
        assert len(after[seed]) > end


@pytest.mark.parametrize(
    ("every", "horizon", "said"),
    [(1, 33, "checkpoint.every=3 or more"), (2, 33, "checkpoint.every=3 or more"), (3, 33, None), (2, 32, None)],
)
def test_episodes_that_checkpoints_cut_before_they_end_are_told(every, horizon, said):
    """Two updates of 8 steps a round."""
    settings = ["learner=td3", "learner.num_steps=8", "federation.local_updates=2", "environment=Pendulum-v1"]
    settings += [f"environment.horizon={horizon}", f"checkpoint.every={every}", "budget.rounds=6", "strategy=local"]
    text = make_runtime(resolve({}, [*settings, *HOST])).never_ends
    if said is None:
        assert text is None
    else:
        assert said in text
        assert f"after {16 * every} steps of a copy" in text
    assert make_runtime(resolve({}, settings)).never_ends is None, "states of native environments are saved"


@pytest.mark.training
def test_a_run_tells_that_checkpoints_cut_its_episodes(tmp_path, capsys):
    settings = ["learner=ppo", "learner.num_steps=8", "strategy=local", "federation.agents=1", "evaluation.episodes=1"]
    settings += ["environment=CartPole-v1", "environment.horizon=20", "budget.rounds=1", "checkpoint.every=1", *HOST]
    assert main(["train", *settings, "--out", str(tmp_path / "run")]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "environments start anew" in line]
    assert line.endswith("set checkpoint.every=3 or more")
