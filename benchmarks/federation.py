"""A round's latency over Flower beyond the local work, the bytes it carries, and the memory of its processes.

    python benchmarks/federation.py default
    python benchmarks/federation.py fast --cable     # as root: the nodes in a network namespace of their own

Three nodes and a server on this machine, with TLS and keys, and a policy of a million weights. Latency is a round's
seconds less those that the slowest node worked, so it contains all that Flower and the server do; memory is what each
process has for itself of what it shares (PSS). With a cable between the server and the nodes, every byte on it is
counted, requests that find nothing included.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedrax.runtime.flower.certificates import make_certificates
from fedrax.runtime.flower.processes import free_port
from fedrax.runtime.memory import size_text

from common import save

NODES = 3
HOST = "10.213.78.1"
"""The server's end of the cable."""
SETTINGS = [
    *(
        "fedpg-br/cartpole",
        "strategy=gpomdp",
        "strategy.batch=1",
        "environment.horizon=20",
        "learner.hidden=[992, 1000]",
    ),
    *("budget.trajectories=none", "evaluation.every=1000", f"federation.agents={NODES}", "runtime.gather=600"),
]
"""About a million weights, and next to no work."""
LEFT_OUT = 3
"""First rounds, in which programs are compiled."""
LEASH = (sys.executable, "-m", "fedrax.runtime.flower.leash")
"""Before a command: nothing is left behind where this script is killed."""
TARGETS = {"default": 5.0, "fast": 0.5}


def main() -> None:
    """Runs a federation and writes what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", choices=TARGETS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cable", action="store_true", help="nodes in a namespace, at the other end of a cable")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, cable() if options.cable else contextlib.nullcontext() as ends:
        result = measured(Path(folder), options.path, options.rounds, ends)
    print(json.dumps(result, indent=1))
    save(f"federation_{options.path}", result)


@contextlib.contextmanager
def cable() -> Iterator[tuple[str, str]]:
    """A namespace and this host's end of a cable to it."""
    name, here, there = "fedrax-bench", "fxbench0", "fxbench1"
    commands = [
        f"ip netns add {name}",
        f"ip link add {here} type veth peer name {there}",
        f"ip link set {there} netns {name}",
        f"ip addr add {HOST}/24 dev {here}",
        f"ip link set {here} up",
        f"ip netns exec {name} ip addr add {HOST[:-1]}2/24 dev {there}",
        f"ip netns exec {name} ip link set {there} up",
        f"ip netns exec {name} ip link set lo up",
    ]
    try:
        for command in commands:
            subprocess.run(command.split(), check=True)
        yield name, here
    finally:
        subprocess.run(["ip", "link", "del", here], check=False)
        subprocess.run(["ip", "netns", "del", name], check=False)


def on_cable(end: str) -> int:
    """Bytes that have passed a cable's end, both ways."""
    statistics_of = Path("/sys/class/net") / end / "statistics"
    return sum(int((statistics_of / f"{way}_bytes").read_text()) for way in ("rx", "tx"))


def measured(folder: Path, path: str, rounds: int, ends: tuple[str, str] | None) -> dict[str, Any]:
    """Latency, bytes and memory of one federation."""
    host = "127.0.0.1" if ends is None else HOST
    inside = () if ends is None else ("ip", "netns", "exec", ends[0])
    certificates, address, run = folder / "certificates", f"{host}:{free_port()}", folder / "run"
    make_certificates(certificates, [host], NODES)
    where = ["--superlink", address, "--certificates", str(certificates)]
    fast = path == "fast"
    settings = [*SETTINGS, f"runtime.fast={str(fast).lower()}", f"budget.rounds={rounds}"]
    commands = [["server", *settings, "--out", str(run), *where]]
    for node in range(NODES):
        key = ["--key", str(certificates / "nodes" / f"node-{node}")]
        more = ["--fast"] if fast else []
        commands.append(["node", "--data", str(folder / f"node-{node}"), "--agent", str(node), *where, *key, *more])
    processes = [
        subprocess.Popen(
            [*LEASH, *(inside if command[0] == "node" else ()), sys.executable, "-m", "fedrax.cli", *command],
            stdout=subprocess.DEVNULL,
        )
        for command in commands
    ]
    try:
        memory: dict[str, dict[str, int]] = {}
        marks: list[tuple[int, int]] = []
        while processes[0].poll() is None:
            exchanged = len(rows_of(run / "exchanges.jsonl"))
            if exchanged:
                memory = {name: memory_of(process.pid) for name, process in zip(names(), processes, strict=True)}
            if ends is not None:
                marks.append((exchanged // NODES, on_cable(ends[1])))
            time.sleep(0.5)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
    return {**summarised(run, path, memory), **carried(run, marks)}


def carried(run: Path, marks: list[tuple[int, int]]) -> dict[str, Any]:
    """Bytes on the cable over those of the arrays, from the first round that was seen to end to the last."""
    begun = [mark for mark in marks if mark[0] >= LEFT_OUT]
    if not begun or begun[0][0] == begun[-1][0]:
        return {}
    first = begun[0][0]
    # Between two marks with the same count more of a round may have passed: the first of each is nearest to its end.
    last = begun[-1][0]
    passed = next(b for n, b in begun if n == last) - next(b for n, b in begun if n == first)
    summary = json.loads((run / "summary.json").read_text())
    payload = NODES * (summary["bytes_up"] + summary["bytes_down"]) / summary["rounds"]
    return {"cable_over_payload": round(passed / ((last - first) * payload), 4)}


def names() -> list[str]:
    """Of the commands."""
    return ["server", *(f"node-{node}" for node in range(NODES))]


def summarised(run: Path, path: str, memory: dict[str, dict[str, int]]) -> dict[str, Any]:
    """The figures of a finished run."""
    exchanges = rows_of(run / "exchanges.jsonl")
    ends = [row["seconds"] for row in rows_of(run / "metrics.jsonl")]
    seconds = [after - before for before, after in itertools.pairwise(ends)]
    beyond = []
    for number, duration in enumerate(seconds, start=1):
        works = [row["work_seconds"] for row in exchanges if row["round"] == number]
        beyond.append(duration - max(works))
    beyond = beyond[LEFT_OUT - 1 :]
    payload = json.loads((run / "summary.json").read_text())
    rounds = len(ends)
    return {
        "nodes": NODES,
        "rounds_measured": len(beyond),
        "seconds_beyond_work": {
            "median": round(statistics.median(beyond), 3),
            "least": round(min(beyond), 3),
            "most": round(max(beyond), 3),
        },
        "target_seconds": TARGETS[path],
        "payload_bytes_up_per_round": round(payload["bytes_up"] / rounds),
        "payload_bytes_down_per_round": round(payload["bytes_down"] / rounds),
        "memory": {
            name: {part: size_text(size) for part, size in each.items() if size} for name, each in memory.items()
        },
    }


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; none where there is no such file yet."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def memory_of(pid: int) -> dict[str, int]:
    """Proportional memory, in bytes, of a process and of all that it started: the agent's own process and the rest."""
    sizes, todo = {"learner": 0, "rest": 0}, [pid]
    while todo:
        current = todo.pop()
        try:
            rollup = Path(f"/proc/{current}/smaps_rollup").read_text()
            children = Path(f"/proc/{current}/task/{current}/children").read_text()
            part = "learner" if "fedrax.runtime.flower.home" in Path(f"/proc/{current}/cmdline").read_text() else "rest"
        except OSError:
            continue
        sizes[part] += sum(1024 * int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        todo += [int(child) for child in children.split()]
    return sizes


if __name__ == "__main__":
    main()
