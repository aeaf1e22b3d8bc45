"""Sweeps: which job comes next, and what processes have in common."""

import json
import os
import signal
import sys

import pytest

import fedrax
from fedrax.sweeps import attempts, runner
from fedrax.sweeps.attempts import Worker, may_share
from fedrax.sweeps.order import Waiting
from fedrax.sweeps.plan import read_plan
from fedrax.sweeps.runner import run_plan
from fedrax.sweeps.tasks import Task, tasks_of

from sweep_files import TINY, written

SHAPES = """
[setups.one]
[setups.faster]
learner.learning_rate = 0.01
[setups.wide]
learner.hidden = [8]
[setups.slower]
learner.learning_rate = 0.0001
"""


def replaced(body, monkeypatch):
    """Has workers execute this Python in place of their own, with the number of the open file for their answers."""
    real = attempts.start

    def start(name, command, *rest, **named):
        return real(name, [sys.executable, "-S", "-c", body, command[-1]], *rest, **named)

    monkeypatch.setattr(attempts, "start", start)


def stand_in(task, body, monkeypatch):
    with monkeypatch.context() as patch:
        replaced(body, patch)
        return Worker(task, 1, os.open(os.devnull, os.O_RDONLY))


def waiting(tmp_path, text=SHAPES):
    tasks = [Task(job) for job in read_plan(written(tmp_path, text)).jobs]
    return Waiting(tasks), {task.job.setup.name: task for task in tasks}


def test_a_program_is_compiled_by_one_process_while_others_wait_for_it(tmp_path):
    jobs, task = waiting(tmp_path)
    assert jobs.take([], None) is task["one"]
    assert jobs.take([task["one"]], None) is task["wide"]  # Of another shape.
    assert jobs.take([task["one"], task["wide"]], None) is None
    jobs.compiled(task["one"])
    assert jobs.take([task["one"], task["wide"]], None) is task["faster"]


def test_a_program_that_was_never_run_is_compiled_by_the_next(tmp_path):
    jobs, task = waiting(tmp_path)
    jobs.take([], None)
    jobs.add(task["one"])  # Its first attempt failed.
    assert jobs.take([], None) is task["faster"]


def test_a_process_goes_on_with_what_it_has_compiled(tmp_path):
    jobs, task = waiting(tmp_path)
    assert jobs.take([], task["wide"]) is task["wide"]
    assert jobs.take([], task["wide"]) is task["one"]
    assert len(jobs) == 2


def test_every_setup_has_a_first_run_before_any_has_a_second(tmp_path):
    text = """
    seeds = 2
    [setups.narrow]
    [setups.wide]
    learner.hidden = [8]
    """
    tasks = [Task(job) for job in read_plan(written(tmp_path, text)).jobs]
    jobs, order = Waiting(tasks), []
    while jobs:
        order.append(jobs.take([], order[-1] if order else None))
    # And then the process goes on with what it has compiled last.
    assert [task.job.name for task in order] == ["narrow seed 0", "wide seed 0", "wide seed 1", "narrow seed 1"]


def test_a_worker_says_when_others_can_use_its_program(tmp_path, monkeypatch):
    (task,) = tasks_of(read_plan(written(tmp_path, "[setups.a]")))
    worker = stand_in(task, "import os, sys; sys.stdin.readline(); os.write(int(sys.argv[1]), b'compi')", monkeypatch)
    worker.give(task)
    worker.process.wait()
    assert worker.status() == 0
    assert not worker.compiled
    worker.close()
    worker = stand_in(
        task, "import os, sys; sys.stdin.readline(); os.write(int(sys.argv[1]), b'compiled\\n3\\n')", monkeypatch
    )
    worker.give(task)
    worker.process.wait()
    assert worker.status() == 3
    assert worker.compiled
    worker.close()


def test_what_a_dead_worker_started_does_not_hide_its_end(tmp_path, monkeypatch):
    (task,) = tasks_of(read_plan(written(tmp_path, "[setups.a]")))
    # The child inherits the pipe and lives on.
    body = "import os, sys, time; os.fork() or time.sleep(1000); sys.stdin.readline(); os._exit(4)"
    worker = stand_in(task, body, monkeypatch)
    worker.give(task)
    worker.process.wait()
    try:
        assert worker.status() == 4
    finally:
        os.killpg(worker.process.pid, signal.SIGKILL)
        worker.close()


