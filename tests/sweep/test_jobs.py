"""Sweeps: what becomes of their jobs, with stand-ins for training."""

import io
import json
import os
import re
import signal
import sys

import pytest

from fedrax.cli import main
from fedrax.errors import FedraxError
from fedrax.records.lock import held
from fedrax.sweeps import record, runner
from fedrax.sweeps.board import Board, show_plan
from fedrax.sweeps.plan import read_plan
from fedrax.sweeps.record import Record
from fedrax.sweeps.runner import run_plan
from fedrax.sweeps.tasks import Task, read_progress

from sweep_files import written

FINISH = """
import os, pathlib, sys
path = pathlib.Path(sys.argv[1])
path.mkdir(parents=True, exist_ok=True)
(path / "config.toml").write_text(sys.argv[2])
{body}
(path / "summary.json").write_text("{{}}")
"""


def stand_in(body=""):
    """A process that makes its run look finished, unless ``body`` ends it before."""
    program = FINISH.format(body=body)

    def command(task):
        return [sys.executable, "-S", "-c", program, str(task.job.directory), task.job.config.to_toml()]

    return command


def test_jobs_have_cores_of_their_own(tmp_path):
    path = written(tmp_path, "seeds = 3\njobs = 2\n[setups.a]")
    body = "print(sorted(os.sched_getaffinity(0)), os.environ['OMP_NUM_THREADS'], os.environ['NPROC'])"
    before = os.sched_getaffinity(0)
    outcome = run_plan(read_plan(path), command=stand_in(body))
    assert outcome.status == 0
    assert os.sched_getaffinity(0) == before
    lines = [task.job.log.read_text().splitlines()[-1] for task in outcome.tasks]
    available = sorted(before)
    allowed = {f"[{available[slot % len(available)]}] 1 1" for slot in (0, 1)}
    assert {*lines[:2]} == allowed
    assert lines[2] in allowed


def test_failures_are_tried_again_and_reported(tmp_path, capsys):
    path = written(tmp_path, "seeds = 1\njobs = 1\n[setups.bad]\n[setups.flaky]\n[setups.good]")
    body = """
print("first line")
if "/bad/" in str(path) or "/flaky/" in str(path) and not (path / "tried").exists():
    (path / "tried").touch()
    sys.exit("RuntimeError: boom")
"""
    outcome = run_plan(read_plan(path), retry=1, command=stand_in(body))
    assert outcome.status == 1
    assert [(task.state, task.attempts, task.exit_code) for task in outcome.tasks] == [
        ("failed", 2, 1),
        ("done", 2, 0),
        ("done", 1, 0),
    ]
    out = capsys.readouterr().out
    assert out.count("bad seed 0: failed, exit status 1: RuntimeError: boom") == 2  # Of two attempts, once each.
    assert f"bad seed 0: failed (attempt 2), see {tmp_path}/out/bad/seed-0.log" in out.splitlines()
    assert out.count("boom") == 3
    assert "flaky seed 0: failed, exit status 1: RuntimeError: boom" in out
    assert "2 done, 1 failed" in out
    assert f"fedrax report {tmp_path}/out" in out.splitlines()
    log = (tmp_path / "out" / "bad" / "seed-0.log").read_text()
    assert log.count("=== attempt") == 2
    record = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert [job["state"] for job in record["jobs"]] == ["failed", "done", "done"]
    assert record["jobs"][0]["reason"] == "RuntimeError: boom"

    outcome = run_plan(read_plan(path), command=stand_in())
    assert outcome.status == 0
    assert [task.attempts for task in outcome.tasks] == [3, 2, 1]


def test_a_run_that_learned_nothing_fails_again_where_the_sweep_is_run_again(tmp_path):
    path = written(tmp_path, "jobs = 1\n[setups.bad]\n[setups.good]")
    body = """
if "/bad/" in str(path):
    (path / "summary.json").write_text('{"failed": "at its end nothing was learned"}')
    sys.exit("at its end nothing was learned")
"""
    for attempt in (1, 2):
        outcome = run_plan(read_plan(path), command=stand_in(body))
        assert outcome.status == 1
        assert [(task.state, task.attempts) for task in outcome.tasks] == [("failed", attempt), ("done", 1)]
        assert outcome.tasks[0].reason == "at its end nothing was learned"


