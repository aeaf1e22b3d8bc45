"""The processes of ``transport.py``: servers that time rounds or train, and nodes that echo or train.

    python benchmarks/transport_ends.py ROLE ...

Flower's server is ``app``, which Flower imports; the other roles are commands. Servers that time rounds take orders
from the benchmark over a Unix socket, so that it can let several federations take turns.
"""

from __future__ import annotations

import argparse
import json
import socket
import time
from pathlib import Path

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedrax.runtime.distributed.envelopes import Envelope
from fedrax.runtime.distributed.transport import Transport
from fedrax.runtime.flower.agent_server import serve
from fedrax.runtime.flower.flower_patches.commands import shorten_pull_waits
from fedrax.runtime.flower.server_app import POLL_SECONDS
from fedrax.runtime.flower.transport import FlowerTransport

from grpc_transport import GrpcTransport, serve_node

EXPIRES = 120.0
"""Seconds after which a round has failed."""
app = ServerApp()


@app.main()
def main_of_flower(grid: Grid, context: Context) -> None:
    """Flower's server: its run configuration says in ``overrides`` whether it is fast, in ``directory`` the socket."""
    fast = context.run_config["overrides"] == "fast"
    if fast:
        shorten_pull_waits()
    obey(FlowerTransport(grid), str(context.run_config["directory"]), POLL_SECONDS[fast])


def obey(transport: Transport, path: str, poll: float) -> None:
    """Does the rounds that the benchmark orders through a Unix socket, until it hangs up.

    An order is a line; so is every answer to it: that the nodes are there, and the seconds of each round.
    """
    random = np.random.default_rng(0)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        with connection.makefile("rw") as benchmark:
            for line in benchmark:
                order = json.loads(line)
                while len(addresses := transport.addresses()) != order["nodes"]:
                    time.sleep(0.1)
                print("there", file=benchmark, flush=True)
                for _ in range(order["rounds"]):
                    seconds = timed_round(transport, sorted(addresses), random.bytes(order["bytes"]), poll)
                    print(seconds, file=benchmark, flush=True)


def timed_round(transport: Transport, addresses: list[int], payload: bytes, poll: float) -> float:
    """Seconds in which every node gets a payload and sends another of the same size; as the dispatcher does it."""
    started = time.perf_counter()
    requests = [(address, Envelope("echo", {"to": str(address)}, payload)) for address in addresses]
    tickets = transport.send(requests, seconds=EXPIRES)
    missing, answers = set(tickets), []
    while missing:
        arrived = transport.collect(missing)
        answers += [answer for _, answer in arrived]
        missing -= {ticket for ticket, _ in arrived}
        if not arrived:
            transport.wait(poll)
    seconds = time.perf_counter() - started
    for answer in answers:
        if not isinstance(answer, Envelope) or answer.payload != other(payload, int(answer.fields["mask"])):
            raise SystemExit(f"a node did not answer as it should: {str(answer)[:300]}")
    return seconds


def other(payload: bytes, mask: int) -> bytes:
    """Other bytes, of the same size: Flower moves what it has moved before only once."""
    return (np.frombuffer(payload, np.uint8) ^ np.uint8(mask)).tobytes()


class Echo:
    """A node's service that does no work."""

    def __init__(self, mask: int) -> None:
        self.mask = mask

    def answer(self, envelope: Envelope) -> Envelope:
        """The request's bytes, changed."""
        return Envelope("echoed", {"mask": self.mask}, other(envelope.payload, self.mask))

    def flush(self) -> None:
        """There is nothing to save."""


def train(address: str, certificates: Path, out: Path) -> None:
    """The server of a whole training over gRPC; as Flower's does it."""
    from fedrax.config import resolve
    from fedrax.records.rundir import RunDirectory
    from fedrax.runtime.compiling import enable_compilation_cache
    from fedrax.runtime.distributed.server import DistributedRuntime
    from fedrax.runtime.training import train_run

    directory = RunDirectory.open(out)
    config = resolve(directory.config)
    enable_compilation_cache()
    with GrpcTransport(address, certificates, config.federation.agents) as transport:
        federation = DistributedRuntime(config, transport, directory, note=lambda text: print(text, flush=True))
        train_run(config, federation, directory, progress=False)
        federation.close()


def run_agent(address: str, authority: Path, data: Path, agent: int) -> None:
    """A node of a whole training over gRPC."""
    from fedrax.runtime.compiling import enable_compilation_cache
    from fedrax.runtime.distributed.agent_service import AgentService

    enable_compilation_cache()
    serve_node(AgentService(data, agent=agent), address, authority)


def main() -> None:
    """One of the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    roles = parser.add_subparsers(dest="role", required=True)
    arguments = {
        "flower-echo": {"socket": str, "mask": int},
        "grpc-echo": {"address": str, "authority": Path, "mask": int},
        "grpc-server": {"address": str, "certificates": Path, "nodes": int, "socket": str},
        "grpc-train": {"address": str, "certificates": Path, "out": Path},
        "grpc-agent": {"address": str, "authority": Path, "data": Path, "agent": int},
    }
    for role, kinds in arguments.items():
        command = roles.add_parser(role)
        for name, kind in kinds.items():
            command.add_argument(name, type=kind)
    options = parser.parse_args()
    match options.role:
        case "flower-echo":
            serve(Echo(options.mask), options.socket)
        case "grpc-echo":
            serve_node(Echo(options.mask), options.address, options.authority)
        case "grpc-server":
            with GrpcTransport(options.address, options.certificates, options.nodes) as transport:
                obey(transport, options.socket, POLL_SECONDS[True])
        case "grpc-train":
            train(options.address, options.certificates, options.out)
        case "grpc-agent":
            run_agent(options.address, options.authority, options.data, options.agent)


if __name__ == "__main__":
    main()
