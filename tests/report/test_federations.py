"""Attendance, latencies, absences and clusters."""

import json

import pytest

from fedrax.report.federations import (
    absence_table,
    attendance_html,
    clusters_html,
    exchange_table,
    exchanges_of,
    latencies,
    outcomes_figure,
)
from fedrax.report.html import write_report
from fedrax.report.runs import Group, History, Run, group_runs, load_run, load_runs
from fedrax.runtime.distributed.dispatcher import Record
from fedrax.runtime.distributed.ledger import Ledger


@pytest.fixture
def federation(write_run, tmp_path):
    """A run whose log was written as a server writes it: agent 1 is lost in every second round."""
    run = write_run(tmp_path / "run", seeds=(0,), agents=2)
    ledger = Ledger(run / "exchanges.jsonl", lambda text: None, max_failures=None)
    for number in range(4):
        ledger.asked(number, [0, 1], enough=1, present=[0, 1])
        lost = number % 2 == 1
        ledger.write(
            number,
            [
                Record(0, "a", "answered", 1.0 + number, 0.5, 100, 50, ""),
                Record(1, "b", "absent" if lost else "answered", 0.0 if lost else 3.0, 0.0, 100, 0 if lost else 50, ""),
            ],
            {0: "a", 1: "b"}.get,
        )
    return run


def test_the_servers_log_becomes_a_line_of_each_agent(federation):
    headings, lines = exchange_table(exchanges_of(load_run(federation)))
    assert headings == [
        *("", "asked", "answered", "median time", "95 % within", "median work", "bytes down", "bytes up", "absent")
    ]
    assert lines == [
        ["agent 0", "4", "100 %", "2.50 s", "3.85 s", "0.500 s", "400 B", "200 B", "0"],
        ["agent 1", "4", "50 %", "3.00 s", "3.00 s", "0 s", "400 B", "100 B", "2"],
    ]


def test_a_torn_line_is_left_out(federation):
    with (federation / "exchanges.jsonl").open("a") as file:
        file.write('{"round": 4, "agent": 0, "outc')
    assert len(exchanges_of(load_run(federation))) == 8


def test_the_picture_has_a_row_of_each_agent_and_the_outcomes_that_occurred(federation):
    figure = outcomes_figure(exchanges_of(load_run(federation)))
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["agent 0", "agent 1"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["answered", "absent"]


def test_latencies_are_of_answers_and_of_many_agents_their_spread():
    entries = [
        {"round": number, "agent": agent, "outcome": "answered", "seconds": agent + 1.0}
        for number in range(2)
        for agent in range(20)
    ]
    assert latencies(entries)["slowest"] == {"x": [1, 2], "y": [20, 20]}
    assert latencies(entries)["median"]["y"] == [10.5, 10.5]
    few = latencies([*entries[:3], *entries[20:22], {"round": 1, "agent": 2, "outcome": "late", "seconds": 60.0}])
    assert few["agent 2"] == {"x": [1], "y": [3.0]}
    assert latencies(entries[:20]) == {}


def test_the_page_has_the_section_where_there_is_a_log(federation, write_run, tmp_path):
    assert "Who took part" in write_report([federation], tmp_path / "a.html").read_text()
    plain = write_run(tmp_path / "plain")
    assert "Who took part" not in write_report([plain], tmp_path / "b.html").read_text()
    assert attendance_html(group_runs(load_runs([plain]))) is None


def simulated(label, rows, agents=4, strategy="fedavg", **settings):
    config = {"strategy": {"kind": strategy}, "federation": {"agents": agents, **settings}}
    return Group(label, (Run("run", config, {}, {}, (History(0, tuple(rows), agents),)),))


def test_absences_of_a_simulation_are_counted_with_what_was_sent_in_vain():
    rows = [
        {"round": 0, "present": 4, "bytes_down": 100},
        {"round": 1, "present": 2, "excluded": [3], "bytes_down": 200},
    ]
    headings, lines = absence_table([simulated("dropout", rows), simulated("all", [{"round": 0, "present": 4}])])
    assert headings[-1] == "bytes down to the absent"
    assert lines == [["dropout", "4", "3", "25 %", "0.5", "0", "200 B"]]
    assert absence_table([simulated("half", [{"round": 0, "present": 2}], participation=0.5)]) is None
    poisson = simulated("poisson", [{"round": 0, "present": 3, "participants": 3}], participation=0.5)
    assert absence_table([poisson]) is None
    nobody = simulated("nobody", [{"round": 0, "present": 0, "participants": 0}], participation=0.5)
    assert absence_table([nobody]) is None, "nobody was asked, and nobody is absent"


def test_nobody_is_absent_where_one_learner_has_all_environments():
    alone = simulated("central", [{"round": 0, "present": 1}] * 4, strategy="central")
    assert absence_table([alone]) is None
    lost = simulated("central", [{"round": 0, "present": 1}, {"round": 1, "present": 0}], strategy="central")
    assert absence_table([lost])[1][0][1:4] == ["1", "0.5", "50 %"]
    few = simulated("few", [{"round": 0, "present": 1}], participation=0.01)
    assert absence_table([few]) is None, "of few agents one is asked at least"


def test_clusters_are_named_by_their_agents():
    rows = [{"round": 0, "cluster": [0, 0, 0, 0], "clusters": 1}, {"round": 1, "cluster": [0, 1, 0, 1], "clusters": 2}]
    made = clusters_html([simulated("clustered", rows), simulated("all", [{"round": 0}])])
    assert "<td>clustered</td><td>0</td><td>2</td><td>0, 2; 1, 3</td>" in made
    data = json.loads(made.partition('<script type="application/json">')[2].partition("</script>")[0])
    (line,) = data["groups"]
    assert (line["label"], line["x"], line["y"]) == ("clustered, seed 0", [1, 2], [1, 2])
    assert "<svg" not in clusters_html([simulated("one", rows[:1])])
    assert clusters_html([simulated("all", [{"round": 0}])]) is None