def test_what_does_not_stop_is_killed_and_what_never_started_was_not_interrupted(tmp_path, monkeypatch, capsys):
    path = written(tmp_path, "seeds = 3\njobs = 1\n[setups.a]")
    body = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
(path / "deaf").touch()
os.kill(os.getppid(), signal.SIGTERM)
time.sleep(1000)
"""
    monkeypatch.setattr(runner, "GRACE_SECONDS", 0.2)
    outcome = run_plan(read_plan(path), command=stand_in(body))
    assert outcome.status == 128 + signal.SIGTERM
    assert [(task.state, task.exit_code) for task in outcome.tasks] == [
        ("interrupted", -signal.SIGKILL),
        ("waiting", None),
        ("waiting", None),
    ]
    assert "stopping 1 running job" in (lines := capsys.readouterr().out.splitlines())
    assert lines[-3:-1] == ["1 interrupted, 2 not started", f"fedrax sweep {path} continues"]


def test_a_killed_run_is_told_as_that_and_that_it_is_tried_again(tmp_path, capsys):
    path = written(tmp_path, "seeds = 1\njobs = 1\n[setups.a]\n[setups.b]")
    body = 'print("last", flush=True); os.kill(os.getpid(), 9 if "/a/" in str(path) else 15)'
    assert run_plan(read_plan(path), command=stand_in(body)).status == 1
    lines = capsys.readouterr().out.splitlines()
    killed = "a seed 0: failed, killed by signal 9 (often: out of memory): last"
    assert f"{killed} ({tmp_path}/out/a/seed-0.log)" in lines
    assert f"b seed 0: failed, killed by signal 15: last ({tmp_path}/out/b/seed-0.log)" in lines
    assert lines[-1] == f"fedrax sweep {path} tries again what failed"


def test_a_sweep_runs_once_at_a_time(tmp_path, capsys):
    path = written(tmp_path, "[setups.a]")
    with held(tmp_path / "out"):
        assert main(["sweep", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "is in use" in error


def test_progress_is_read_from_the_tail_of_the_records(tmp_path):
    (job,) = read_plan(written(tmp_path, "[setups.a]", changes=["budget.trajectories=none", "budget.rounds=10"])).jobs
    records = tmp_path / "metrics.jsonl"
    assert read_progress(records, job.config).fraction == 0
    rows = [{"round": n, "return": n if n < 3 else None, "total_steps": 100 * n, "seconds": n} for n in range(5)]
    padding = json.dumps({"round": 0, "padding": "x" * 100_000})
    records.write_text("\n".join([padding, *map(json.dumps, rows), '{"round": 5, "ret']))
    found = read_progress(records, job.config)
    assert (found.fraction, found.last_return, found.steps, found.seconds) == (0.5, 2, 400, 4)


def test_the_return_of_a_finished_run_is_the_one_it_ended_with(tmp_path):
    changes = ["budget.trajectories=none", "budget.rounds=10"]
    (job,) = read_plan(written(tmp_path, "[setups.a]", changes=changes)).jobs
    job.directory.mkdir(parents=True)
    (job.directory / "metrics.jsonl").write_text(json.dumps({"seed": 0, "round": 8, "return": 3.0}) + "\n")
    task = Task(job)
    task.read_progress()
    assert task.progress.last_return == 3
    (job.directory / "summary.json").write_text(json.dumps({"seeds": [0], "final_return": 7.5}))
    task.read_progress()
    assert task.progress.last_return == 7.5


def test_the_table_shows_each_setup(tmp_path):
    plan = read_plan(
        written(tmp_path, "seeds = 3\n[setups.a]\n[setups.b]", changes=["budget.trajectories=none", "budget.rounds=10"])
    )
    tasks = [Task(job) for job in plan.jobs]
    now = 0.0
    stream = io.StringIO()
    with Board(tasks, stream=stream, terminal=True, clock=lambda: now) as board:
        for task in (tasks[1], tasks[3]):
            task.state = "running"
            task.job.directory.mkdir(parents=True)
            row = {"round": 4, "return": 12.5, "total_steps": 5_000_000, "seconds": 2.0}
            (task.job.directory / "metrics.jsonl").write_text(json.dumps(row) + "\n")
        tasks[0].state, tasks[2].state = "done", "failed"
        now = 60.0
        board.update()
    shown = [line.split() for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()).splitlines()]
    assert [row for row in shown if row[:1] == ["b"]][-1] == ["b", "2", "1", "0:", "50%", "1:", "50%", "12.5", "5.0M"]
    # Two runs' worth in a minute, and three are left.
    assert "1/6 done, 1:00, left 1:30" in stream.getvalue()


def test_a_request_to_stop_is_told_also_where_every_job_is_done(tmp_path):
    path = written(tmp_path, "seeds = 1\njobs = 1\n[setups.a]")

    def command(task):
        *head, program, directory, config = stand_in()(task)
        # It has written its summary when it is stopped.
        asks = "import signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(1000)"
        return [*head, f"{program}\n{asks}", directory, config]

    outcome = run_plan(read_plan(path), command=command)
    assert [task.state for task in outcome.tasks] == ["done"]
    assert (outcome.interrupted, outcome.stopped, outcome.status) == (0, signal.SIGTERM, 0)


WAITS_FOR_ITS_RECORD = """
import json, time
for _ in range(600):
    record = (path.parent.parent / "sweep.json").read_text()
    jobs = {job["seed"]: (job["state"], job["attempts"]) for job in json.loads(record)["jobs"]}
    if jobs[int(path.name[-1])] == ("running", 1):
        break
    time.sleep(0.05)
