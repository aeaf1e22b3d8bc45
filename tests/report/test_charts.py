"""The data of charts, parameters of agents, and videos."""

import base64
import json

import numpy as np
import pytest

from fedrax.errors import FedraxError
from fedrax.records.across import rounds_done, write_across
from fedrax.records.rundir import RunDirectory
from fedrax.report import charts
from fedrax.report.across import across_figure, across_html
from fedrax.report.agents import parameters_of
from fedrax.report.charts import curves_chart
from fedrax.report.published import load
from fedrax.report.runs import Group, History, Run, group_runs, load_run, load_runs
from fedrax.report.videos import MOST_BYTES, videos_html


def expanded(column):
    if isinstance(column, list):
        return column
    return [column["from"] + place * column["by"] for place in range(column["count"])]


def test_a_curves_chart_holds_every_evaluation_over_every_cost(write_run, tmp_path):
    groups = group_runs([load_run(write_run(tmp_path / "a", seeds=(0, 1), without=("bytes_up",)))])
    chart = curves_chart(groups, {}, statistic="iqm", smoothing=1)
    assert [name for name, _ in chart["x"]] == ["trajectories", "round", "steps_per_agent", "total_steps", "seconds"]
    assert chart["y"] == [("return", "evaluation return")]
    (group,) = chart["groups"]
    assert [seed["y"]["return"] for seed in group["seeds"]] == [[100, 200, 300, 400], [110, 210, 310, 410]]
    first = group["seeds"][0]["x"]
    assert first["round"] == {"from": 1, "by": 1, "count": 4}
    assert expanded(first["trajectories"]) == [100, 200, 300, 400]
    assert expanded(first["seconds"]) == [15, 30, 45, 60]


def test_published_points_stand_over_their_own_axis_in_the_groups_colour(write_run, tmp_path):
    series = load("fedpg-br-cartpole")["FedPG-BR K=10"]
    group = Group("ours", (load_run(write_run(tmp_path / "a")),))
    ours, theirs = curves_chart([group], {"ours": series}, statistic="mean", smoothing=1)["groups"]
    assert theirs["axis"] == "trajectories"
    assert (theirs["x"], theirs["y"]) == (list(series.x), list(series.y))
    assert theirs["colour"] == ours["colour"]


def test_a_long_run_is_thinned_to_its_last_evaluation(write_run, tmp_path, monkeypatch):
    monkeypatch.setattr(charts, "MOST_POINTS", 10)
    monkeypatch.setattr(charts, "LEAST_OF_SEED", 3)
    group = Group("ours", (load_run(write_run(tmp_path / "a", rounds=100)),))
    seeds = curves_chart([group], {}, statistic="iqm", smoothing=1)["groups"][0]["seeds"]
    for seed in seeds:
        assert len(seed["y"]["return"]) == 3
        assert seed["y"]["return"][-1] == 100 * 100 + 10 * seed["seed"]
        assert expanded(seed["x"]["round"])[-1] == 100


def test_a_long_run_is_smoothed_before_it_is_thinned(write_run, tmp_path, monkeypatch):
    """The page would take means over other evaluations than the picture beside it."""
    monkeypatch.setattr(charts, "MOST_POINTS", 10)
    monkeypatch.setattr(charts, "LEAST_OF_SEED", 3)
    group = Group("ours", (load_run(write_run(tmp_path / "a", rounds=100)),))
    chart = curves_chart([group], {}, statistic="iqm", smoothing=5)
    assert (chart["smoothing"], chart["thinned"]) == (1, True)
    first = chart["groups"][0]["seeds"][0]
    assert first["y"]["return"] == [100 * round - 200 for round in expanded(first["x"]["round"])]
    whole = curves_chart(
        [Group("few", (load_run(write_run(tmp_path / "b", rounds=3)),))], {}, statistic="iqm", smoothing=5
    )
    assert (whole["smoothing"], whole["thinned"]) == (5, False)


def drawn(label, draws, returns):
    rows = ({"round": 0, "return": 1.0, "agent_returns": returns},)
    return Group(label, (Run("run", {}, {"draws": draws}, {}, (History(0, rows, len(returns)),)),))


def test_parameters_stand_beside_returns_and_equal_ones_are_left_out():
    draws = [[{"g": 9.0, "m": 1.0, "task": "a"}, {"g": 11.0, "m": 1.0, "task": "b"}]]
    groups = [drawn("a", draws, [1.0, 2.0]), drawn("b", draws, [3.0, 5.0]), drawn("other", [], [0.0])]
    (found,) = parameters_of(groups)
    headings, lines = found.table()
    assert headings == ["", "g", *(f"final return in its own environment: {label}" for label in "ab")]
    assert lines == [["agent 0", "9", "1", "3"], ["agent 1", "11", "2", "5"]]
    chart = found.chart()
    assert chart["x"] == [("g", "g")]
    assert chart["groups"][1]["values"] == {"g": [9, 11], "return": [3, 5]}
    assert chart["groups"][1]["names"] == ["agent 0", "agent 1"]
    assert [np.asarray(line.get_ydata()).tolist() for line in found.figure().axes[0].lines] == [[1, 2], [3, 5]]


