"""Processes that a command starts: their logs, how they are stopped, and that nothing is left of them."""

import os
import signal
import subprocess
import sys
import time

import pytest

from fedrax.errors import FedraxError
from fedrax.supervision import start, stop_all

DEADLINE = 60.0
DEAF = "import signal; [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM)]"
READY = "print('ready', flush=True); import time; time.sleep(1000)"
MEMBER = (
    f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', '''{DEAF}; {READY}''']).pid, flush=True)"
)
"""Starts a process that only a kill can end."""


def until(condition):
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lives(pid):
    """Whether a process does anything: one that only waits for its parent to look is dead."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def started(tmp_path):
    """Starts programs that have said that they are ready."""
    processes = []

    def begin(program, **options):
        log = tmp_path / "logs" / f"{len(processes)}.log"
        process = start("it", [sys.executable, "-S", "-c", program], log, os.environ, **options)
        processes.append(process)
        until(lambda: process.poll() is not None or "ready\n" in log.read_text())
        return process, log

    yield begin
    stop_all(processes, [])
    assert not any(lives(process.pid) for process in processes)


def test_all_that_is_said_is_at_the_end_of_the_log(tmp_path):
    log = tmp_path / "logs" / "log"
    program = "import sys; print('out', flush=True); print('error', file=sys.stderr); sys.exit(3)"
    for header in ("first\n", "second\n"):
        process = start("it", [sys.executable, "-S", "-c", program], log, os.environ, header=header)
        assert process.wait(DEADLINE) == 3
    assert log.read_text() == "first\nout\nerror\nsecond\nout\nerror\n"


def test_a_process_has_its_session_its_variables_and_the_files_it_is_passed(started):
    reading, writing = os.pipe()
    program = f"import os; os.write({writing}, f'{{os.getsid(0)}} {{os.environ[\"MINE\"]}}'.encode()); {READY}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINE", "yes")
        process, _ = started(program, pass_fds=(writing,))
    os.close(writing)
    assert os.read(reading, 100) == f"{process.pid} yes".encode()
    os.close(reading)


def test_the_first_stage_is_enough_for_most(started):
    order = []
    # A shell has its background jobs, and what they start, ignore SIGINT.
    heeding = f"import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); {READY}"
    processes = [started(heeding)[0] for _ in range(2)]
    stop_all(processes, [(signal.SIGINT, DEADLINE)], ended=lambda process: order.append(process.returncode))
    assert order == [-signal.SIGINT] * 2


@pytest.mark.parametrize(("deaf", "status"), [("signal.SIG_DFL", -signal.SIGTERM), ("signal.SIG_IGN", -signal.SIGKILL)])
def test_what_ignores_a_stage_meets_the_next(started, deaf, status):
    ignoring = f"import signal; signal.signal(2, signal.SIG_IGN); signal.signal(15, {deaf}); {READY}"
    process, _ = started(ignoring)
    stop_all([process], [(signal.SIGINT, 0.2), (signal.SIGTERM, 0.2 if status == -signal.SIGKILL else DEADLINE)])
    assert process.returncode == status


def test_who_is_in_a_hurry_waits_for_nothing(started):
    process, _ = started(f"{DEAF}; {READY}")
    begun = time.monotonic()
    stop_all([process], [(signal.SIGINT, DEADLINE), (signal.SIGTERM, DEADLINE)], hurry=lambda: True)
    assert process.returncode == -signal.SIGKILL
    assert time.monotonic() - begun < DEADLINE


def test_an_exception_while_it_waits_kills_what_is_left(started):
    process, _ = started(f"{DEAF}; {READY}")

    def impatient():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_all([process], [(signal.SIGINT, DEADLINE)], hurry=impatient)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("rest", [f"{DEAF}; {READY}", "import time; time.sleep(1000)"], ids=["killed", "told"])
def test_its_group_ends_with_it(started, rest):
    process, log = started(f"{MEMBER}; {rest}")
    until(lambda: "ready\n" in log.read_text())
    member = int(log.read_text().split()[0])
    assert lives(member)
    stop_all([process], [(signal.SIGTERM, 0.5)])
    until(lambda: not lives(member))


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not tell a process of its parent's death")
def test_a_killed_command_leaves_nothing_behind(tmp_path):
    log = tmp_path / "log"
    program = f"""
import os, pathlib, time
from fedrax.supervision import start
print(start("it", [{sys.executable!r}, "-S", "-c", {READY!r}], pathlib.Path({str(log)!r}), os.environ).pid, flush=True)
time.sleep(1000)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        until(lambda: log.exists() and "ready" in log.read_text())
        assert lives(child)
        parent.kill()
    until(lambda: not lives(child))


@pytest.mark.parametrize(
    ("command", "log", "needle"),
    [(["no-such-command"], "log", "no-such-command"), ([sys.executable], ".", "Is a directory")],
)
def test_what_cannot_start_is_one_line(tmp_path, command, log, needle):
    with pytest.raises(FedraxError, match=needle) as caught:
        start("the job", command, tmp_path / log, os.environ)
    assert str(caught.value).startswith("cannot start the job: ")
    assert "\n" not in str(caught.value)
