"""A federation's round over Flower as it is, over Flower with our patches, and over plain gRPC.

    python benchmarks/transport.py               # eleven minutes where nothing else runs
    python benchmarks/transport.py --passes 1    # fewer rounds
    python benchmarks/transport.py --no-training

All on this machine's loopback, with TLS and every node a process of its own; Flower's nodes prove their keys too.

``echo``: a server sends every node a payload and gets another of the same size back, by what the server of a run sends
and collects with; nodes do no work. The three federations are there at the same time and take turns, and Flower's nodes
are stopped while it is another's: their polling would cost that one time. Each turn's first round is left out, in which
nodes that were stopped find their connections again.

``training``: a whole run of three nodes with a policy of a million weights, and a round's seconds beyond the work of
the slowest node, as ``federation.py`` measures it; over gRPC by :mod:`grpc_transport`, without a supervisor.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import fedrax.runtime.flower
from fedrax.config import resolve
from fedrax.records.rundir import RunDirectory
from fedrax.runtime.flower.app import write_app
from fedrax.runtime.flower.certificates import make_certificates
from fedrax.runtime.flower.endpoint import AUTHORITY, Endpoint
from fedrax.runtime.flower.health import await_health
from fedrax.runtime.flower.identity import BYTES, SECRET
from fedrax.runtime.flower.node import LOOKING, supernode_command
from fedrax.runtime.flower.processes import STAGES, Watched, environment, free_port
from fedrax.runtime.flower.serving import (
    HEALTH_SECONDS,
    connect,
    register,
    submit,
    superexec_command,
    superlink_command,
)
from fedrax.supervision import start, stop_all

from common import save
from federation import LEFT_OUT, NODES, SETTINGS, beyond_work, federation, spread

ENDS = Path(__file__).with_name("transport_ends.py")
HOST = "127.0.0.1"
COUNTS = (10, 3)
"""Nodes; the first federations become the second ones, as nodes leave."""
SIZES = {"10 kB": 10_000, "5 MB": 5_000_000}
TURN = {"flower": 1, "flower with patches": 8, "grpc": 8}
"""Rounds of a turn, by transport."""
TRAININGS = (
    ("flower", 4),
    ("grpc", 10),
    ("flower with patches", 10),
    ("flower with patches", 10),
    ("grpc", 10),
)
"""Trainings one after the other, in an order that a steady drift does not favour; their rounds after the first."""
START_SECONDS = 300.0
"""Until a submitted server is there; on a busy machine that takes minutes."""
FLOWER = Path(fedrax.runtime.flower.__file__).parent
REPLACED = ("transport", "records", "client_app", "server_app", "agent_client", "agent_server", "app", "guard")
"""Modules that are there for Flower alone, besides the patches and what watches its processes."""


@dataclass
class Echoing:
    """A federation whose nodes only run in its turns, where they would poll otherwise."""

    server: list[Watched]
    nodes: list[list[Watched]]
    """Each node's processes."""
    benchmark: IO[str]
    """To the server's process."""
    polls: bool

    def turn(self, size: int, rounds: int) -> list[float]:
        """Seconds of rounds with payloads of this size."""
        self.signal(signal.SIGCONT)
        seconds = self.order(size, 1 + rounds)
        self.signal(signal.SIGSTOP)
        return seconds[1:]

    def order(self, size: int, rounds: int) -> list[float]:
        """Seconds of rounds, once all nodes are there."""
        order = {"nodes": len(self.nodes), "bytes": size, "rounds": rounds}
        print(json.dumps(order), file=self.benchmark, flush=True)
        there, *answers = [self.benchmark.readline() for _ in range(1 + rounds)]
        if not all((there, *answers)):
            raise SystemExit("a server ended in the middle of its turn")
        return [float(each) for each in answers]

    def signal(self, number: int) -> None:
        """Sends a signal to nodes that poll; to parents first, so that none starts another process meanwhile."""
        for process in (process for node in self.nodes for process in node if self.polls):
            for pid in descendants(process.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def keep(self, count: int) -> None:
        """Ends the other nodes; what runs meanwhile forgets them."""
        self.signal(signal.SIGCONT)
        stop([process for node in self.nodes[count:] for process in node])
        del self.nodes[count:]


def descendants(pid: int) -> Iterator[int]:
    """A process and all that it started."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                yield from descendants(int(child))


def stop(processes: Sequence[Watched]) -> None:
    """Ends processes, all at once."""
    stop_all([process.process for process in processes], STAGES)


@contextlib.contextmanager
def echoing(name: str, folder: Path, count: int) -> Iterator[Echoing]:
    """A federation of so many nodes, over the transport of this name."""
    endpoint = Endpoint(f"{HOST}:{free_port()}", folder / "certificates")
    make_certificates(folder / "certificates", [HOST], count)
    path = folder / "benchmark"
    variables = environment(folder / "flower") | LOOKING
    variables["PYTHONPATH"] = os.pathsep.join([str(ENDS.parent), os.environ.get("PYTHONPATH", "")])
    (folder / "flower").mkdir()
    made = Echoing([], [], sys.stdout, polls=name != "grpc")

    def started(log: str, command: Sequence[str]) -> Watched:
        return Watched(command, folder / f"{log}.log", variables).__enter__()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(START_SECONDS)
        try:
            if name == "grpc":
                where = [endpoint.address, str(endpoint.certificates), str(count), str(path)]
                made.server.append(started("server", ends("grpc-server", *where)))
                for node in range(count):
                    where = [endpoint.address, str(endpoint.authority), str(node + 1)]
                    made.nodes.append([started(f"node-{node}", ends("grpc-echo", *where))])
            else:
                fast = name != "flower"
                config = resolve("fedpg-br/cartpole", ["runtime=flower", f"runtime.flower.fast={str(fast).lower()}"])
                variables[SECRET] = secret = secrets.token_hex(BYTES)
                made.server.append(started("superlink", superlink_command(endpoint, folder / "flower", config)))
                await_health(endpoint.address, endpoint.authority, HEALTH_SECONDS, secret)
                made.server.append(started("superexec", superexec_command(endpoint)))
                connect(endpoint, folder / "flower")
                register(endpoint, variables)
                for node in range(count):
                    agent, key = folder / f"agent-{node}", folder / "certificates" / "nodes" / f"node-{node}"
                    echo = started(f"agent-{node}", ends("flower-echo", str(agent), str(node + 1)))
                    command = supernode_command(endpoint, agent, free_port(), key, fast=fast)
                    made.nodes.append([echo, started(f"node-{node}", command)])
                submit(echo_app(folder / "app", "fast" if fast else "", path), variables)
            connection, _ = listener.accept()
            with connection, connection.makefile("rw") as made.benchmark:
                made.order(0, 0)
                made.signal(signal.SIGSTOP)
                yield made
        finally:
            made.signal(signal.SIGCONT)
            stop([*(process for node in made.nodes for process in node), *made.server])


def ends(*arguments: str) -> list[str]:
    """A process of :mod:`transport_ends`."""
    return [sys.executable, str(ENDS), *arguments]


def echo_app(folder: Path, overrides: str, path: Path) -> Path:
    """The Flower app whose server times rounds."""
    project = write_app(folder, {"overrides": overrides, "directory": str(path)}) / "pyproject.toml"
    project.write_text(project.read_text().replace("fedrax.runtime.flower.server_app:app", f"{ENDS.stem}:app"))
    return folder


def echoed(folder: Path, counts: Sequence[int], passes: int) -> dict[str, Any]:
    """Seconds of a round by nodes, size and transport."""
    result: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        there = {}
        for name in TURN:
            (folder / name).mkdir()
            there[name] = stack.enter_context(echoing(name, folder / name, counts[0]))
        for count in counts:
            for each in there.values():
                each.keep(count)
            seconds: dict[str, dict[str, list[float]]] = {size: {name: [] for name in TURN} for size in SIZES}
            for number in range(passes):
                for size, length in SIZES.items():
                    for name in list(TURN)[:: -1 if number % 2 else 1]:
                        seconds[size][name] += there[name].turn(length, TURN[name])
                        print(count, size, name, *(f"{each:.3f}" for each in seconds[size][name]), flush=True)
            result[f"{count} nodes"] = {
                size: {name: {"rounds": len(each), **spread(each)} for name, each in by_name.items()}
                for size, by_name in seconds.items()
            }
    return result


def trained(folder: Path) -> dict[str, Any]:
    """A round's seconds beyond the work, by transport, over all its trainings."""
    beyond: dict[str, list[float]] = {}
    for number, (name, rounds) in enumerate(TRAININGS):
        place = folder / str(number)
        place.mkdir()
        settings = [*SETTINGS, f"budget.rounds={LEFT_OUT + rounds}"]
        if name == "grpc":
            train_over_grpc(place, settings)
        else:
            with federation(place, settings, None, fast=name != "flower") as (server, *_):
                server.wait()
        seconds = beyond_work(place / "run")
        print("training", name, *(f"{each:.3f}" for each in seconds), flush=True)
        beyond.setdefault(name, []).extend(seconds)
    return {name: {"rounds": len(each), **spread(each)} for name, each in beyond.items()}


def train_over_grpc(folder: Path, settings: Sequence[str]) -> None:
    """A whole run of three nodes over the prototype."""
    certificates, address = folder / "certificates", f"{HOST}:{free_port()}"
    make_certificates(certificates, [HOST], 0)
    directory = RunDirectory.create(folder / "run")
    config = resolve(settings[0], [*settings[1:], "runtime=flower", "runtime.flower.fast=true"])
    directory.write_config(config.to_toml())
    authority = str(certificates / AUTHORITY)
    commands = [
        ends("grpc-train", address, str(certificates), str(directory.path)),
        *(ends("grpc-agent", address, authority, str(folder / f"node-{k}"), str(k)) for k in range(NODES)),
    ]
    processes = [
        start(f"process {number}", command, folder / f"{number}.out", os.environ)
        for number, command in enumerate(commands)
    ]
    try:
        processes[0].wait()
    finally:
        stop_all(processes, [(signal.SIGTERM, 60.0)])


def lines() -> dict[str, int]:
    """Lines of code of what is compared, comments and blank lines included."""
    return {
        "patches": sum(lines_of(path) for path in (FLOWER / "flower_patches").glob("*.py")),
        "modules for Flower alone, besides the patches": sum(lines_of(FLOWER / f"{name}.py") for name in REPLACED),
        "grpc prototype": lines_of(ENDS.with_name("grpc_transport.py")),
    }


def lines_of(path: Path) -> int:
    """Lines of a file."""
    return len(path.read_text().splitlines())


def main() -> None:
    """Measures both and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=2, help="turns of each transport, by nodes and size")
    parser.add_argument("--nodes", type=int, nargs="+", default=COUNTS, help="of echoes, the most first")
    parser.add_argument("--no-training", action="store_true", help="echoes only; nothing is written")
    options = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "echo").mkdir()
        (folder / "train").mkdir()
        result = {
            "versions": {package: importlib.metadata.version(package) for package in ("flwr", "grpcio")},
            "lines": lines(),
            "seconds_per_round_of_echoes": echoed(folder / "echo", options.nodes, options.passes),
        }
        if not options.no_training:
            result["seconds_per_round_beyond_work_of_a_training"] = trained(folder / "train")
    result["minutes_taken"] = round((time.perf_counter() - started) / 60, 1)
    print(json.dumps(result, indent=1))
    if not options.no_training:
        save("transport", result)


if __name__ == "__main__":
    main()
