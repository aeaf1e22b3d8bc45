"""Sweeps: which job comes next, and what processes have in common."""

import json
import os
import signal

import pytest
from sweep_files import TINY, written

import fedrax
from fedrax.sweep.attempts import Worker, may_share
from fedrax.sweep.order import Waiting
from fedrax.sweep.plan import read_plan
from fedrax.sweep.runner import run_plan
from fedrax.sweep.tasks import Task, tasks_of

SHAPES = """
[setups.one]
[setups.faster]
learner.learning_rate = 0.01
[setups.wide]
learner.hidden = [8]
[setups.slower]
learner.learning_rate = 0.0001
"""


def waiting(tmp_path, text=SHAPES):
    tasks = [Task(job) for job in read_plan(written(tmp_path, text)).jobs]
    return Waiting(tasks), {task.job.setup.name: task for task in tasks}


def record(task):
    task.job.directory.mkdir(parents=True, exist_ok=True)
    (task.job.directory / "metrics.jsonl").write_text(json.dumps({"round": 0}) + "\n")


def test_a_program_is_compiled_by_one_process_while_others_wait_for_it(tmp_path):
    jobs, task = waiting(tmp_path)
    assert jobs.take([], None) is task["one"]
    assert jobs.take([task["one"]], None) is task["wide"]  # Of another shape.
    assert jobs.take([task["one"], task["wide"]], None) is None
    record(task["one"])
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


def test_rows_of_an_earlier_start_are_no_sign_of_a_program(tmp_path):
    jobs, task = waiting(tmp_path)
    first = jobs.take([], None)
    record(first)
    first.rows_before = (first.job.directory / "metrics.jsonl").stat().st_size
    assert jobs.take([first], None) is task["wide"]


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
    outcome = run_plan(read_plan(written(tmp_path, text)))
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
