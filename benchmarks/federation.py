"""What a federation of three nodes costs over Flower, and whether it learns what the simulation does.

    python benchmarks/federation.py default
    python benchmarks/federation.py fast --cable     # as root: the nodes in a network namespace of their own
    python benchmarks/federation.py cartpole         # a whole preset, on the fast path and simulated
    python benchmarks/federation.py faults           # as root: what every fault of make test-faults costs

Three nodes and a server on this machine, with TLS and keys.

``default`` and ``fast``: a policy of a million weights, and a round's latency beyond the local work. Latency is a
round's seconds less those that the slowest node worked, so it contains all that Flower and the server do; memory is
what each process has for itself of what it shares (PSS), at most. With a cable between the server and the nodes, every
byte on it is counted, requests that find nothing included.

``cartpole``: FedPG-BR to the end of its budget, beside the simulation of the same seed. A program of one agent, which
is what a node runs, rounds otherwise than one program of all, and training magnifies that. So there are two
simulations: with agents side by side, as by default, and with agents that follow one another, as on nodes.

``faults``: the tests of faults, and what each has cost: answers that did not come in time, rounds begun anew, results
that are gone.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jax
import numpy as np

import fedrax
from fedrax.runtime.flower.certificates import make_certificates
from fedrax.runtime.flower.processes import free_port
from fedrax.runtime.memory import size_text
from fedrax.supervision import Process, start, stop_all

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
    *("budget.trajectories=none", "evaluation.every=1000", f"federation.agents={NODES}"),
]
"""About a million weights, and next to no work."""
LEFT_OUT = 3
"""First rounds, in which programs are compiled."""
TARGETS = {"default": 5.0, "fast": 0.5}
CARTPOLE = ("fedpg-br/cartpole", f"federation.agents={NODES}", "runtime.shared_seeds=true")
SIMULATIONS = {"side by side": (), "in turn": ("runtime.agents_per_batch=1",)}
"""How agents are computed, and what asks for it."""
NEAR = 1e-4
"""Relative; what differs by no more counts as the same."""
EPISODES = 100
"""Of the final policies."""


def main() -> None:
    """Runs a federation and writes what it took, or what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=(*TARGETS, "cartpole", "faults"))
    parser.add_argument("--rounds", type=int, help="default: 15; of cartpole, as many as its budget has")
    parser.add_argument("--cable", action="store_true", help="nodes in a namespace, at the other end of a cable")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, cable() if options.cable else contextlib.nullcontext() as ends:
        if options.mode == "faults":
            result = faults(Path(folder) / "tests.xml")
        elif options.mode == "cartpole":
            result = compared(Path(folder), options.rounds, ends)
        else:
            result = measured(Path(folder), options.mode, options.rounds or 15, ends)
    print(json.dumps(result, indent=1))
    save(f"federation_{options.mode}", result)


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


@contextlib.contextmanager
def federation(
    folder: Path, settings: Iterable[str], ends: tuple[str, str] | None, *, fast: bool
) -> Iterator[list[Process]]:
    """The server, which trains in ``folder``/run, and the nodes: processes that end with the context."""
    host = "127.0.0.1" if ends is None else HOST
    inside = () if ends is None else ("ip", "netns", "exec", ends[0])
    certificates, address = folder / "certificates", f"{host}:{free_port()}"
    make_certificates(certificates, [host], NODES)
    where = ["--superlink", address, "--certificates", str(certificates)]
    settings = [*settings, "runtime.flower.gather=600", f"runtime.flower.fast={str(fast).lower()}"]
    commands = [["server", *settings, "--out", str(folder / "run"), *where]]
    for node in range(NODES):
        key = ["--key", str(certificates / "nodes" / f"node-{node}")]
        more = ["--fast"] if fast else []
        more += ["--shared-seeds"] if "runtime.shared_seeds=true" in settings else []
        commands.append(["node", "--data", str(folder / f"node-{node}"), "--agent", str(node), *where, *key, *more])
    processes: list[Process] = []
    try:
        for name, command in zip(names(), commands, strict=True):
            line = [*(inside if command[0] == "node" else ()), sys.executable, "-m", "fedrax.cli", *command]
            processes.append(start(name, line, folder / f"{name}.out", os.environ))
        yield processes
        if processes[0].returncode:
            raise SystemExit((folder / "server.out").read_text())
    finally:
        stop_all(processes, [(signal.SIGTERM, 60.0)])


