"""Numbers that are not finite, and environments that raise: what becomes of the round and of the run."""

import dataclasses
import json

import gymnasium
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import faulty
import fedrax
from faulty_runs import EPISODES, HOST, TABLE, TD3, advanced, agent, configured, equal, finite, flaky, host
from fedrax.cli import main
from fedrax.environments.faults import REWARD
from fedrax.errors import FedraxError
from fedrax.printing import summary_lines
from fedrax.records.checkpoint import load_checkpoint
from fedrax.runtime import training
from fedrax.runtime.counters import Counters
from fedrax.runtime.library import Programs
from fedrax.runtime.make import make_runtime

SHORT_POLE = "environment.heterogeneity.length=[0.5, 1e-38, 0.5]"
"""Agent 1's pole turns infinitely fast at once."""
FAST_PENDULUM = ["environment.heterogeneity.g=[10, 1e12, 10]", "environment.heterogeneity.l=[1, 1e-30, 1]"]
"""Of agent 1, gravity's and the torque's accelerations overflow, and infinity minus infinity is no number."""


@pytest.mark.training
@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param([SHORT_POLE], id="steps"),
        pytest.param([SHORT_POLE, "federation.local_updates=3"], id="several updates", marks=pytest.mark.slow),
        pytest.param([SHORT_POLE, "strategy=scaffold"], id="control variates"),
        pytest.param([SHORT_POLE, *EPISODES], id="episodes"),
        pytest.param(
            [SHORT_POLE, *EPISODES, "runtime.agents_per_batch=1"], id="one after the other", marks=pytest.mark.slow
        ),
        pytest.param([*TD3, *FAST_PENDULUM, "federation.local_updates=2"], id="replay", marks=pytest.mark.slow),
    ],
)
def test_an_agent_whose_numbers_are_not_finite_is_as_before_and_absent(overrides):
    runtime = make_runtime(configured(*overrides))
    states, rows = advanced(runtime, 3)
    kinds = rows["dropped"][:, :, 0]
    assert (kinds[:, 1] > 0).all()
    assert not kinds[:, [0, 2]].any()
    assert rows["present"].tolist() == [2, 2, 2]
    assert not rows["excluded"].any(), "its message is not to blame"
    assert all(equal(agent(state, 1), agent(states[0], 1)) for state in states)
    assert finite(states[-1].agents)
    assert finite(states[-1].server.params)
    assert not equal(states[-1].server, states[0].server), "the others learn"
    assert np.isfinite(rows["train_return"][-1])


