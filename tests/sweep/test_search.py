"""Searches: what a file may say, which trials run and in which order, what they cost, and how they go on."""

import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from sweep_files import TINY

import fedrax
from fedrax import api
from fedrax.cli import main
from fedrax.errors import FedraxError
from fedrax.records.rundir import RunDirectory
from fedrax.records.summary import KEYS, write_summary
from fedrax.sweeps.attempts import arguments_of
from fedrax.sweeps.plan import read_plan
from fedrax.sweeps.runner import Outcome
from fedrax.sweeps.search import Searching
from fedrax.sweeps.space import drawn, read_space
from fedrax.sweeps.tasks import Task, tasks_of

SPACE = {
    "learner": {"learning_rate": {"log-uniform": [1e-4, 1e-1]}, "hidden": [[8], [16, 16]]},
    "strategy.minibatch": {"integers": [2, 4]},
    "learner.discount": {"uniform": [0.5, 1]},
}
HALVING = """
method = "halving"
trials = 9
least = 1
"""


def written(folder, search="", space='"learner.learning_rate" = {log-uniform = [1e-4, 1e-1]}', head=""):
    path = folder / "search.toml"
    preset = f'preset = "fedpg-br/cartpole"\nout = "{folder / "out"}"\nset = {json.dumps(TINY)}\njobs = 2\n{head}\n'
    path.write_text(f"{preset}[search]\n{search}\n[search.space]\n{space}\n")
    return path


def finish(plan, score, steps=10):
    """Runs that end at once, with a return that depends on the trial."""
    tasks = []
    for job in plan.jobs:
        value = score(job)
        tasks.append(Task(job, "failed" if value is None else "done"))
        job.directory.mkdir(parents=True, exist_ok=True)
        (job.directory / "config.toml").write_text(job.config.to_toml())
        if value is not None:
            rounds = job.config.budget.rounds
            summary = {"final_return": value, "rounds": rounds, "total_steps": steps * rounds, "seeds": [*job.seeds]}
            write_summary(RunDirectory(job.directory), dict.fromkeys(KEYS, 0) | summary)
    return Outcome(plan.out, tuple(tasks), interrupted=0)


def rate(job):
    return job.config.learner["learning_rate"]


def test_ranges_and_choices_hold_what_they_say():
    space = read_space(SPACE)
    trials = [drawn(space, 0, number) for number in range(400)]
    rates = np.array([trial["learner.learning_rate"] for trial in trials])
    assert 1e-4 <= rates.min() < 3e-4
    assert 3e-2 < rates.max() <= 1e-1
    assert abs(np.mean(np.log10(rates)) + 2.5) < 0.2  # Even in the logarithm.
    assert {trial["strategy.minibatch"] for trial in trials} == {2, 3, 4}
    assert {str(trial["learner.hidden"]) for trial in trials} == {"[8]", "[16, 16]"}
    assert all(0.5 <= trial["learner.discount"] <= 1 for trial in trials)
    assert trials[7] == drawn(space, 0, 7) != drawn(space, 1, 7)


def test_settings_of_training_alone_may_be_searched(tmp_path):
    """What is no part of the measure as the search is set up: a training's horizon, the agents of one environment."""
    space = '"environment.horizon" = [5, 9]\n"federation.agents" = [2, 3]\n"evaluation.episodes" = [1, 2]'
    path = written(tmp_path, space=space)

    def searching(*changes):
        path.write_text(re.sub("(?m)^set = .*$", f"set = {json.dumps([*TINY, *changes])}", path.read_text()))
        return Searching(path)

    assert len(searching("evaluation.horizon=9").plan().setups) == 16
    with pytest.raises(FedraxError, match=r"search.space.environment.horizon is not allowed"):
        searching("evaluation.horizon=none")
    # Where agents' environments differ, returns are means over them, and depend on how many there are.
    gravity = 'environment.heterogeneity.gravity={distribution="uniform", low=9, high=10}'
    with pytest.raises(FedraxError, match=r"search.space.federation.agents is not allowed.*federation.agents = 2, or"):
        searching("evaluation.horizon=9", gravity)


@pytest.mark.parametrize("seed", range(4))
def test_settings_that_change_the_measure_together_are_refused(tmp_path, seed):
    """Whichever trial is first: of 20 steps all but one of the four combinations are."""
    path = written(tmp_path, f"seed = {seed}", '"evaluation.horizon" = ["none", 20]\n"environment.horizon" = [20, 9]')
    with pytest.raises(FedraxError, match="their results cannot be ranked"):
        Searching(path).plan()


