"""A round's latency over Flower beyond the local work, the bytes it carries, and the memory of its processes.

    python benchmarks/federation.py default
    python benchmarks/federation.py fast

Three nodes and a server on the loopback, with TLS and keys, and a policy of a million weights. Latency is a round's
seconds less those that the slowest node worked, so it contains all that Flower and the server do; memory is what each
process has for itself of what it shares (PSS).
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fedrax.runtime.flower.certificates import make_certificates
from fedrax.runtime.flower.processes import free_port
from fedrax.runtime.memory import size_text

from common import save

NODES = 3
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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measured(Path(folder), options.path, options.rounds)
    print(json.dumps(result, indent=1))
    save(f"federation_{options.path}", result)


def measured(folder: Path, path: str, rounds: int) -> dict[str, Any]:
    """Latency, bytes and memory of one federation."""
    certificates, address, run = folder / "certificates", f"127.0.0.1:{free_port()}", folder / "run"
    make_certificates(certificates, ["127.0.0.1"], NODES)
    where = ["--superlink", address, "--certificates", str(certificates)]
    fast = path == "fast"
    settings = [*SETTINGS, f"runtime.fast={str(fast).lower()}", f"budget.rounds={rounds}"]
    commands = [["server", *settings, "--out", str(run), *where]]
    for node in range(NODES):
        key = ["--key", str(certificates / "nodes" / f"node-{node}")]
        more = ["--fast"] if fast else []
        commands.append(["node", "--data", str(folder / f"node-{node}"), "--agent", str(node), *where, *key, *more])
    processes = [
        subprocess.Popen([*LEASH, sys.executable, "-m", "fedrax.cli", *command], stdout=subprocess.DEVNULL)
        for command in commands
    ]
    try:
        memory: dict[str, list[int]] = {}
        while processes[0].poll() is None:
            if rows_of(run / "exchanges.jsonl"):
                memory = {name: tree_memory(process.pid) for name, process in zip(names(), processes, strict=True)}
            time.sleep(1.0)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
    return summarised(run, path, memory)


def names() -> list[str]:
    """Of the commands."""
    return ["server", *(f"node-{node}" for node in range(NODES))]


def summarised(run: Path, path: str, memory: dict[str, list[int]]) -> dict[str, Any]:
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
    carried = sum(row["bytes_up"] + row["bytes_down"] for row in exchanges) / NODES
    return {
        "nodes": NODES,
        "rounds_measured": len(beyond),
        "seconds_beyond_work": {
            "median": round(statistics.median(beyond), 3),
            "least": round(min(beyond), 3),
            "most": round(max(beyond), 3),
        },
        "target_seconds": TARGETS[path],
        "letters_over_payload": round(carried / (payload["bytes_up"] + payload["bytes_down"]), 4),
        "payload_bytes_up_per_round": round(payload["bytes_up"] / rounds),
        "payload_bytes_down_per_round": round(payload["bytes_down"] / rounds),
        "memory": {name: size_text(sum(each)) for name, each in memory.items()},
    }


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; none where there is no such file yet."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def tree_memory(pid: int) -> list[int]:
    """Proportional memory, in bytes, of a process and of all that it started."""
    sizes, todo = [], [pid]
    while todo:
        current = todo.pop()
        try:
            rollup = Path(f"/proc/{current}/smaps_rollup").read_text()
            children = Path(f"/proc/{current}/task/{current}/children").read_text()
        except OSError:
            continue
        sizes += [1024 * int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")]
        todo += [int(child) for child in children.split()]
    return sizes


if __name__ == "__main__":
    main()
