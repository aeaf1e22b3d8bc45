"""Ctrl-C and SIGTERM: one line, the right exit status, whatever the main thread is doing."""

import os
import signal
import subprocess
import sys
import time

import pytest

from fedrax import signals

BUSY = """
import hashlib, sys
from fedrax import cli
{before}
def busy(options):
    {body}
cli.COMMANDS["list"] = busy
sys.exit(cli.main(["list"]))
"""
"""A command whose body never returns to Python: hashing, like compiling, lets other threads run but no handler."""
HASH = 'print("busy", flush=True); hashlib.pbkdf2_hmac("sha256", b"x", b"y", 10**9)'
SIGNALS = [signal.SIGINT, signal.SIGTERM]


def heeding():
    """In a new process: an interrupt is not ignored, as it is by what a shell runs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupted(number, body=HASH):
    """Exit status and standard error of a command that gets a signal in the middle of its body."""
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY.format(body=body, before="")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heeding,
    )
    try:
        assert process.stdout.readline() == "busy\n"
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    return process.returncode, error


@pytest.mark.parametrize("number", SIGNALS)
def test_compiled_code_is_left_at_once(number):
    status, error = interrupted(number)
    assert (status, error) == (128 + number, "fedrax: interrupted\n")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_command_with_processes_of_its_own_ends_them_first(number):
    body = """
    from fedrax.signals import orderly
    with orderly():
        try:
            print("busy", flush=True)
            import time; time.sleep(1000)
        finally:
            print("in order", file=sys.stderr)"""
    status, error = interrupted(number, body)
    assert (status, error) == (128 + number, "in order\nfedrax: interrupted\n")


def test_an_exception_in_a_callback_is_not_what_stops():
    """XLA swallows it: the signal comes while a callback runs from which nothing can be raised."""
    body = """
    class Callback:
        def __del__(self):
            print("busy", flush=True)
            import time; time.sleep(1000)
    Callback()"""
    assert interrupted(signal.SIGINT, body) == (130, "fedrax: interrupted\n")


def test_what_was_ignored_stays_ignored():
    """As under nohup."""
    body = "import os; os.kill(os.getpid(), 2); print('went on', file=sys.stderr); os.kill(os.getpid(), 15); " + HASH
    before = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    process = subprocess.run(
        [sys.executable, "-c", BUSY.format(body=body, before=before)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (process.returncode, process.stderr) == (143, "went on\nfedrax: interrupted\n")


def test_handlers_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in SIGNALS]
    with signals.stopping(lambda: ""):
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.faults
@pytest.mark.parametrize("seconds", [0.5, 2, 4, 6, 8, 10])
@pytest.mark.parametrize("number", SIGNALS)
def test_a_cold_compile_is_interrupted_without_a_crash(tmp_path, number, seconds):
    """It is compiling, or about to, from when the manifest is there to when the first row is."""
    run = tmp_path / "run"
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"), "XLA_FLAGS": ""}
    command = [sys.executable, "-m", "fedrax.cli", "train", "fedpg-br/cartpole", "--out", str(run), "--quiet"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=heeding)
    try:
        while not (run / "manifest.json").exists():
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(seconds)
        process.send_signal(number)
        _, error = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + number
    assert error.startswith("fedrax: interrupted")
    assert error.count("\n") == 1
    assert ("fedrax resume" in error) == bool(list(run.glob("checkpoints/checkpoint-*")))