@pytest.mark.slow
def test_the_others_learn_as_if_it_had_not_answered():
    """The server's steps are those of a federation whose agent 1 is drawn out of every round."""
    states, _ = advanced(make_runtime(configured(SHORT_POLE, *EPISODES)), 2)
    absent = make_runtime(configured("environment.heterogeneity.length=[0.5, 0.6, 0.5]", *EPISODES))
    cohort = type(absent.federation).cohort

    class WithoutOne(type(absent.federation)):
        def cohort(self, key):
            drawn = cohort(self, key)
            return drawn._replace(answers=drawn.answers.at[1].set(False))

    fields = {field.name: getattr(absent.federation, field.name) for field in dataclasses.fields(absent.federation)}
    absent.federation = WithoutOne(**fields)
    absent.prepare(Programs())
    expected, _ = advanced(absent, 2)
    for one, other in zip(jax.tree.leaves(states[-1].server), jax.tree.leaves(expected[-1].server), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.training
def test_native_environments_that_broke_start_anew():
    """The episodes never end by themselves within the run, so an agent dropped once would be dropped ever after."""
    states, rows = advanced(flaky(each=[0.0, 0.3, 0.0]), 8)
    dropped = rows["dropped"][:, 1, 0] > 0
    assert dropped.any()
    assert not dropped.all()
    again = np.flatnonzero(dropped[:-1] & ~dropped[1:]) + 1
    assert again.size, "it takes part again"
    for index in range(8):
        assert equal(agent(states[index], 1), agent(states[index + 1], 1)) == dropped[index]
    assert rows["present"].tolist() == (3 - dropped).tolist()


@pytest.mark.slow
def test_the_servers_own_trajectories_are_dropped_too():
    overrides = ["strategy=fedpg-br", "learner=policy-gradient", "strategy.batch_min=4", "strategy.batch_max=5"]
    runtime = flaky(*overrides, "strategy.minibatch=1", "environment.horizon=6", chance=1.0, each=[0.0, 0.0, 0.0])
    states, rows = advanced(runtime, 3)
    sampled = rows["server_trajectories"]
    assert sampled.any()
    # The third step's observation is the first that is broken; refining ends with the trajectory that has it.
    assert rows["server_dropped"].tolist() == [[1, 0, 3, 0] if count else [0] * 4 for count in sampled]
    assert sampled.max() == 1
    assert finite(states[-1].server.params)
    assert not rows["dropped"].any()


@pytest.fixture
def fresh_counts():
    for kind in vars(faulty).values():
        if isinstance(kind, type) and issubclass(kind, gymnasium.Env):
            kind.count = 0


@pytest.mark.training
@pytest.mark.parametrize(
    "overrides", [[], pytest.param(["federation.local_updates=2"], marks=pytest.mark.slow), EPISODES]
)
def test_one_nan_on_the_host_costs_one_collection(overrides, fresh_counts):
    states, rows = advanced(host("OnceNan", "evaluation.every=20", "checkpoint.every=20", *overrides), 1)
    assert rows["dropped"][:, :, 0].astype(bool).sum() == 1
    index, who = np.argwhere(rows["dropped"][:, :, 0])[0]
    kind, update, step, _ = rows["dropped"][index, who]
    # Six copies step in turn, so the 41st step of the process is the seventh of each of them.
    assert (kind, update, step) == (REWARD, 0, 7)
    assert rows["present"].tolist() == [2 if round == index else 3 for round in range(20)]
    assert finite(states[-1].agents)


@pytest.mark.training
@pytest.mark.parametrize("updates", [1, 2])
def test_host_environments_that_broke_start_anew(updates, fresh_counts):
    """An action on NaN would be NaN, too, which this environment refuses; and its episodes do not end by themselves."""
    runtime = host("Stuck", f"federation.local_updates={updates}", "checkpoint.every=8", "evaluation.every=8")
    _, rows = advanced(runtime, 1)
    # The 20th step is the fourth of six copies': copy 1 of agent 0.
    assert rows["dropped"][0].tolist() == [[1, 0, 4, 1], [0] * 4, [0] * 4]
    assert not rows["dropped"][1:].any()
    assert rows["present"].tolist() == [2] + [3] * 7


@pytest.mark.slow
def test_an_environment_of_many_that_act_in_turn_starts_anew(fresh_counts):
    runtime = host("Stuck", "federation.agents=4", "federation.participation=0.5", "checkpoint.every=8")
    _, rows = advanced(runtime, 1)
    assert np.count_nonzero(rows["dropped"][:, :, 0]) == 1
    assert rows["present"].tolist().count(1) == 1


def run(path, id, *overrides):
    """A run through the command line's own function; its exit status."""
    (path / "case.toml").write_text(fedrax.config.tomli_w.dumps(TABLE))
    settings = [f"environment.id={id}", *HOST, *overrides]
    return main(["train", str(path / "case.toml"), *settings, "--out", str(path / "run")])


def records(path):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in fedrax.load(path).metrics()]


@pytest.mark.training
def test_one_nan_is_named_recorded_and_counted(tmp_path, capsys, fresh_counts):
    assert run(tmp_path, "TestOnceNan-v0", "budget.rounds=12") == 0
    rows = records(tmp_path / "run")
    (lost,) = [row for row in rows if "dropped" in row]
    (entry,) = lost["dropped"]
    assert entry == {"agent": 2, "what": "reward", "step": 7, "copy": 0}
    assert [row["present"] for row in rows] == [2] + [3] * 11
    line = "round 1, seed 0: agent 2's collection was dropped: its reward was not finite in step 7 (environment copy 0)"
    assert line in capsys.readouterr().out.splitlines()
    assert fedrax.load(tmp_path / "run").summary()["dropped_collections"] == 1
    (told,) = [text for text in summary_lines(fedrax.load(tmp_path / "run")) if text.startswith("rounds dropped")]
    assert told.split()[2] == "1"


@pytest.mark.training
def test_a_run_that_learns_nothing_at_all_fails_and_says_why(tmp_path, capsys):
    assert run(tmp_path, "TestNanReward-v0", "budget.rounds=3") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "nobody's message was usable for 3 rounds in a row" in line
    assert "agent 0's collection was dropped: its reward was not finite in step 3 (environment copy 0)" in line
    assert fedrax.load(tmp_path / "run").summary()["dropped_collections"] == 9


@pytest.mark.training
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_returns_that_overflow_are_told_in_one_line(tmp_path, capsys):
    assert run(tmp_path, "TestFortune-v0", "budget.rounds=3") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "what agent 0 learned was dropped: it overflowed" in line