def measured(folder: Path, path: str, rounds: int, ends: tuple[str, str] | None) -> dict[str, Any]:
    """Latency, bytes and memory of one federation."""
    run = folder / "run"
    memory = {name: {"learner": 0, "rest": 0} for name in names()}
    marks: list[tuple[int, int]] = []
    with federation(folder, [*SETTINGS, f"budget.rounds={rounds}"], ends, fast=path == "fast") as processes:
        while processes[0].poll() is None:
            exchanged = len(rows_of(run / "exchanges.jsonl"))
            if exchanged:
                for sizes, process in zip(memory.values(), processes, strict=True):
                    sizes |= {part: max(size, sizes[part]) for part, size in memory_of(process.pid).items()}
            if ends is not None:
                marks.append((exchanged // NODES, on_cable(ends[1])))
            time.sleep(0.5)
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


def faults(path: Path) -> dict[str, Any]:
    """By fault, what it has cost; the tests write it into their report at ``path``."""
    # Properties of single tests are of the older form of such reports.
    options = ["-m", "faults", "-n", "0", "-q", "-o", "junit_family=xunit1", f"--junitxml={path}"]
    command = [sys.executable, "-m", "pytest", *options]
    subprocess.run(command, check=True, cwd=Path(__file__).parent.parent)
    # A report of our own tests, made a moment ago.
    properties = ElementTree.parse(path).iter("property")
    rows = [json.loads(each.get("value", "")) for each in properties if each.get("name") == "fault"]
    return {row.pop("event"): row for row in rows}


def names() -> list[str]:
    """Of the commands."""
    return ["server", *(f"node-{node}" for node in range(NODES))]


def summarised(run: Path, path: str, memory: dict[str, dict[str, int]]) -> dict[str, Any]:
    """The figures of a finished run."""
    beyond = beyond_work(run)
    payload = json.loads((run / "summary.json").read_text())
    rounds = payload["rounds"]
    return {
        "nodes": NODES,
        "rounds_measured": len(beyond),
        "seconds_beyond_work": spread(beyond),
        "target_seconds": TARGETS[path],
        "payload_bytes_up_per_round": round(payload["bytes_up"] / rounds),
        "payload_bytes_down_per_round": round(payload["bytes_down"] / rounds),
        "memory": {
            name: {part: size_text(size) for part, size in each.items() if size} for name, each in memory.items()
        },
    }


def beyond_work(run: Path) -> list[float]:
    """Of a run's rounds after the first ones, the seconds less those that the slowest node worked."""
    exchanges = rows_of(run / "exchanges.jsonl")
    ends = [row["seconds"] for row in rows_of(run / "metrics.jsonl")]
    beyond = []
    for number, (before, after) in enumerate(itertools.pairwise(ends), start=1):
        works = [row["work_seconds"] for row in exchanges if row["round"] == number]
        beyond.append(after - before - max(works))
    return beyond[LEFT_OUT - 1 :]


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median, least and most, in milliseconds' accuracy."""
    return {
        "median": round(statistics.median(seconds), 3),
        "least": round(min(seconds), 3),
        "most": round(max(seconds), 3),
    }


def compared(folder: Path, rounds: int | None, ends: tuple[str, str] | None) -> dict[str, Any]:
    """What a federation and simulations of the same training come to, and how far they are apart."""
    source, *settings = CARTPOLE if rounds is None else (*CARTPOLE, f"budget.rounds={rounds}")
    started = time.perf_counter()
    with federation(folder, [source, *settings], ends, fast=True) as (server, *_):
        if server.wait():
            raise SystemExit("the federation failed")
    federated = fedrax.load(folder / "run")
    result = {
        "nodes": NODES,
        "trained": " ".join((source, *settings)),
        "federation": {**outcome(federated, started), **requests(federated.path)},
    }
    for name, how in SIMULATIONS.items():
        started = time.perf_counter()
        simulated = fedrax.train(source, [*settings, *how], out=folder / name, progress=False)
        result[f"simulation {name}"] = {**outcome(simulated, started), "federation_apart": apart(federated, simulated)}
    return result


def outcome(run: fedrax.Run, started: float) -> dict[str, Any]:
    """Of a run that has just ended."""
    wall = time.perf_counter() - started
    rows, summary = run.metrics(), run.summary()
    returns = run.evaluate(episodes=EPISODES)[0].returns
    return {
        "rounds": summary["rounds"],
        "trajectories_per_agent": summary["trajectories"],
        "total_steps": summary["total_steps"],
        "first_round_at_return_500": next((row["round"] for row in rows if row["return"] == 500), None),
        "final_return": {"episodes": EPISODES, "mean": float(returns.mean(dtype=float)), "least": float(returns.min())},
        "seconds": {"wall_clock": round(wall, 1), "rounds": round(summary["seconds_train"], 1)},
    }


def requests(run: Path) -> dict[str, Any]:
    """What became of a federation's requests, and their bytes to and from all nodes."""
    rows = rows_of(run / "exchanges.jsonl")
    ends = [row["seconds"] for row in rows_of(run / "metrics.jsonl")]
    seconds = [after - before for before, after in itertools.pairwise(ends)]
    return {
        "median_seconds_per_round": round(statistics.median(seconds), 3),
        "requests": dict(collections.Counter(row["outcome"] for row in rows)),
        **{name: sum(row[name] for row in rows) for name in ("bytes_up", "bytes_down")},
    }


def apart(run: fedrax.Run, other: fedrax.Run) -> dict[str, Any]:
    """Every metric that differs in some round that both have, and the final policies."""
    rows = list(zip(run.metrics(), other.metrics(), strict=False))
    metrics = {}
    for name in rows[0][0].keys() - {"seconds"}:
        # Where a run has no value, as of a filter without attackers, None becomes NaN.
        absolute, relative = differences(*np.array([(ours[name], theirs[name]) for ours, theirs in rows], float).T)
        if absolute.any():
            metrics[name] = {
                "first_round": int(absolute.nonzero()[0][0]),
                f"first_round_beyond_{NEAR:g}": next((int(r) for r in (relative > NEAR).nonzero()[0]), None),
                "largest": float(absolute.max()),
                "largest_relative": float(relative.max()),
            }
    weights = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(each.policies()[0])]) for each in (run, other)]
    absolute, relative = differences(*weights)
    policy = {"weights": absolute.size, "largest": float(absolute.max()), "largest_relative": float(relative.max())}
    return {"metrics": dict(sorted(metrics.items())), "policy": policy}


def differences(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Absolute, and relative to the larger of the two; none where both are NaN."""
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    absolute = np.where(same, 0.0, np.abs(ours - theirs))
    return absolute, absolute / np.where(same, 1.0, np.maximum(np.abs(ours), np.abs(theirs)))


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
            part = (
                "learner"
                if "fedrax.runtime.flower.agent_server" in Path(f"/proc/{current}/cmdline").read_text()
                else "rest"
            )
        except OSError:
            continue
        sizes[part] += sum(1024 * int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        todo += [int(child) for child in children.split()]
    return sizes


if __name__ == "__main__":
    main()
