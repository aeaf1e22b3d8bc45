"""Sweeps: what a file means, and what becomes of its jobs. Scheduling is tested with stand-ins for training."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

import fedrax
from fedrax import api
from fedrax.cli import main
from fedrax.sweep import processes, runner
from fedrax.sweep.board import Board
from fedrax.sweep.plan import read_plan
from fedrax.sweep.runner import command_of, run_plan
from fedrax.sweep.tasks import Task, read_progress, tasks_of

TINY = [
    "budget.trajectories=none",
    "budget.rounds=3",
    "federation.agents=2",
    "environment.horizon=20",
    "evaluation.episodes=1",
    "strategy.batch_min=2",
    "strategy.batch_max=2",
]
DEADLINE = 120.0


def written(folder, text, name="sweep.toml", preset="fedpg-br/cartpole", changes=TINY):
    """A sweep's file in ``folder``, its ``out`` there too."""
    path = folder / name
    path.write_text(f'preset = "{preset}"\nout = "{folder / "out"}"\nset = {json.dumps(changes)}\n{text}')
    return path


def until(condition, process=None):
    """Waits for a condition, which a process that ended can no longer bring about."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None
        time.sleep(0.05)


# What a file means.


def test_a_file_becomes_setups_times_seeds(tmp_path):
    path = written(
        tmp_path,
        """
        seeds = [3, 5]
        jobs = 4
        [setups.plain]
        [setups.robust]
        attack.kind = "alie"
        "attack.agents" = 1
        set = ["aggregator=krum"]
        [setups.other]
        preset = "fedpg-br/halfcheetah"
        """,
    )
    plan = read_plan(path)
    assert [setup.name for setup in plan.setups] == ["plain", "robust", "other"]
    assert [(job.setup.name, job.seed) for job in plan.jobs[:4]] == [
        ("plain", 3),
        ("robust", 3),
        ("other", 3),
        ("plain", 5),
    ]
    robust = plan.jobs[4]
    assert robust.overrides[len(TINY) :] == (
        "attack.kind=alie",
        "attack.agents=1",
        "aggregator=krum",
        "seeds=1",
        "seed=5",
    )
    assert robust.config == fedrax.resolve("fedpg-br/cartpole", robust.overrides)
    assert robust.config.aggregator["kind"] == "krum"
    assert robust.directory == tmp_path / "out" / "robust" / "seed-5"
    assert robust.log == tmp_path / "out" / "robust" / "seed-5.log"
    assert plan.jobs[2].config.environment.id.startswith("HalfCheetah")
    assert plan.at_once == 4
    assert read_plan(path, jobs=1).at_once == 1


def test_where_a_sweep_lies_and_how_many_seeds_it_has(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('preset = "fedpg-br/cartpole"\nseeds = 2\n[setups.a]')
    assert [str(job.directory) for job in read_plan(path).jobs] == [
        f"runs/sweeps/mine/a/seed-{seed}" for seed in (0, 1)
    ]


def test_a_preset_beside_the_file_is_found(tmp_path):
    (tmp_path / "base.toml").write_text("budget.rounds = 7")
    (job,) = read_plan(written(tmp_path, "[setups.a]", preset="base.toml", changes=[])).jobs
    assert job.config.budget.rounds == 7


def test_a_grid_multiplies_every_setup(tmp_path):
    plan = read_plan(
        written(
            tmp_path,
            """
            [setups.a]
            federation.agents = 9
            [setups.b]
            [grid]
            federation.agents = [3, 4]
            "learner.hidden" = [[8], [16, 16]]
            """,
        )
    )
    assert [setup.name for setup in plan.setups][:3] == [
        "a,federation.agents=3,learner.hidden=-8-",
        "a,federation.agents=3,learner.hidden=-16-16-",
        "a,federation.agents=4,learner.hidden=-8-",
    ]
    assert len(plan.jobs) == 8
    assert plan.jobs[0].config.federation.agents == 3
    assert list(plan.jobs[1].config.learner["hidden"]) == [16, 16]


@pytest.mark.parametrize(
    "value", [True, 3, 2.5e-4, "plain", "3", "two words", 'a "quote"', ["a", 1.5], {"low": 0.5, "x y": [1, "2"]}, None]
)
def test_values_survive_as_overrides(value):
    from fedrax.config import parse_override
    from fedrax.sweep.plan import _override

    found = parse_override(_override("environment.heterogeneity", [value]))["environment"]["heterogeneity"]
    assert found == [value] or value is None
    assert parse_override(_override("x.y", value))["x"]["y"] == ("none" if value is None else value)


@pytest.mark.parametrize(
    ("text", "needles"),
    [
        ("[setups.a]\n[setups.last]\nfederation.agent = 3", ["setup 'last'", "did you mean 'agents'"]),
        ('[setups.last]\nset = ["attack=alias"]', ["setup 'last'", "did you mean 'alie'"]),
        ('[setups.last]\npreset = "fedpg-br/cartpol"', ["setup 'last'", "did you mean 'fedpg-br/cartpole'"]),
        ("", ["no setups", "[setups.NAME]"]),
        ("setup.a = 1", ["unknown key 'setup'", "did you mean 'setups'"]),
        ("seeds = 0\n[setups.a]", ["seeds = 0", "from 1"]),
        ("seeds = [1, 1]\n[setups.a]", ["seeds = [1, 1]", "different"]),
        ("jobs = true\n[setups.a]", ["jobs = True", "whole number"]),
        ("setups = 3", ["setups = 3", "table"]),
        ("[setups]\na = 3", ["a = 3", "table"]),
        ("[setups.'a/b']", ["'a/b'", "letters"]),
        ("[setups.a]\nseed = 3", ["setup 'a'", "seed"]),
        ("[setups.a]\nset = 3", ["setups.a.set = 3", "key=value"]),
        ('[setups.a]\nset = ["attack"]', ["'attack'", "key=value"]),
        ("[setups.a]\n[grid]\nfederation.agents = 3", ["grid.federation.agents = 3", "list"]),
        ('[setups.a]\n[grid]\nname = ["a b", "a/b"]', ["two setups", "a,name=a-b"]),
        ("[setups.a", ["not valid TOML"]),
    ],
)
def test_a_mistake_in_a_file_is_one_line(tmp_path, capsys, text, needles):
    path = written(tmp_path, text)
    assert main(["sweep", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for needle in [str(path), *needles]:
        assert needle in error
    assert not (tmp_path / "out").exists()


def test_a_mistake_on_the_command_line_is_one_line(tmp_path, capsys):
    path = str(written(tmp_path, "[setups.a]"))
    for arguments, needle in (
        ([path, "--jobs", "0"], "jobs = 0"),
        ([path, "--retry", "-1"], "retry = -1"),
        ([str(tmp_path / "nothing.toml")], "No such file"),
    ):
        assert main(["sweep", *arguments]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert needle in error


REFERENCE = {
    "num_runs": 5,
    "setups": {
        "mdpo_2_linked": {
            "gym-id": "MiniGrid-SimpleCrossingS9N2-v0",
            "use-gym-id-in-run-name": "True",
            "total-timesteps": 5000000,
            "n-agents": 3,
            "local-updates": 32,
            "num-envs": 4,
            "objective-mode": 4,
            "comm-penalty-coeff": "0.1",
            "comm-matrix-config": "matrices/3_agents.json",
            "vf-coef": 0.001,
            "target-kl": None,
            "track": True,
            "wandb-project-name": "FedRL",
            "cuda": False,
            "seed": 7,
        },
        "clip_solo": {"--objective_mode": "2", "use-comm-penalty": "false", "anneal-lr": "False", "penalty-coeff": 0.4},
        "averaged": {"use-comm-penalty": False, "average-weights": True, "policy-aggregation-mode": "average_return"},
        "both": {"average-weights": True, "policy-aggregation-mode": "scalar_product", "sum-kl-divergencies": True},
    },
}


@pytest.fixture
def unresolved(monkeypatch):
    """Translating does not depend on what resolves."""
    monkeypatch.setattr("fedrax.sweep.plan.resolve", lambda *_: fedrax.resolve("fedpg-br/cartpole"))


def test_the_references_files_are_translated(tmp_path, unresolved):
    (tmp_path / "matrices").mkdir()
    (tmp_path / "matrices" / "3_agents.json").write_text("{}")
    path = tmp_path / "04_02_3.json"
    path.write_text(json.dumps(REFERENCE))
    plan = read_plan(path)
    assert {job.seed for job in plan.jobs} == {1, 2, 3, 4, 5}
    assert {job.setup.preset for job in plan.jobs} == {"fedppo/simple-crossing"}
    mdpo, clip, averaged, both = ({*setup.overrides} for setup in plan.setups)
    assert mdpo == {
        "strategy=neighbours",
        "strategy.coefficient=0.1",
        "strategy.weights=fixed",
        f"strategy.topology={tmp_path / 'matrices' / '3_agents.json'}",
        "environment.id=MiniGrid-SimpleCrossingS9N2-v0",
        "environment.copies=4",
        "federation.agents=3",
        "federation.local_updates=32",
        "budget.steps_per_agent=5000000",
        "learner.num_steps=128",
        "learner.num_minibatches=4",
        "learner.update_epochs=4",
        "learner.learning_rate=0.00025",
        "learner.anneal_learning_rate=true",
        "learner.discount=0.99",
        "learner.gae_lambda=0.95",
        "learner.normalise_advantages=true",
        "learner.objective=mdpo",
        "learner.clip_coefficient=0.2",
        "learner.clip_value_loss=true",
        "learner.entropy_coefficient=0.01",
        "learner.value_coefficient=0.001",
        "learner.max_gradient_norm=0.5",
        "learner.target_kl=none",
        "learner.kl_coefficient=0.0",
        "strategy.direction=mdpo",
        "strategy.pool=arithmetic",
    }
    assert clip >= {
        "strategy=local",
        "learner.objective=clip",
        "learner.kl_coefficient=0.4",
        "learner.anneal_learning_rate=false",
        "environment.id=CartPole-v1",
    }
    assert not any(text.startswith("strategy.") for text in clip)
    assert averaged >= {
        "strategy=gossip",
        "strategy.weights=return",
        "strategy.topology=complete",
        "learner.kl_coefficient=1.0",
    }
    assert not any(text.startswith("strategy.coefficient") for text in averaged)
    assert both >= {
        "strategy=neighbours",
        'strategy.average=["torso", "actor", "critic"]',
        "strategy.weights=similarity",
        "strategy.direction=mdpo",
        "strategy.pool=mean-of-kls",
    }
    (note,) = plan.notes
    assert note.endswith("cuda, track, use-gym-id-in-run-name, wandb-project-name")


@pytest.mark.parametrize(
    ("flags", "needles"),
    [
        ({"n-agent": 3}, ["setup 'x'", "did you mean 'n-agents'"]),
        ({"objective-mode": 5}, ["objective-mode", "'5'", "1, 2, 3, 4"]),
        ({"anneal-lr": "yes"}, ["anneal-lr = 'yes'", "true or false"]),
        ({"comm-matrix-config": "nowhere.json"}, ["nowhere.json", "no file"]),
        (3, ["x = 3", "table"]),
    ],
)
def test_a_mistake_in_a_references_file_is_one_line(tmp_path, capsys, unresolved, flags, needles):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"num_runs": 1, "setups": {"x": flags}}))
    assert main(["sweep", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for needle in needles:
        assert needle in error


# Scheduling, with stand-ins for training.

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
    assert "bad seed 0: failed (attempt 2), exit status 1: RuntimeError: boom" in out
    assert "flaky seed 0: failed, exit status 1: RuntimeError: boom" in out
    assert "2 done, 1 failed" in out
    assert f"fedrax report {tmp_path}/out/bad" in out
    log = (tmp_path / "out" / "bad" / "seed-0.log").read_text()
    assert log.count("=== attempt") == 2
    record = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert [job["state"] for job in record["jobs"]] == ["failed", "done", "done"]
    assert record["jobs"][0]["reason"] == "RuntimeError: boom"

    outcome = run_plan(read_plan(path), command=stand_in())
    assert outcome.status == 0
    assert [task.attempts for task in outcome.tasks] == [3, 2, 1]


def test_what_does_not_stop_is_killed(tmp_path, monkeypatch):
    path = written(tmp_path, "seeds = 2\njobs = 1\n[setups.a]")
    body = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
(path / "deaf").touch()
os.kill(os.getppid(), signal.SIGTERM)
time.sleep(1000)
"""
    monkeypatch.setattr(runner, "GRACE_SECONDS", 0.2)
    outcome = run_plan(read_plan(path), command=stand_in(body))
    assert outcome.status == 130
    assert [(task.state, task.exit_code) for task in outcome.tasks] == [
        ("interrupted", -signal.SIGKILL),
        ("interrupted", None),
    ]