LOST = ["environment.heterogeneity.length=[1e-38, 1e-38, 1e-38]", "environment.native=true", "evaluation.every=20"]


@pytest.mark.training
@pytest.mark.parametrize(
    ("every", "stops"),
    [
        pytest.param(1, [4, 8], marks=pytest.mark.slow),
        (3, [6, 12]),
        pytest.param(8, [8, 16], marks=pytest.mark.slow),
    ],
)
def test_lost_rounds_in_a_row_stop_the_run_and_it_can_be_resumed(tmp_path, capsys, every, stops):
    limits = ["budget.rounds=20", f"checkpoint.every={every}", "federation.max_lost_rounds=4"]
    assert run(tmp_path, "CartPole-v1", *LOST, *limits) == 1
    for index, rounds in enumerate(stops):
        if index:
            assert main(["resume", str(tmp_path / "run")]) == 1
        assert len(records(tmp_path / "run")) == rounds
        (line,) = capsys.readouterr().err.splitlines()
        count = rounds - (stops[index - 1] if index else 0)
        assert f"nobody's message was usable for {count} rounds in a row" in line
        assert "agent 0's collection was dropped: its observation was not finite" in line
        assert f"`fedrax resume {tmp_path / 'run'}` goes on" in line
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.slow
def test_a_stopped_run_goes_on_as_the_one_that_never_stops(tmp_path):
    settings = [*LOST, "budget.rounds=5", "checkpoint.every=2"]
    (tmp_path / "whole").mkdir()
    assert run(tmp_path / "whole", "CartPole-v1", *settings, "federation.max_lost_rounds=none") == 0
    assert run(tmp_path, "CartPole-v1", *settings, "federation.max_lost_rounds=2") == 1
    assert main(["resume", str(tmp_path / "run")]) == 1
    assert main(["resume", str(tmp_path / "run")]) == 1, "the budget is used up, and nothing was learned"
    assert records(tmp_path / "run") == records(tmp_path / "whole" / "run")


@pytest.mark.training
def test_a_seed_that_is_stuck_keeps_no_other_from_its_budget(tmp_path, capsys):
    draws = "environment.heterogeneity.length={distribution='uniform', low=0.4, high=0.6}"
    config = configured(draws, "environment.draws=2", "seeds=2", "budget.rounds=9", "federation.max_lost_rounds=3")
    runtime = make_runtime(config)
    broken = runtime.agents_draws["length"].at[1].set(1e-38)
    runtime.agents_draws = {**runtime.agents_draws, "length": broken}
    runtime.prepare(Programs())
    directory = fedrax.records.rundir.RunDirectory.create(tmp_path / "run")
    with pytest.raises(FedraxError, match="at its end nothing was learned: seed 1: nobody's message was") as caught:
        training.train_run(config, runtime, directory, progress=False)
    assert "seed 0" not in str(caught.value)
    assert [row["seed"] for row in records(tmp_path / "run")] == [0, 1] * 9
    _, meta = load_checkpoint(directory.checkpoints, runtime.init())
    assert meta["round"] == 9
    with pytest.raises(FedraxError, match="at its end nothing was learned: seed 1"):
        fedrax.resume(directory.path)
    directory.summary.unlink()  # As if it had been killed before.
    with pytest.raises(FedraxError, match="at its end nothing was learned: seed 1"):
        training.train_run(config, runtime, directory, progress=False)
    assert json.loads(directory.summary.read_text())["failed"] == str(caught.value)
    assert np.isfinite(json.loads(directory.summary.read_text())["final_return"][0])


