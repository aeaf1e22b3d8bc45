"""One writer at a time, whichever way its process ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedrax.cli import main
from fedrax.errors import FedraxError
from fedrax.records import lock
from fedrax.records.lock import LOCK, held, is_held
from fedrax.records.rundir import RunDirectory

HOLDS = """
import pathlib, subprocess, sys
from fedrax.records.lock import held
with held(pathlib.Path(sys.argv[1])):
    {body}
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def another_process(folder: Path, body: str = "pass") -> Iterator[subprocess.Popen[str]]:
    """A process that holds ``folder`` until its standard input is closed."""
    command = [sys.executable, "-c", HOLDS.format(body=body), str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.stdin.close()
        process.stdout.close()
        process.wait()


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        assert is_held(tmp_path)
        with pytest.raises(FedraxError) as refused, held(tmp_path):
            pass
    message = str(refused.value)
    assert f"is in use by process {process.pid} on {socket.gethostname()} since 20" in message
    assert "\n" not in message
    assert not is_held(tmp_path)


def test_the_lock_ends_with_its_process_and_its_file_is_no_obstacle(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / LOCK).exists()
        with held(tmp_path):
            assert is_held(tmp_path)


@pytest.mark.parametrize(
    "body",
    [
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])",
        "import os, time; child = os.fork(); child or time.sleep(1000)",
    ],
    ids=["started", "forked"],
)
def test_a_child_does_not_keep_its_parents_lock(tmp_path: Path, body: str) -> None:
    body += "; pid = getattr(child, 'pid', child); (pathlib.Path(sys.argv[1]) / 'child').write_text(str(pid))"
    with another_process(tmp_path, body) as process:
        try:
            process.send_signal(signal.SIGKILL)
            process.wait()
            os.kill(int((tmp_path / "child").read_text()), 0)  # It lives.
            with held(tmp_path):
                pass
        finally:
            os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


def test_what_a_killed_holder_started_with_its_lock_is_said(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / LOCK, os.O_CREAT | os.O_RDWR)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with another_process(tmp_path):
        host = socket.gethostname()
        os.write(descriptor, f'{{"pid": {ended.pid}, "host": "{host}", "since": "now", "command": "x"}}\n'.encode())
        os.ftruncate(descriptor, os.lseek(descriptor, 0, os.SEEK_CUR))
        words = f"in use by what was started by process {ended.pid} .* has ended"
        with pytest.raises(FedraxError, match=words), held(tmp_path):
            pass
    os.close(descriptor)


@pytest.mark.parametrize("arguments", [["resume", "RUN"], ["train", "fedpg-br/cartpole", "--out", "RUN"]])
def test_commands_are_refused_in_one_line_and_change_nothing(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    if arguments[0] == "resume":
        RunDirectory(run).write_config("[budget]\nrounds = 1\n")
    before = {path: path.read_bytes() for path in run.iterdir()}
    with another_process(run) as process:
        assert main([str(run) if word == "RUN" else word for word in arguments]) == 1
        error = capsys.readouterr().err
        assert f"is in use by process {process.pid}" in error
        assert error.count("\n") == 1
        assert {path: path.read_bytes() for path in run.iterdir() if path.name != LOCK} == before


def test_a_folder_that_only_a_killed_start_has_touched_is_still_empty(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    (tmp_path / ".probe").touch()
    RunDirectory.create(tmp_path, free_mebibytes=1)


def test_a_file_system_without_locks_is_said_and_does_not_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with held(tmp_path):
        pass
    assert "cannot be locked (Operation not supported)" in caplog.text


def test_a_process_of_flowers_names_the_command_that_started_it(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/bin/flwr-serverapp", "--token", "secret"])
    monkeypatch.setenv(lock.COMMAND, '["/bin/fedrax", "server", "x"]')
    assert lock.command_line() == ["/bin/fedrax", "server", "x"]
    assert lock._self()["command"] == "fedrax server x"
    monkeypatch.delenv(lock.COMMAND)
    assert lock.command_line() == ["/bin/flwr-serverapp", "--token", "secret"]
