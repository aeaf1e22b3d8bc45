"""The tables of agents and of their environments."""

import numpy as np
import pytest

from fedrax.report.agents import agent_names, agents_table, divergence_table, final_agent_returns, parameters_of
from fedrax.report.aggregation import aggregation_table
from fedrax.report.comparisons import gain_table
from fedrax.report.labels import labels_of
from fedrax.report.personal import returns_of
from fedrax.report.runs import Group, History, Run
from fedrax.report.successes import success_table

RETURN_OF = "agent k: return of"


def group(label, *seeds, divergence=None):
    histories = tuple(History(seed, tuple(rows), 2) for seed, rows in enumerate(seeds))
    manifest = {} if divergence is None else {"divergence": divergence}
    return Group(label, (Run("run", {}, manifest, {}, histories),))


def test_the_last_complete_evaluation_of_each_seed_counts():
    rows = [{"agent_returns": [1.0, 3.0]}, {"agent_returns": [2.0, 6.0]}, {"agent_returns": [None, None]}, {}]
    np.testing.assert_array_equal(final_agent_returns(group("a", rows, [], rows[:1])), [[2, 6], [1, 3]])
    assert final_agent_returns(group("a", [{"return": 1.0}])) is None


def test_the_worst_agent_and_the_deviation_are_taken_within_a_seed():
    even, uneven = [{"agent_returns": [4.0, 4.0]}], [{"agent_returns": [0.0, 8.0]}]
    headings, lines = agents_table([group("a", even, uneven), group("b", [{"return": 0.0}])], "mean")
    assert headings == ["", RETURN_OF, "mean agent", "worst agent", "deviation of agents", "agent 0", "agent 1"]
    ((label, _, mean, worst, deviation, *each),) = lines
    assert (label, mean, each) == ("a", "4 [4, 4]", ["2", "6"])
    assert (worst, deviation) == ("2 [0, 4]", "2 [0, 4]")
    assert agents_table([group("b", [{"return": 0.0}])], "mean") is None


@pytest.mark.parametrize(("agents", "columns"), [(12, 5 + 12), (13, 5)])
def test_many_agents_have_no_column_each(agents, columns):
    headings, (line,) = agents_table([group("a", [{"agent_returns": [1.0] * agents}])], "iqm")
    assert len(headings) == len(line) == columns


def test_environments_that_do_not_differ_have_no_line_unless_others_do():
    same, apart = group("same", divergence={}), group("apart", divergence={"g": 0.25, "obstacles (bits)": 0.5})
    assert divergence_table([group("old"), same]) is None
    headings, lines = divergence_table([same, apart])
    assert headings == ["", "g", "obstacles (bits)"]
    assert lines == [["same", "0.00", "0.0"], ["apart", "0.25", "0.5"]]


def test_own_environments_stand_beside_those_of_all():
    rows = [{"agent_returns": [4.0, 6.0], "agent_own_returns": [8.0, 10.0]}]
    headings, lines = agents_table([group("a", rows), group("b", [{"agent_returns": [1.0, 3.0]}])], "mean")
    assert headings[5] == "mean agent in its own environment"
    assert [line[5] for line in lines] == ["9", "–"]


def test_returns_of_agents_have_one_number_of_digits():
    """They are compared down a column, and along a line."""
    one, two = ([{"agent_returns": returns}] for returns in (UNEVEN, [5.0] * 3))
    _, lines = agents_table([group("a", one), group("b", two)], "mean")
    assert [line[5:8] for line in lines] == [["-192.6", "-97.2", "-132.4"], ["5.0", "5.0", "5.0"]]


UNEVEN = [-192.6, -97.15, -132.4]


def trained(strategy, where, **row):
    row = {"round": 0, "agent_returns": [1.0, 3.0], **row}
    config = {"strategy": {"kind": strategy}, "learner": {"kind": "ppo"}, "evaluation": {"environments": where}}
    config["environment"] = {"id": "CartPole-v1", "heterogeneity": {"length": [0.5, 1.0]}}
    return Group(strategy, (Run("run", config, {}, {}, (History(0, (row,), 2),)),))