@pytest.mark.parametrize(
    ("search", "space", "needle"),
    [
        ("method = 'grid'", "a = [1]", "unknown search.method 'grid'"),
        ("trails = 3", "a = [1]", "did you mean 'trials'"),
        ("least = 3", "a = [1]", "unknown key of search.method = 'random' 'least'"),
        ("trials = 0", "a = [1]", "search.trials = 0 is not allowed: give a whole number from 1"),
        ("direction = 'up'", "a = [1]", "allowed: maximise, minimise"),
        ("", "", "search.space is empty"),
        ("", "a = 3", "search.space.a = 3 is not allowed: give a list of values, or a range"),
        ("", "a = {log-uniform = [0, 1]}", "and more than 0"),
        ("", "a = {integers = [1.5, 2]}", "give two whole numbers"),
        ("", "a = {integers = [0, 4294967296]}", "give numbers from -2147483647 to 2147483647"),
        ("", f"a = {{integers = [0, 1{'0' * 400}]}}", "give two whole numbers"),
        ("", "a = {uniform = [-1e308, 1e308]}", "it is too wide"),
        ("", "a = {uniform = [0, inf]}", "give two numbers"),
        (
            "",
            "a = {uniform = [0, 1], integers = [0, 1]}",
            "a range has one key alone, of uniform, log-uniform, integers",
        ),
        ("", "a = {uniform = [0, 1], lo = 2}", "a range has one key alone"),
        ("", "a = {}", "search.space.a is an empty table"),
        ("seed = 2147483647", "a = [1]", "give a whole number from 0 to 2147473647"),
        ("", "a = {log-normal = [1, 2]}", "allowed: integers, log-uniform, uniform"),
        ("", "a.b = {loguniform = [1, 2]}", "search.space.a.b 'loguniform' (did you mean 'log-uniform'?)"),
        ("", '"learner.learning_rat" = [1]', "did you mean 'learning_rate'"),
        ("method = 'halving'", "a = [1]", "needs search.least"),
        (
            "method = 'halving'\nleast = 5",
            '"learner.discount" = [0.9]',
            "search.least = 5 is more than budget.rounds = 3",
        ),
        ("method = 'halving'\nleast = 1\nbudget = 'steps'", '"learner.discount" = [0.9]', "give it one limit"),
        ("method = 'halving'\nleast = 1", '"budget.rounds" = [1, 2]', "whose stages set the budget of every trial"),
        ("method = 'halving'\nleast = 1", "budget = [{rounds = 1}]", "search.space.budget is not allowed"),
        ("", '"evaluation.horizon" = [5, 1000]', "measured differently (steps of an episode = 5, or steps of an"),
        ("", "evaluation.horizon = {integers = [5, 9]}", "search.space.evaluation.horizon is not allowed"),
        ("", "environment = ['CartPole-v1', 'Pendulum-v1']", "environment.id = CartPole-v1, or environment.id = Pend"),
        ("", '"environment.id" = ["CartPole-v1", "Acrobot-v1"]', "give environment.id one value in [set]"),
        ("", '"environment.native" = [true, false]', "environment.native = true"),
        ("", '"evaluation.greedy" = [true, false]', "their results cannot be ranked"),
        ("", '"evaluation.seed" = {integers = [0, 9]}', "search.space.evaluation.seed is not allowed"),
        ("", '"environment.heterogeneity.gravity" = {uniform = [8, 9]}', "search.space.environment.heterogeneity.gra"),
        ("", "evaluation = [{greedy = true}, {greedy = false}]", "search.space.evaluation is not allowed"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, capsys, search, space, needle):
    path = written(tmp_path, search, space)
    assert main(["sweep", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert needle in error
    assert str(path) in error


def test_a_search_has_no_setups(tmp_path):
    path = written(tmp_path)
    path.write_text(path.read_text() + "\n[setups.a]\n")
    with pytest.raises(FedraxError, match="unknown key of a search's file 'setups'"):
        Searching(path)


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


def test_the_pages_files_are_read(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text()
    sweep, search = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    for name, text in (("sweep", sweep), ("search", search)):
        (tmp_path / f"{name}.toml").write_text(text.replace('out = "runs', f'out = "{tmp_path}/runs'))
    plan = read_plan(tmp_path / "sweep.toml", jobs=2)
    assert [job.name for job in plan.jobs][:2] == [
        f"plain,learner.learning_rate={rate} seeds 0 to 9" for rate in ("0.001", "0.003")
    ]
    plan = Searching(tmp_path / "search.toml", jobs=2).plan()
    assert len(plan.setups) == 27
    assert plan.jobs[0].config.budget.trajectories == 200
