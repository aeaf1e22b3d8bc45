"""A finished run, as small as one can be, and files that nobody means."""

import os

import pytest

import fedrax

RUN = [
    *("environment=CartPole-v1", "environment.num_envs=2", "environment.horizon=10", "federation.agents=2"),
    *("learner.hidden=[4]", "strategy.batch_min=2", "strategy.batch_max=2", "strategy.minibatch=1"),
    *("budget.rounds=4", "checkpoint.every=2", "evaluation.every=2", "evaluation.episodes=2"),
    "checkpoint.keep_policies=true",
]
TEXT = 'name = "Zürich"\n[budget]\nrounds = 1\n'


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A finished run, as it was written."""
    return fedrax.train({}, RUN, out=tmp_path_factory.mktemp("run") / "whole", progress=False).path


@pytest.fixture(scope="session")
def odd_files(tmp_path_factory):
    """Files by name; ``readable`` and ``marked`` are the only good ones."""
    folder = tmp_path_factory.mktemp("odd")
    contents = {
        "readable.toml": TEXT.encode(),
        "marked.toml": TEXT.encode("utf-8-sig"),
        "utf-16.toml": TEXT.encode("utf-16"),
        "utf-16-le.toml": TEXT.encode("utf-16-le"),
        "utf-16-be.toml": TEXT.encode("utf-16-be"),
        "latin-1.toml": TEXT.encode("latin-1"),
        "binary.toml": bytes(range(256)) * 8,
        "empty.toml": b"",
        "brackets.toml": b"a = " + b"[" * 5000 + b"]" * 5000,
        "nested.toml": b"a = " + b"[" * 300 + b"]" * 300,
        "dotted.toml": ".".join(["a"] * 1000).encode() + b" = 1",
        "digits.toml": b"seed = " + b"1" * 5000,
        "cut.toml": TEXT.encode()[:-12],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    # Sparse: it uses no disk space, and its content is never read.
    with (folder / "huge.toml").open("wb") as file:
        file.truncate(100 << 20)
    os.mkfifo(folder / "pipe.toml")
    os.symlink("/dev/zero", folder / "endless.toml")
    os.symlink("endless-loop.toml", folder / "endless-loop.toml")
    (folder / "folder.toml").mkdir()
    return folder