(path.parent.parent / f"seen-{path.name[-1]}.json").write_text(json.dumps(jobs))
"""


def test_the_record_is_there_while_jobs_run(tmp_path):
    """So that a sweep that is killed leaves one."""
    path = written(tmp_path, "seeds = 2\njobs = 1\n[setups.a]")
    assert run_plan(read_plan(path), command=stand_in(WAITS_FOR_ITS_RECORD)).status == 0
    seen = [json.loads((tmp_path / "out" / f"seen-{seed}.json").read_text()) for seed in (0, 1)]
    assert seen[0] == {"0": ["running", 1], "1": ["waiting", 0]}
    assert seen[1] == {"0": ["done", 1], "1": ["running", 1]}


def test_a_record_that_cannot_be_written_stops_no_job(tmp_path, monkeypatch):
    def refuse(*_):
        raise FedraxError("no space left")

    def states():
        return [job["state"] for job in json.loads((tmp_path / "out" / "sweep.json").read_text())["jobs"]]

    monkeypatch.setattr(record, "PAUSE", 0.0)
    plan = read_plan(written(tmp_path, "[setups.a]"))
    task = Task(plan.jobs[0])
    kept = Record(plan, [task])
    kept.write()
    task.state = "running"
    kept.changed()
    with monkeypatch.context() as full:
        full.setattr(record, "write_json", refuse)
        kept.keep_up()
    assert states() == ["waiting"]
    kept.keep_up()
    assert states() == ["running"]


def test_the_record_keeps_what_other_plans_ran_in_the_folder(tmp_path):
    for setup in ("a", "b"):
        run_plan(read_plan(written(tmp_path, f"seeds = 1\n[setups.{setup}]")), command=stand_in())
    record = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert [(job["setup"], job["state"]) for job in record["jobs"]] == [("a", "done"), ("b", "done")]


GOOD = {"setup": "a", "seed": 0, "seeds": [0], "attempts": 3, "seconds": 5.0, "state": "done", "log": "none"}
DAMAGE = {
    "no JSON": ("{", "it is not JSON", 1),
    "a list": ("[]", "it has no list of jobs", 1),
    "null": ("null", "it has no list of jobs", 1),
    "jobs null": ('{"jobs": null}', "it has no list of jobs", 1),
    "a number": (json.dumps({"jobs": [3, GOOD]}), "job 1: at ", 4),
    "no setup": (json.dumps({"jobs": [GOOD, {"seed": 0}]}), "job 2: at setup: field required", 4),
    "no seed": (json.dumps({"jobs": [GOOD, {"setup": "a"}]}), "job 2: at seed: field required", 4),
    "seeds no list": (json.dumps({"jobs": [{**GOOD, "seeds": 0}]}), "job 1: at seeds", 1),
    "attempts a text": (json.dumps({"jobs": [{**GOOD, "attempts": "3"}]}), "job 1: at attempts", 1),
    "log a number": (json.dumps({"jobs": [{**GOOD, "setup": "b", "log": 3}]}), "job 1: at log", 1),
    "no log": (json.dumps({"jobs": [{"setup": "a", "seed": 0, "attempts": 3}]}), "", 4),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_record_is_told_and_kept_and_written_anew(tmp_path, capsys, case):
    text, wrong, attempts = DAMAGE[case]
    path = written(tmp_path, "seeds = 1\n[setups.a]")
    out = tmp_path / "out"
    out.mkdir()
    (out / "sweep.json").write_text(text)
    assert run_plan(read_plan(path), command=stand_in()).status == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "is damaged" in line]
    assert len(told) == bool(wrong)
    assert all(f"{out / 'sweep.json'} is damaged ({wrong}" in line for line in told)
    assert (out / "sweep.damaged.json").exists() == bool(wrong)
    assert not wrong or (out / "sweep.damaged.json").read_text() == text
    jobs = json.loads((out / "sweep.json").read_text())["jobs"]
    assert [(job["setup"], job["state"], job["attempts"]) for job in jobs] == [("a", "done", attempts)]
    assert run_plan(read_plan(path), command=stand_in()).status == 0
    assert "is damaged" not in capsys.readouterr().out


def test_every_damaged_record_is_kept(tmp_path, capsys):
    path, out = written(tmp_path, "seeds = 1\n[setups.a]"), tmp_path / "out"
    out.mkdir()
    for text, name in (("first", "sweep.damaged.json"), ("second", "sweep.damaged-2.json")):
        (out / "sweep.json").write_text(text)
        assert run_plan(read_plan(path), command=stand_in()).status == 0
        assert f"kept as {name}" in capsys.readouterr().out
        assert (out / name).read_text() == text
    assert (out / "sweep.damaged.json").read_text() == "first"


def test_where_every_run_failed_no_report_is_suggested(tmp_path, capsys):
    path = written(tmp_path, "seeds = 2\n[setups.bad]")
    assert run_plan(read_plan(path), command=stand_in('sys.exit("boom")')).status == 1
    out = capsys.readouterr().out
    assert "2 failed" in out
    assert "fedrax report" not in out


def test_a_setting_that_begun_runs_do_not_follow_is_told(tmp_path, capsys):
    path = written(tmp_path, "seeds = 2\njobs = 1\n[setups.a]", together=True)
    assert run_plan(read_plan(path), command=stand_in()).status == 0
    assert "not applied" not in capsys.readouterr().out
    path = written(tmp_path, "seeds = 2\njobs = 1\n[setups.a]\nname = 'other'")
    outcome = run_plan(read_plan(path), command=stand_in())
    assert [task.state for task in outcome.tasks] == ["done"]
    seeds, name = (line for line in capsys.readouterr().out.splitlines() if "not applied" in line)
    assert seeds.startswith("seeds_per_run = 1 is not applied to what was begun with more seeds in a run (")
    assert f"({tmp_path}/out/a/seeds-0-1)" in seeds
    assert name.startswith("name = 'other' is not applied to what was begun under another one: a seeds 0 to 1 stay")


def test_what_all_setups_share_is_shown_once(tmp_path):
    def shown(text):
        plan, stream = read_plan(written(tmp_path, text, changes=["budget.rounds=10", "name=x y"])), io.StringIO()
        show_plan(plan, [Task(job) for job in plan.jobs], stream)
        return [line.strip() for line in stream.getvalue().splitlines()]

    # The grid's comes after what a setup sets itself, so it is shown in each row.
    lines = shown("[setups.a]\n[setups.b]\nbudget.rounds = 5\n[grid]\nfederation.agents = [3]")
    assert lines[0] == "all setups: budget.rounds=10 'name=x y'"
    assert [line.split() for line in lines[2:5]] == [
        ["a,federation.agents=3", "fedpg-br/cartpole", "federation.agents=3", "1"],
        ["b,federation.agents=3", "fedpg-br/cartpole", "budget.rounds=5", "1"],
        ["federation.agents=3"],
    ]
    assert not any(line.startswith("all setups") for line in shown("[setups.a]"))
