"""`fedrax status`: where runs are, on a terminal."""

import json

from run_files import data, make_run, resumed, row, write

from fedrax.cli import main
from fedrax.records import lock
from fedrax.records.standing import Standing, fraction_done
from fedrax.watch.runs import Watched
from fedrax.watch.status import follow, standing_text


def test_a_damaged_run_takes_no_others_with_it(tmp_path, capsys):
    """Neither from the start, nor when another one is resumed."""
    good, bad = (make_run(tmp_path / name, [row(0)]) for name in ("good", "bad"))
    watched = Watched(tmp_path)
    first = data(watched)
    assert (first["total"], first["damaged"]) == (2, [])
    (bad / "config.toml").write_text("name = \n")
    resumed(good, [row(0), row(1)])
    then = data(watched, first["epoch"], first["next"])
    assert [each[:2] for each in then["rows"]] == [[0, 1], [0, 2]]
    assert "cannot be read" in then["damaged"][0]
    (good / "config.toml").write_text("name = \n")
    assert main(["status", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert f"{tmp_path}: 2 damaged" in shown
    assert shown.count("config.toml cannot be read") == 2


def test_a_sweep_is_over_when_its_process_is(tmp_path):
    make_run(tmp_path / "plain" / "seed-0", [row(0)])
    watched = Watched(tmp_path)
    with lock.held(tmp_path):
        assert standing_text(watched)[1] is False, "between two of its jobs nothing trains"
    assert standing_text(watched)[1] is True


def test_what_a_sweep_says_of_runs_without_a_process(tmp_path):
    for state in ("interrupted", "waiting", "failed"):
        make_run(tmp_path / state / "seed-0", [row(0)])
    jobs = [{"run": str(tmp_path / one / "seed-0"), "state": one} for one in ("interrupted", "waiting", "failed")]
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    found = data(Watched(tmp_path))["series"]
    assert {one["group"]: one["state"] for one in found} == {
        "interrupted": "stopped",
        "waiting": "waiting",
        "failed": "failed",
    }


def test_how_much_of_a_budget_is_used():
    budget = {"rounds": 10, "steps": 400, "trajectories": "none"}
    assert fraction_done({"round": 1, "total_steps": 100}, budget, 2) == 0.25
    assert fraction_done({"round": 1, "agent_steps": 100}, {"steps_per_agent": 100}, 2) == 0.5
    assert fraction_done({"round": 30}, budget, 2) == 1.0
    unknown = {"round": 1, "agent_steps": None, "total_steps": None}
    assert fraction_done(unknown, {"rounds": 4, "steps_per_agent": 100, "steps": 100}, 2) == 0.5
    assert Standing("training", 0.25, seconds=10.0).left == 30.0
    assert Standing("stopped", 0.25, seconds=10.0).left is None


def test_status_of_a_simulation_and_of_a_sweep(tmp_path, capsys):
    run = make_run(tmp_path / "sweep" / "plain" / "seed-0", [row(number) for number in range(5)])
    assert main(["status", str(run)]) == 0
    assert "seed 0  stopped     50%  5 rounds  return 40.0, best 40.0" in capsys.readouterr().out
    (make_run(tmp_path / "sweep" / "robust" / "seed-3", [row(9, 3)]) / "summary.json").write_text("{}")
    assert main(["status", str(tmp_path / "sweep")]) == 0
    shown = capsys.readouterr().out
    assert "sweep: 1 stopped, 1 finished" in shown
    assert "plain   seed 0" in shown
    assert "robust  seed 3  finished   100%" in shown


def test_a_finished_run_shows_the_return_it_ended_with(tmp_path, capsys):
    """Its last round is evaluated after the last row, as reports and the summary have it."""
    run = make_run(tmp_path / "runs" / "two", [row(4, 0), row(4, 1), row(5, 0, **{"return": None})], seeds=2)
    ended = {"seeds": [0, 1], "final_return": [35.5, 80.25]}
    (run / "summary.json").write_text(json.dumps(ended))
    watched = Watched(run)
    assert [(one["last_return"], one["best_return"]) for one in data(watched)["series"]] == [(35.5, 40), (80.25, 80.25)]
    assert main(["status", str(tmp_path / "runs")]) == 0
    assert "return 80.2, best 80.2" in capsys.readouterr().out
    ended["final_return"] = [36.5, float("nan")]
    (run / "summary.json").write_text(json.dumps(ended))
    assert [one["last_return"] for one in data(watched)["series"]] == [36.5, 41.0]
    for damaged in ("{", '{"seeds": 1}', '{"seeds": [0], "final_return": "x"}'):
        (run / "summary.json").write_text(damaged)
        assert [one["last_return"] for one in data(watched)["series"]] == [40.0, 41.0]


def test_status_is_followed_until_nothing_trains(tmp_path, capsys):
    run = make_run(tmp_path / "run", [row(0)])
    watched, waits = Watched(run), []

    def wait(seconds):
        waits.append(seconds)
        write(run, [row(len(waits))])
        if len(waits) == 3:
            (run / "summary.json").write_text("{}")

    with lock.held(run):
        follow(lambda: standing_text(watched), wait=wait)
    shown = capsys.readouterr().out
    assert len(waits) == 3
    assert shown.count("training") == 6, "the run's line and its seed's, three times"
    assert "finished   100%  4 rounds" in shown