def test_every_seed_stands_beside_what_was_drawn_for_it():
    """Seeds take the draws in turn from the run's first; runs of other seeds have other draws."""
    one, two = ([{"g": low}, {"g": low + 1.0}] for low in (9.0, 20.0))
    histories = tuple(
        History(seed, ({"round": 0, "return": 1.0, "agent_returns": [float(seed), float(-seed)]},), 2)
        for seed in (5, 6, 7)
    )
    first = Run("a", {"seed": 5}, {"draws": [one, two]}, {}, histories)
    alone = History(9, ({"round": 0, "return": 1.0, "agent_returns": [90.0, 91.0]},), 2)
    second = Run("b", {"seed": 9}, {"draws": [two]}, {}, (alone,))
    found = parameters_of([Group("ours", (first, second))])
    assert [each.drawn["g"] for each in found] == [[9, 10], [20, 21]]
    assert [each.seeds for each in found] == [[5, 7], [6, 9]]
    assert [each.returns["ours"].tolist() for each in found] == [[6, -6], [48, 42.5]]


@pytest.mark.parametrize("draws", [None, [], [[]], [[{"g": 9.0}, {"g": 9.0}]], [{"length": 0.5}]])
def test_environments_that_do_not_differ_have_no_parameters(draws):
    assert parameters_of([drawn("a", draws, [1.0, 2.0])]) == []


def test_small_videos_are_in_the_page_and_large_ones_are_named(write_run, tmp_path):
    run = write_run(tmp_path / "a")
    groups = group_runs(load_runs([run]))
    assert videos_html(groups) is None
    (run / "video.mp4").write_bytes(b"a video")
    (run / "long.mp4").write_bytes(bytes(MOST_BYTES + 1))
    made = videos_html(groups)
    assert made.count("<video") == 1
    assert f"data:video/mp4;base64,{base64.b64encode(b'a video').decode()}" in made
    assert "long.mp4 (300 kB)" in made


def test_a_charts_json_is_json(write_run, tmp_path):
    run = write_run(tmp_path / "a")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) | ({"return": None} if number < 3 else {}) for number, line in enumerate(lines)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chart = curves_chart(group_runs(load_runs([run])), {}, statistic="iqm", smoothing=1)
    assert chart["groups"][0]["seeds"][0]["y"]["return"] == [None, 200, 300, 400]


def test_maps_of_every_policy_in_every_environment(write_run, tmp_path):
    run = write_run(tmp_path / "a")
    groups = group_runs(load_runs([run]))
    assert across_html(groups) is None
    returns = {0: np.array([[10.0, 2.0], [4.0, 30.0]]), 1: np.array([[20.0, 4.0], [6.0, 50.0]])}
    write_across(run, returns, episodes=7, policy="last", rounds=rounds_done(RunDirectory(run)))
    made = across_html(groups)
    assert (
        "&#39;last&#39; after 4 rounds, 7 episodes of each pair, the mean over 2 seeds. In its agent&#39;s own" in made
    )
    assert "reaches 27.5 on average, in others&#39; 4." in made
    assert "has gone on" not in made
    for policy, told in (("last", True), ("best", True), (2, False)):
        write_across(run, returns, episodes=7, policy=policy, rounds=3)
        assert ("The run has gone on since, to 4 rounds" in across_html(groups)) is told
    figure = across_figure(np.array([[10.0, 2.0], [4.0, 30.0]]))
    assert [text.get_text() for text in figure.axes[0].texts] == ["10", "2", "4", "30"]
    shared = across_figure(np.full((1, 30), 3.0))
    assert len(shared.axes) == 1  # Of equal returns there is no colour bar.
    assert len(shared.axes[0].texts) == 0


@pytest.mark.parametrize(
    "text", ["{}", '{"returns": {"0": [1, 2]}, "episodes": 1, "policy": "last"}', '{"returns": []}']
)
def test_a_damaged_record_of_them_is_told_in_one_line(text, write_run, tmp_path):
    run = write_run(tmp_path / "a")
    (run / "across.json").write_text(text)
    with pytest.raises(FedraxError, match=r"across\.json is damaged: .*; delete it, or evaluate again"):
        across_html(group_runs(load_runs([run])))
