"""The tables of agents and of their environments."""

import numpy as np
import pytest

from fedrax.report.agents import agents_table, divergence_table, final_agent_returns
from fedrax.report.runs import Group, History, Run


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
    assert headings == ["", "mean agent", "worst agent", "deviation of agents", "agent 0", "agent 1"]
    ((label, mean, worst, deviation, *each),) = lines
    assert (label, mean, each) == ("a", "4 [4, 4]", ["2", "6"])
    assert (worst, deviation) == ("2 [0, 4]", "2 [0, 4]")
    assert agents_table([group("b", [{"return": 0.0}])], "mean") is None


@pytest.mark.parametrize(("agents", "columns"), [(12, 4 + 12), (13, 4)])
def test_many_agents_have_no_column_each(agents, columns):
    headings, (line,) = agents_table([group("a", [{"agent_returns": [1.0] * agents}])], "iqm")
    assert len(headings) == len(line) == columns


def test_environments_that_do_not_differ_have_no_line_unless_others_do():
    same, apart = group("same", divergence={}), group("apart", divergence={"g": 0.25, "obstacles (bits)": 0.5})
    assert divergence_table([group("old"), same]) is None
    headings, lines = divergence_table([same, apart])
    assert headings == ["", "g", "obstacles (bits)"]
    assert lines == [["same", "0", "0"], ["apart", "0.25", "0.5"]]


def test_own_environments_stand_beside_those_of_all():
    rows = [{"agent_returns": [4.0, 6.0], "agent_own_returns": [8.0, 10.0]}]
    headings, lines = agents_table([group("a", rows), group("b", [{"agent_returns": [1.0, 3.0]}])], "mean")
    assert headings[4] == "mean agent in its own environment"
    assert [line[4] for line in lines] == ["9", "–"]
