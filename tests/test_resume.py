"""A run that is killed and resumed equals the run that never was, bit for bit. The killed process is a real one."""

import signal
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

import fedrax

KILLER = """
import os, signal, sys
import fedrax.runtime.training as training

real, calls = training.{function}, 0

def fatal(*arguments, **named):
    global calls
    calls += 1
    if calls == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **named)

training.{function} = fatal
from fedrax.cli import main
main(sys.argv[1:])
"""
"""Trains, and kills its own process -9 just before the given call."""

BASE = [
    "federation.agents=4",
    "attack=random-noise",
    "attack.agents=1",
    "strategy.batch_min=2",
    "strategy.batch_max=4",
    "budget.trajectories=none",
    "budget.rounds=9",
    "checkpoint.every=3",
    "environment.horizon=40",
    "evaluation.episodes=2",
]
NATIVE = ["fedpg-br/cartpole", *BASE, "federation.participation=0.75", "federation.dropout=0.2", "seeds=2"]
HOST = [
    "fedpg-br/cartpole",
    *BASE,
    "environment.native=false",
    "environment.backend=gymnasium",
    "environment.num_envs=2",
]
REPLAY = [
    "fedtd3/pendulum",
    "budget.steps_per_agent=none",
    "budget.rounds=9",
    "checkpoint.every=3",
    "federation.agents=3",
    "federation.local_updates=8",
    "evaluation.every=3",
    "evaluation.episodes=2",
    "environment.horizon=20",
    *(f"learner.{name}={value}" for name, value in {"batch_size": 8, "learning_starts": 8, "buffer_size": 64}.items()),
    *(f"learner.{part}_layers=[8]" for part in ("actor", "feature", "head")),
]
POISSON = [*REPLAY, "strategy=fedavg", "federation.sampling=poisson", "federation.participation=0.5"]
PRIVATE = [
    *(*REPLAY, "strategy=fedavg", "strategy.actor_every=1", "privacy.unit=agent", "privacy.noise=1"),
    *("privacy.clip=0.1", "privacy.clip_quantile=0.5"),
]
COMPRESSED = [*REPLAY, "strategy=fedavg", "strategy.actor_every=1", "compression=top-k", "compression.share=0.1"]


def records(path):
    """The rows without what differs from one execution to the next."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in fedrax.load(path).metrics()]


SETUPS = {
    "native": NATIVE,
    "host": HOST,
    "replay": REPLAY,
    "poisson": POISSON,
    "private": PRIVATE,
    "compressed": COMPRESSED,
}


ALWAYS = ("native", "replay", "private")
"""The setups that are not tested among the faults alone."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(setup, id=name, marks=[] if name in ALWAYS else [pytest.mark.faults])
        for name, setup in SETUPS.items()
    ],
)
def uninterrupted(request, tmp_path_factory):
    run = fedrax.train(
        request.param[0], request.param[1:], out=tmp_path_factory.mktemp("whole") / "run", progress=False
    )
    return run, request.param


@pytest.mark.training
@pytest.mark.parametrize(
    ("function", "call"),
    [
        pytest.param("save_checkpoint", 2, id="rows written, checkpoint not"),
        pytest.param("save_checkpoint", 1, id="before the first checkpoint", marks=pytest.mark.faults),
        pytest.param("write_summary", 1, id="all but the summary", marks=pytest.mark.faults),
        pytest.param("begin_manifest", 1, id="before the manifest", marks=pytest.mark.faults),
    ],
)
def test_killed_and_resumed_equals_uninterrupted(uninterrupted, tmp_path, function, call):
    whole, overrides = uninterrupted
    path = tmp_path / "run"
    program = KILLER.format(function=function, call=call)
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            program,
            "train",
            *overrides,
            "--out",
            str(path),
            "--quiet",
        ],
        check=False,
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (path / "summary.json").exists()

    resumed = fedrax.resume(path, progress=False)
    assert records(path) == records(whole.path)
    for name in ("policy.safetensors", "best.safetensors"):
        ours, theirs = load_file(path / name), load_file(whole.path / name)
        assert ours.keys() == theirs.keys()
        for leaf in ours:
            np.testing.assert_array_equal(ours[leaf], theirs[leaf])
    same = {k: v for k, v in resumed.summary().items() if not k.startswith("seconds")}
    assert same == {k: v for k, v in whole.summary().items() if not k.startswith("seconds")}
    assert all(len(list(folder.iterdir())) == 1 for folder in (path / "tensorboard").iterdir())


@pytest.mark.faults
def test_a_damaged_checkpoint_costs_only_its_own_rounds(uninterrupted, tmp_path):
    """The newest checkpoint is torn, as by a power cut: the one before is taken, and the end is the same."""
    whole, overrides = uninterrupted
    path = tmp_path / "run"
    program = KILLER.format(function="write_summary", call=1)
    command = [
        sys.executable,
        "-c",
        program,
        "train",
        *overrides,
        "--out",
        str(path),
        "--quiet",
    ]
    subprocess.run(command, check=False, capture_output=True)
    newest = path / "checkpoints" / "checkpoint-9.safetensors"
    newest.write_bytes(newest.read_bytes()[:-7])
    fedrax.resume(path, progress=False)
    assert records(path) == records(whole.path)


@pytest.mark.faults
def test_a_full_disk_is_one_clear_line_and_loses_nothing(uninterrupted, tmp_path):
    """The operating system refuses to let a file grow; once there is room again, the run goes on to the same end."""
    whole, overrides = uninterrupted
    path = tmp_path / "run"
    limit = (whole.path / "metrics.jsonl").stat().st_size // 2
    program = f"""
import resource, sys
from fedrax.records.rundir import RunDirectory
RunDirectory._probe = lambda self, mebibytes: None  # The disk fills up only later.
import fedrax.runtime.training as training

train = training._train
def limited(*arguments, **named):
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
    train(*arguments, **named)
training._train = limited
from fedrax.cli import main
sys.exit(main(sys.argv[1:]))
"""
    command = [sys.executable, "-c", program, "train", *overrides, "--out", str(path), "--quiet"]
    failed = subprocess.run(command, check=False, capture_output=True, text=True)
    assert failed.returncode == 1, failed.stderr
    (line,) = (text for text in failed.stderr.splitlines() if text.startswith("fedrax:"))
    assert "too large" in line or "space" in line
    fedrax.resume(path, progress=False)
    assert records(path) == records(whole.path)