def test_rounds_without_answers_are_not_lost():
    """Simulated dropout is no fault; nor does it end a row of faults."""
    silent = dict.fromkeys((*fedrax.runtime.counters.SUMMED, "present", "train_return", "seconds"), 0)
    silent |= {"return": np.nan, "episode_length": np.nan, "excluded": np.zeros(2, bool)}
    silent |= {"train_success": np.nan, "agent_train_success": np.full(2, np.nan)}
    silent |= {"dropped": np.zeros((2, 4), int), "server_dropped": np.zeros(4, int)}
    faulty_round = silent | {"dropped": np.array([[2, 0, 1, 0], [0] * 4])}
    excluded = silent | {"excluded": np.array([False, True])}
    counter = Counters()

    def after(metrics):
        unsent = {"message_bytes": (0, 0), "readers": None}
        counter.row(0, metrics, agents=2, participants=2, **unsent, episodic=False, updates=1)
        return counter.lost_rounds

    rounds = [silent, faulty_round, silent, excluded, faulty_round | {"present": 1}, silent]
    assert [after(metrics) for metrics in rounds] == [0, 1, 1, 2, 0, 0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_evaluation_that_is_not_finite_is_never_the_best(value):
    counter = Counters()
    for seen in (value, 3.0, value):
        counter.note({"return": seen, "episode_length": 1.0})
    assert counter.best_return == 3.0
    assert not np.isfinite(counter.final_return)


@pytest.mark.training
@pytest.mark.parametrize("id", ["TestNanReward-v0", "TestEndless-v0"])
def test_an_evaluation_that_is_not_finite_is_named(tmp_path, capsys, id):
    assert run(tmp_path, id, "federation.max_lost_rounds=none", "budget.rounds=2") == 0
    line = "round 2, seed 0: the return of the evaluation was not finite; it cannot be the best"
    assert line in capsys.readouterr().out.splitlines()
    summary = fedrax.load(tmp_path / "run").summary()
    assert np.isnan(summary["best_return"])
    assert not np.isfinite(summary["final_return"])
    config = fedrax.load(tmp_path / "run").config
    runtime = make_runtime(config)
    state, _ = load_checkpoint(tmp_path / "run" / "checkpoints", runtime.init())
    runtime.close()
    assert state.best_return.tolist() == [-np.inf]


@pytest.mark.training
@pytest.mark.parametrize("overrides", [[], pytest.param(EPISODES, marks=pytest.mark.slow)], ids=["steps", "episodes"])
def test_a_run_with_faults_that_was_killed_equals_the_one_that_was_not(tmp_path, monkeypatch, overrides):
    settings = ["budget.rounds=6", "checkpoint.every=2", "evaluation.every=2", *overrides]
    table = configured("environment.id=TestSeldom-v0", *HOST, *settings).model_dump(mode="json")
    whole = fedrax.train(table, out=tmp_path / "whole", progress=False)
    assert any("dropped" in row for row in whole.metrics())
    save, saved = training.save_checkpoint, []

    class Killed(Exception):
        pass

    def fatal(*arguments):
        saved.append(arguments)
        if len(saved) == 2:
            raise Killed
        return save(*arguments)

    monkeypatch.setattr(training, "save_checkpoint", fatal)
    with pytest.raises(Killed):
        fedrax.train(table, out=tmp_path / "killed", progress=False)
    fedrax.resume(tmp_path / "killed", progress=False)
    assert records(tmp_path / "killed") == records(tmp_path / "whole")
    final = "checkpoints/checkpoint-6.safetensors"
    one, other = (load_file(tmp_path / which / final) for which in ("killed", "whole"))
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.training
def test_a_crash_in_an_environment_is_one_line_and_costs_nothing(tmp_path, capsys, monkeypatch, fresh_counts):
    settings = ["budget.rounds=4", "evaluation.every=4"]
    (tmp_path / "whole").mkdir()
    assert run(tmp_path / "whole", "TestCrash-v0", *settings) == 0
    faulty.Crash.count = 0
    # A round has 66 steps, of six copies in turn: this is the 28th of the third, of copy 1 of agent 1.
    monkeypatch.setattr(faulty.Crash, "fatal", 160)
    capsys.readouterr()
    assert run(tmp_path, "TestCrash-v0", *settings) == 1
    (line,) = capsys.readouterr().err.splitlines()
    error = tmp_path / "run" / "error.txt"
    assert line == (
        "fedrax: environment 'TestCrash-v0' crashed in step (agent 1, copy 1): ZeroDivisionError: the pump ran dry; "
        f"the traceback is in {error}; mend it, then `fedrax resume {tmp_path / 'run'}` goes on "
        "from the last checkpoint"
    )
    text = error.read_text()
    assert 'raise ZeroDivisionError("the pump\\nran dry")' in text
    assert "faulty.py" in text
    assert main(["resume", str(tmp_path / "run")]) == 0
    assert records(tmp_path / "run") == records(tmp_path / "whole" / "run")


@pytest.mark.training
def test_a_crash_in_an_evaluation_says_so(tmp_path, capsys, monkeypatch, fresh_counts):
    monkeypatch.setattr(faulty.Crash, "fatal", 66 + 1)
    assert run(tmp_path, "TestCrash-v0", "evaluation.every=1", "checkpoint.every=4", "budget.rounds=4") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "environment 'TestCrash-v0' crashed in step (an evaluation, copy 0): ZeroDivisionError" in line
