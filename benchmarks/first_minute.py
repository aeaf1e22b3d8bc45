"""What a newcomer waits for: names, the first line of a training, and `make demo` with nothing compiled yet.

    python benchmarks/first_minute.py            # all; the demo's packages must be installed beside this Python
    python benchmarks/first_minute.py commands   # without the demo

Run it on an idle machine. The demo is `make demo` as it stands, with an empty compilation cache and without its
installation; what it writes goes to a folder of its own.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import save

ROOT = Path(__file__).parent.parent
REPEATS = 5
TARGETS = {
    "import fedrax": 0.2,
    "fedrax --version": 1.0,
    "fedrax list": 1.0,
    "a completed word": 1.0,
    "first line of fedrax train": 3.0,
    "cold make demo": 60.0,
}
"""Seconds."""


def timed(arguments: list[str], **variables: str) -> float:
    """Seconds of the fastest of some runs of a Python command after a first one."""
    times = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        environment = os.environ | variables
        subprocess.run([sys.executable, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return min(times[1:])


def first_line() -> float:
    """Seconds until a training says something; it is ended then."""
    times = []
    for _ in range(REPEATS + 1):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "fedrax", "train", "fedpg-br/cartpole", "--out", f"{folder}/run"]
            started = time.perf_counter()
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
                assert process.stdout is not None
                assert process.stdout.readline()
                times.append(time.perf_counter() - started)
                process.kill()
    return min(times[1:])


def commands() -> dict[str, float]:
    """Seconds of what needs no JAX."""
    line = "fedrax train fedpg-br/cartpole attack=al"
    shell = {
        "_ARGCOMPLETE": "1",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE_STDOUT_FILENAME": os.devnull,
    }
    return {
        "import fedrax": timed(["-c", "import fedrax"]),
        "fedrax --version": timed(["-m", "fedrax", "--version"]),
        "fedrax list": timed(["-m", "fedrax", "list"]),
        "a completed word": timed(["-m", "fedrax"], **shell),
        "first line of fedrax train": first_line(),
    }


def demo() -> tuple[float, float]:
    """Seconds on the clock, and of processors, of `make demo` in a copy of the project, with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        binaries = Path(sys.executable).parent
        for name in ("Makefile", "pyproject.toml"):
            shutil.copy(ROOT / name, folder)
        installed = f"--old-file={binaries.parent / '.installed'}"
        command = ["make", f"--directory={folder}", installed, f"VENV={binaries.parent}", "demo"]
        variables = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, env=os.environ | variables, check=True)
        seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        assert (Path(folder) / "runs" / "demo" / "report.png").is_file()
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measures, and writes ``results/first_minute.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("all", "commands"), default="all")
    measured = commands()
    processors: dict[str, float] = {}
    load = os.getloadavg()[0]
    if parser.parse_args().what == "all":
        measured["cold make demo"], processors["cold make demo"] = demo()
    rows = [
        {"what": what, "seconds": round(seconds, 3), "target_seconds": TARGETS[what]}
        | ({"processor_seconds": round(processors[what], 1)} if what in processors else {})
        for what, seconds in measured.items()
    ]
    for row in rows:
        print(row)
    save("first_minute", {"rows": rows, "load_before": round(load, 1)})


if __name__ == "__main__":
    main()