@pytest.mark.parametrize(
    ("strategy", "where", "said"),
    [
        ("fedavg", "all", "the shared policy in agent k's environment"),
        ("fedavg", "own", "the shared policy in agent k's environment"),
        ("local", "all", "agent k's own policy over all agents' environments"),
        ("local", "own", "agent k's own policy in its environment"),
        ("fedrep", "own", "agent k's own policy in its environment"),
        ("local", "registered", "agent k's own policy in the registered environment"),
    ],
)
def test_a_line_says_whose_policy_an_agents_return_is_of(strategy, where, said):
    headings, ((_, told, *_),) = agents_table([trained(strategy, where)], "mean")
    assert (headings[1], told) == (RETURN_OF, said)


def test_own_policies_are_told_by_their_record_where_the_strategy_is_not_known():
    known = trained("a plugin's", "all", agent_own_returns=[2.0, 4.0])
    assert agents_table([known], "mean")[1][0][1] == "agent k's own policy over all agents' environments"
    assert returns_of([known, trained("fedavg", "all"), trained("local", "own")]) == [
        "a plugin's: the return is the mean of each agent's own policy over all agents' environments; of each in its "
        "own agent's environment alone: table Agents of the HTML report",
        "local: the return is the mean of each agent's own policy in that agent's environment",
    ]


TASKS = ["PointReach-v0", "PointPush-v0"]
NAMED = ["agent 0 (PointReach-v0)", "agent 1 (PointPush-v0)", "agent 2 (PointReach-v0)"]


def on_tasks(strategy, tasks, drawn=({}, {}, {})):
    returns = [1.0, 3.0, 5.0]
    row = {"round": 0, "success": 0.5, "agent_success": [0.5] * 3, "agent_returns": returns}
    row |= {f"agent_returns_{when}": returns for when in ("before", "after")}
    config = {"strategy": {"kind": strategy}, "learner": {"kind": "td3"}, "federation": {"agents": 3}, "seed": 0}
    config["environment"] = {"id": "PointPush-v0", "tasks": tasks}
    config["evaluation"] = {"environments": "own", "episodes": 6, "seed": 0}
    numbered = [{**own, "task": agent % 2} for agent, own in enumerate(drawn)]
    return Group(strategy, (Run("run", config, {"draws": [numbered]}, {}, (History(0, (row,), 2),)),))


def test_agents_are_named_with_their_tasks_wherever_each_has_a_column():
    groups = [on_tasks(strategy, TASKS) for strategy in ("local", "fedavg")]
    assert agents_table(groups, "mean")[0][-3:] == NAMED
    assert success_table(groups)[0][-3:] == NAMED
    assert gain_table(groups)[0][-3:] == NAMED
    assert aggregation_table(groups, "mean")[0][-3:] == [f"change of {name}" for name in NAMED]
    assert agent_names([groups[0], on_tasks("fedper", TASKS[::-1])], 2) == ["agent 0", "agent 1"]
    assert agent_names([groups[0], on_tasks("fedper", [])], 2) == ["agent 0", "agent 1"]


def test_a_task_is_a_name_and_no_parameter():
    assert parameters_of([on_tasks("local", TASKS)]) == []
    (drawn,) = parameters_of([on_tasks("local", TASKS, [{"mass": 1.0}, {"mass": 2.0}, {"mass": 1.5}])])
    headings, lines = drawn.table()
    assert headings == ["", "mass", "final return in its own environment: local"]
    assert [line[0] for line in lines] == NAMED
    (own,) = parameters_of([on_tasks("local", [])])
    assert own.table()[0][1] == "task", "a parameter that somebody calls so, where there are no tasks"


def test_a_run_of_several_tasks_is_called_by_all_of_them(tmp_path):
    settings = on_tasks("fedavg", TASKS).runs[0].settings
    assert labels_of([settings], [""], [tmp_path]) == ["fedavg, PointReach-v0, PointPush-v0, 3 agents"]
