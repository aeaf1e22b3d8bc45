"""Searches: which trials run and in which order, what they cost, and how they go on."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

import fedrax
from fedrax import api
from fedrax.cli import main
from fedrax.errors import FedraxError
from fedrax.sweeps.attempts import arguments_of
from fedrax.sweeps.runner import Outcome
from fedrax.sweeps.search import Searching
from fedrax.sweeps.tasks import tasks_of

from search_files import HALVING, finish, rate, written


def test_random_trials_are_run_and_the_best_is_told(tmp_path):
    path = written(tmp_path, "trials = 5\ndirection = 'minimise'")
    lines = []
    Searching(path).run(lambda plan: finish(plan, rate), lines.append)
    record = json.loads((tmp_path / "out" / "search.json").read_text())
    rates = [trial["params"]["learner.learning_rate"] for trial in record["trials"]]
    assert len(set(rates)) == 5
    assert record["best"]["value"] == min(rates)
    assert record["spent"] == {"environment_steps": 5 * 3 * 10, "rounds": 15}
    assert lines[0] == "search: 5 trials to train, 0 of 5 done; spent so far 0 environment steps in 0 rounds"
    assert "best is trial-" in lines[-1]
    assert "150 environment steps in 15 rounds" in lines[-1]
    # More trials are added to those there are; another seed is another search.
    written(tmp_path, "trials = 7\ndirection = 'minimise'")
    stage, trials = Searching(path).following()
    assert (stage, [trial["number"] for trial in trials]) == (0, [5, 6])
    written(tmp_path, "trials = 7\nseed = 1")
    with pytest.raises(FedraxError, match=r"holds a search with seed = None, which is now 1: .*another out"):
        Searching(path)


def test_halving_extends_the_best_of_every_stage(tmp_path):
    path = written(tmp_path, HALVING)
    plans = []

    def carry_out(plan):
        plans.append(plan)
        return finish(plan, rate)

    searching = Searching(path)
    told = []
    searching.run(carry_out, told.append)
    assert [line for line in told if line.startswith("fedrax report ")] == [told[-2]], "once, at the end"
    assert [len(plan.jobs) for plan in plans] == [9, 3]
    assert [plan.jobs[0].config.budget.rounds for plan in plans] == [1, 3]
    rates = sorted(rate(job) for job in plans[0].jobs)
    assert sorted(rate(job) for job in plans[1].jobs) == rates[-3:]
    assert searching.best["params"]["learner.learning_rate"] == rates[-1]
    assert searching.best["limits"] == [1, 3]
    # What was done in the first stage is not done again.
    assert searching.spent() == {"environment_steps": 10 * (6 * 1 + 3 * 3), "rounds": 15}


def test_a_stage_resumes_what_the_one_before_it_finished(tmp_path):
    path = written(tmp_path, HALVING)
    searching = Searching(path)
    first = searching.plan()
    finish(first, rate)
    assert {task.state for task in tasks_of(first)} == {"done"}
    _, trials = searching.following()
    for trial in trials:
        trial["values"].append(trial["params"]["learner.learning_rate"])
    second = searching.plan()
    (task, *_) = tasks_of(second)
    assert task.state == "waiting"
    assert arguments_of(task) == ["resume", str(task.job.directory), "budget.rounds=3", "--quiet"]


def test_an_interrupted_search_goes_on_and_failed_trials_are_not_promoted(tmp_path):
    path = written(tmp_path, HALVING)

    def interrupted(plan):
        return Outcome(plan.out, (), interrupted=2)

    assert Searching(path).run(interrupted, lambda line: None).interrupted == 2
    searching = Searching(path)
    stage, trials = searching.following()
    assert (stage, len(trials)) == (0, 9)
    best = max(trial["params"]["learner.learning_rate"] for trial in trials)
    plans = []

    def carry_out(plan):
        plans.append(plan)
        return finish(plan, lambda job: None if rate(job) == best else rate(job))

    outcome = searching.run(carry_out, lambda line: None)
    assert best not in [rate(job) for job in plans[1].jobs]
    # It failed in the first stage alone; the sweep failed all the same, and no trial of two stages counts twice.
    assert ([rate(task.job) for task in outcome.failed], outcome.status, len(outcome.tasks)) == ([best], 1, 9)
    # Started again, it tries what failed once more, and what is now among the best goes on.
    searching = Searching(path)
    stage, trials = searching.following()
    assert (stage, [trial["params"]["learner.learning_rate"] for trial in trials]) == (0, [best])
    assert searching.run(lambda plan: finish(plan, rate), lambda line: None).status == 0
    assert searching.best["params"]["learner.learning_rate"] == best
    assert Searching(path).following() == (2, [])


def test_the_objective_is_a_number_of_the_summary_and_a_mean_over_seeds(tmp_path):
    path = written(tmp_path, "trials = 1\nobjective = 'best_retrun'")
    with pytest.raises(FedraxError, match="did you mean 'best_return'"):
        Searching(path)
    folder = tmp_path / "seeds"
    folder.mkdir()
    path = written(folder, "trials = 2", head="seeds = 2\nseeds_per_run = 1")
    searching = Searching(path)
    searching.run(lambda plan: finish(plan, lambda job: float(job.seeds[0])), lambda line: None)
    assert [trial["values"] for trial in searching.trials] == [[0.5], [0.5]]


@pytest.mark.parametrize("method", ["random", 'halving"\nleast = "1', "optuna"])
def test_a_finished_search_says_again_what_it_found(tmp_path, method):
    if method == "optuna":
        pytest.importorskip("optuna")
    path = written(tmp_path, f'method = "{method}"\ntrials = 3'.replace('"1"', "1"))
    lines = []
    Searching(path).run(lambda plan: finish(plan, rate), lines.append)
    before = (tmp_path / "out" / "search.json").read_bytes()
    outcome = Searching(path).run(lambda plan: pytest.fail("nothing is left to run"), lines.append)
    assert (outcome.out, outcome.status, outcome.tasks) == (tmp_path / "out", 0, ())
    assert lines[-1] == lines[-2]
    assert "best is trial-" in lines[-1]
    assert (tmp_path / "out" / "search.json").read_bytes() == before


def test_another_objective_ranks_what_was_run(tmp_path):
    path = written(tmp_path, HALVING)
    Searching(path).run(lambda plan: finish(plan, rate), lambda line: None)
    written(tmp_path, HALVING + "direction = 'minimise'")
    searching, plans = Searching(path), []

    def carry_out(plan):
        plans.append(plan)
        return finish(plan, rate)

    searching.run(carry_out, lambda line: None)
    rates = sorted(trial["params"]["learner.learning_rate"] for trial in searching.trials)
    # Those that were promoted before lie there with both limits; the lowest are added to them.
    assert sorted(rate(job) for job in plans[0].jobs) == rates[:3]
    assert len(plans) == 1
    assert searching.best["params"]["learner.learning_rate"] == rates[0]
    written(tmp_path, HALVING + "objective = 'rounds'")
    assert {value for trial in Searching(path).trials for value in trial["values"]} == {1, 3}


def test_an_objective_that_no_run_measured_costs_no_run(tmp_path):
    path = written(tmp_path, "trials = 2\nobjective = 'final_success'")
    with pytest.raises(FedraxError, match=r"unknown search\.objective .* 'final_success'"):
        Searching(path).run(lambda plan: finish(plan, rate), lambda line: None)
    written(tmp_path, "trials = 2")
    searching = Searching(path)
    searching.run(lambda plan: pytest.fail("all was run"), lambda line: None)
    assert searching.best["values"] == [max(trial["params"]["learner.learning_rate"] for trial in searching.trials)]


def test_a_search_whose_other_settings_changed_is_refused(tmp_path):
    path = written(tmp_path, "trials = 2")
    Searching(path).run(lambda plan: finish(plan, rate), lambda line: None)
    path.write_text(path.read_text().replace("federation.agents=2", "federation.agents=3"))
    with pytest.raises(FedraxError, match=r"holds a search with federation.agents = 2, which is now 3"):
        Searching(path)
    path.write_text(path.read_text().replace("federation.agents=3", "federation.agents=2"))
    assert Searching(path, jobs=1).following()[1] == []
    record = tmp_path / "out" / "search.json"
    record.write_text(record.read_text().replace('"results"', '"result"'))
    with pytest.raises(FedraxError, match=r"search\.json is no record of a search, or one of an earlier version"):
        Searching(path)


@pytest.mark.parametrize(
    ("damage", "needle"),
    [
        (lambda record: record["search"].update(trials="2"), "trials = '2'"),
        (lambda record: record["trials"][0]["results"].__setitem__(0, {"final_return": "much"}), "is no record of"),
        (lambda record: record["trials"][1]["params"].clear(), "trial-0001 does not have the settings"),
        (lambda record: record["trials"][1]["params"].update(x=1), "trial-0001 does not have the settings"),
    ],
)
def test_a_damaged_record_of_a_search_is_told_in_one_line(tmp_path, damage, needle):
    path = written(tmp_path, "trials = 2")
    Searching(path).run(lambda plan: finish(plan, rate), lambda line: None)
    file = tmp_path / "out" / "search.json"
    record = json.loads(file.read_text())
    damage(record)
    file.write_text(json.dumps(record))
    with pytest.raises(FedraxError, match=needle):
        Searching(path)


def test_what_failed_or_was_interrupted_has_its_cost(tmp_path):
    path = written(tmp_path, "trials = 2", head="seeds = 2")

    def interrupted(plan):
        for number, job in enumerate(plan.jobs):
            job.directory.mkdir(parents=True)
            (job.directory / "config.toml").write_text(job.config.to_toml())
            rows = [
                {"seed": seed, "round": n, "total_steps": 10 * (n + 1)} for n in range(number + 1) for seed in job.seeds
            ]
            (job.directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return Outcome(plan.out, (), interrupted=2)

    searching = Searching(path)
    searching.run(interrupted, lambda line: None)
    spent = {"environment_steps": 2 * 10 + 2 * 20, "rounds": 2 * 1 + 2 * 2}
    assert searching.spent() == spent
    assert json.loads((tmp_path / "out" / "search.json").read_text())["spent"] == spent


def test_a_request_to_stop_that_came_after_a_stages_last_run_is_heeded(tmp_path):
    path = written(tmp_path, HALVING)
    plans = []

    def carry_out(plan):
        plans.append(plan)
        return dataclasses.replace(finish(plan, rate), stopped=2)

    assert Searching(path).run(carry_out, lambda line: None).status == 130
    assert Searching(path).following()[0] == 1
    # Nothing is left that it could keep from running.
    assert Searching(path).run(carry_out, lambda line: None).status == 0
    assert len(plans) == 2


def test_a_return_that_is_not_finite_is_no_result(tmp_path):
    searching = Searching(written(tmp_path, "trials = 2"))
    searching.run(lambda plan: finish(plan, lambda job: math.nan), lambda line: None)
    assert searching.best is None


def test_optuna_is_told_what_came_out_and_goes_on_from_the_record(tmp_path):
    pytest.importorskip("optuna")
    path = written(
        tmp_path,
        "method = 'optuna'\ntrials = 6",
        '"learner.learning_rate" = {uniform = [0.1, 0.9]}\n"learner.hidden" = [[8], [16]]',
    )
    counts = []

    def carry_out(plan):
        counts.append(len(plan.setups))
        return finish(plan, rate) if len(counts) < 2 else Outcome(plan.out, (), interrupted=2)

    Searching(path).run(carry_out, lambda line: None)
    assert counts == [2, 2]  # As many as run at once.
    searching = Searching(path)
    _, waiting = searching.following()
    assert [trial["number"] for trial in waiting] == [2, 3]  # Those that were under way.
    searching.run(lambda plan: finish(plan, rate), lambda line: None)
    assert len({trial["params"]["learner.learning_rate"] for trial in searching.trials}) == 6
    path.write_text(path.read_text().replace("trials = 6", "trials = 6\nsampler = 'TPESamplre'"))
    with pytest.raises(FedraxError, match="did you mean 'TPESampler'"):
        Searching(path)


def test_without_optuna_one_line_says_what_to_install(tmp_path, monkeypatch):
    import builtins

    real = builtins.__import__

    def missing(name, *rest, **named):
        if name == "optuna":
            raise ImportError
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(FedraxError, match=r'pip install "fedrax\[optuna\]"'):
        Searching(written(tmp_path, "method = 'optuna'"))


@pytest.mark.training
def test_a_search_trains_and_its_budget_is_what_the_runs_did(tmp_path, capsys):
    path = written(tmp_path, "method = 'halving'\ntrials = 3\nleast = 1")
    assert main(["sweep", str(path), "--dry-run"]) == 0
    assert "trial-0002" in capsys.readouterr().out
    assert api.sweep(path).status == 0
    record = json.loads((tmp_path / "out" / "search.json").read_text())
    runs = [fedrax.load(folder) for folder in sorted((tmp_path / "out").glob("trial-*/seed-0"))]
    assert sorted(run.summary()["rounds"] for run in runs) == [1, 1, 3]
    assert record["spent"]["environment_steps"] == sum(run.summary()["total_steps"] for run in runs)
    (whole,) = (run for run in runs if run.summary()["rounds"] == 3)
    assert record["best"]["setup"] == Path(whole.path).parent.name
    assert record["best"]["value"] == whole.summary()["final_return"]
    assert "stage 2 of 2 begins: 1 trial to train to budget.rounds = 3" in capsys.readouterr().out