def test_an_idle_worker_that_died_fails_no_job(tmp_path, monkeypatch):
    # It finishes its run, and dies once it has said so.
    body = """
import json, os, pathlib, shutil, sys
run = json.loads(sys.stdin.readline())
path = pathlib.Path(run["arguments"][run["arguments"].index("--out") + 1])
path.mkdir(parents=True, exist_ok=True)
(path / "config.toml").write_text("")
(path / "summary.json").write_text("{}")
os.write(int(sys.argv[1]), b"0\\n")
"""
    path = written(tmp_path, "jobs = 1\n[setups.a]\n[setups.b]\n[setups.c]")
    replaced(body, monkeypatch)
    ended = runner._Runner._ended

    def waits(self, slot, *rest, **named):
        self._running[slot].process.wait()
        ended(self, slot, *rest, **named)

    monkeypatch.setattr(runner._Runner, "_ended", waits)
    stopped = []
    monkeypatch.setattr(runner, "stop_all", lambda processes, *rest, **named: stopped.extend(processes))
    outcome = run_plan(read_plan(path))
    assert not stopped  # What has ended is not waited for.
    assert [(task.state, task.attempts) for task in outcome.tasks] == [("done", 1)] * 3


SERVES = """
import json, os, pathlib, sys
for line in sys.stdin:
    arguments = json.loads(line)["arguments"]
    path = pathlib.Path(arguments[arguments.index("--out") + 1])
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.toml").write_text("")
    (path / "summary.json").write_text(json.dumps({"process": os.getpid()}))
    os.write(int(sys.argv[1]), b"compiled\\n0\\n")
"""


def test_the_plans_of_a_session_share_processes_and_heed_a_stop_between_them(tmp_path, monkeypatch):
    replaced(SERVES, monkeypatch)
    plans = [read_plan(written(tmp_path, f"jobs = 1\n[setups.{name}]")) for name in "abc"]
    with runner.opened(tmp_path / "out") as session:
        outcomes = [run_plan(plan, session=session) for plan in plans[:2]]
        (worker,) = session.idle.values()
        os.kill(os.getpid(), signal.SIGTERM)
        last = run_plan(plans[2], session=session)
    assert [outcome.status for outcome in outcomes] == [0, 0]
    used = [json.loads((outcome.tasks[0].job.directory / "summary.json").read_text()) for outcome in outcomes]
    assert used == [{"process": worker.process.pid}] * 2
    assert worker.process.returncode is not None
    assert (last.status, last.tasks[0].attempts) == (128 + signal.SIGTERM, 0)


@pytest.mark.parametrize(
    ("change", "shares"), [("budget.rounds=2", True), ("environment.native=false", False), ("runtime=flower", False)]
)
def test_what_may_follow_another_run_in_a_process(change, shares):
    assert may_share(fedrax.resolve("fedpg-br/cartpole", [change])) == shares


@pytest.mark.training
def test_setups_that_differ_in_numbers_are_trained_by_one_process_that_compiles_once(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_LOG_COMPILES", "1")
    text = """
    jobs = 1
    [setups.one]
    [setups.other]
    learner.learning_rate = 0.01
    budget.rounds = 4
    [setups.wrong]
    learner.initial = "nowhere"
    [setups.third]
    learner.discount = 0.9
    """
    told = []
    monkeypatch.setattr(Waiting, "compiled", lambda self, task: told.append(task.job.setup.name))
    outcome = run_plan(read_plan(written(tmp_path, text)))
    assert {*told} == {"one", "other", "third"}  # The last one in a process of its own.
    states = {task.job.setup.name: task.state for task in outcome.tasks}
    assert states == {"one": "done", "other": "done", "wrong": "failed", "third": "done"}
    logs = {task.job.setup.name: task.job.log.read_text() for task in outcome.tasks}
    program = "Compiling jit(rounds)"
    assert program in logs["one"]
    assert program not in logs["other"]
    assert "return" in logs["other"]  # What a command prints.
    assert "nowhere" in outcome.failed[0].reason
    assert [len(fedrax.load(task.job.directory).metrics()) for task in outcome.tasks[:2]] == [3, 4]


@pytest.mark.faults
def test_a_worker_that_is_killed_loses_its_job_alone(tmp_path):
    (task,) = tasks_of(read_plan(written(tmp_path, "[setups.a]", changes=[*TINY, "budget.rounds=100000"])))
    worker = Worker(task, 1, os.open(os.devnull, os.O_RDONLY))
    worker.give(task)
    assert worker.status() is None
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    assert worker.status() == -signal.SIGKILL
    worker.close()
