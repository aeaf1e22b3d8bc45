"""What the file of a search may say."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from fedrax.cli import main
from fedrax.errors import FedraxError
from fedrax.sweeps.plan import read_plan
from fedrax.sweeps.search import Searching
from fedrax.sweeps.space import drawn, read_space

from search_files import written
from sweep_files import TINY

SPACE = {
    "learner": {"learning_rate": {"log-uniform": [1e-4, 1e-1]}, "hidden": [[8], [16, 16]]},
    "strategy.minibatch": {"integers": [2, 4]},
    "learner.discount": {"uniform": [0.5, 1]},
}


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