def test_a_sweep_runs_once_at_a_time(tmp_path, capsys):
    path = written(tmp_path, "[setups.a]")
    with processes.locked(tmp_path / "out"):
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
    assert read_progress(records, job.config) == (0.5, 2, 400, 4)


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


# Sweeps that train.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two setups and two seeds, trained; and a setup that fails in its own process."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "plugin.py").write_text('import sys\nif "train" in sys.argv:\n    raise RuntimeError("no such luck")\n')
    text = f"""
    seeds = 2
    jobs = 2
    [setups.plain]
    [setups.three]
    federation.agents = 3
    [setups.bad]
    plugins = ["{folder / "plugin.py"}"]
    """
    path = written(folder, text)
    return folder, path, api.sweep(path, retry=1)


def test_a_sweep_trains_its_setups(trained, capsys):
    folder, path, outcome = trained
    assert outcome.status == 1
    for task in outcome.tasks:
        bad = task.job.setup.name == "bad"
        assert (task.state, task.attempts) == (("failed", 2) if bad else ("done", 1)), task.job.log.read_text()
        if bad:
            assert task.reason == "RuntimeError: no such luck"
        else:
            run = fedrax.load(task.job.directory)
            assert run.config == task.job.config
            assert run.summary()["seeds"] == [task.job.seed]
    assert main(["sweep", str(path), "--dry-run"]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["plain", "fedpg-br/cartpole", "budget.trajectories=none", "2"] in shown
    assert len(list((folder / "out").glob("*/seed-*/policy.safetensors"))) == 4


def test_starting_again_does_only_what_is_missing(trained):
    _, path, outcome = trained
    before = {path: path.stat().st_mtime_ns for path in (outcome.out / "plain").rglob("*")}
    started = []

    def command(task):
        started.append(task.job.name)
        return [sys.executable, "-S", "-c", "raise SystemExit(2)"]

    again = run_plan(read_plan(path), command=command)
    assert sorted(started) == ["bad seed 0", "bad seed 1"]
    assert {path: path.stat().st_mtime_ns for path in (outcome.out / "plain").rglob("*")} == before
    assert [task.attempts for task in again.tasks if task.state == "done"] == [1] * 4


def test_a_run_configured_otherwise_is_refused(trained, tmp_path, capsys):
    folder, _, _ = trained
    shutil.copytree(folder / "out" / "plain", tmp_path / "out" / "plain")
    path = written(tmp_path, "[setups.plain]\nlearner.learning_rate = 0.5")
    assert main(["sweep", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for needle in ("plain seed 0", "learner.learning_rate = 0.001", "0.5"):
        assert needle in error


@pytest.mark.faults
def test_an_interrupted_sweep_goes_on_where_it_was(tmp_path):
    changes = [*TINY, "budget.rounds=100000", "checkpoint.every=2"]
    path = written(tmp_path, "jobs = 2\n[setups.a]\n[setups.b]", changes=changes)
    run = tmp_path / "out" / "a" / "seed-0"
    log = run.with_name("seed-0.log")

    def rows():
        records = run / "metrics.jsonl"
        return records.read_bytes().count(b"\n") if records.exists() else 0

    def interrupted_once(condition):
        process = subprocess.Popen(
            [sys.executable, "-m", "fedrax.cli", "sweep", str(path), "--jobs", "1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        until(condition, process)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=DEADLINE)
        assert process.returncode == 130, out
        return out

    out = interrupted_once(lambda: len(list((run / "checkpoints").glob("checkpoint-*.safetensors"))) > 1)
    assert "a seed 0: interrupted" in out
    assert f"fedrax sweep {path} continues" in out
    with processes.locked(tmp_path / "out"):
        pass  # No process of the sweep is left.
    (first, other) = tasks_of(read_plan(path))
    assert (first.state, other.state, other.started) == ("waiting", "waiting", False)
    assert first.progress.fraction > 0
    assert command_of(first)[3:] == ["resume", str(run), "--quiet"]
    before = rows()

    interrupted_once(lambda: rows() > before)
    assert log.read_text().count("=== attempt") == 2
    rounds = [row["round"] for row in fedrax.load(run).metrics()]
    assert rounds == list(range(len(rounds)))
    (entry, _) = json.loads((tmp_path / "out" / "sweep.json").read_text())["jobs"]
    assert (entry["state"], entry["attempts"]) == ("interrupted", 2)
