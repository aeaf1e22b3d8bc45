"""``fedrax node``: one site's agent in a process of its own, and the SuperNode that forwards envelopes to it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fedrax.errors import FedraxError
from fedrax.privacy.secure_sum.signatures import fingerprint, read_own, read_peers
from fedrax.records import lock
from fedrax.records.files import write_atomic
from fedrax.runtime.distributed.envelopes import CANNOT, OVER, WITHOUT
from fedrax.runtime.flower.agent_client import SOCKET, TOLD
from fedrax.runtime.flower.connection import Connection
from fedrax.runtime.flower.endpoint import Endpoint
from fedrax.runtime.flower.flower_patches.commands import TESTED, is_tested
from fedrax.runtime.flower.processes import Watched, environment, flower_command, free_port, patched_command
from fedrax.runtime.flower.run_lock import Tail

PREFIX = "fedrax-"
"""How the names of temporary folders begin."""
SOCKET_FOLDER = "socket.txt"
"""Where a node's data say which temporary folder the agent's socket is in."""
OVER_SECONDS = 5.0
"""How long the answer to a run's end may take on its way, before the node ends."""
LOOK_SECONDS = 0.2
LOOKING = {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2"}
"""How often Flower looks whether there is a message to start a process for, in seconds; its own default is 1."""


def run_node(
    endpoint: Endpoint,
    data: Path,
    *,
    key: Path | None = None,
    peers: Path | None = None,
    agent: int | None = None,
    overrides: Sequence[str] = (),
    plugins: Sequence[str] = (),
    shared_seeds: bool = False,
    stay: bool = False,
    fast: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Runs a node until its run is over, or it is stopped.

    What dies of it meanwhile is started again, and the agent goes on where it was saved.

    Args:
        endpoint: of the SuperLink.
        data: the folder where the agent keeps its state.
        key: the node's private key, which an authenticating SuperLink asks for.
        peers: the folder of all nodes' public keys, with which it takes part in secure sums alone.
        agent: the agent that it asks to be; unset, the server chooses.
        overrides: ``environment.KEY=VALUE``, what is different at this site.
        plugins: files and modules in place of those of the same name in the server's configuration.
        shared_seeds: agree to draw from the run's seed, where the run asks for it.
        stay: wait for other runs when one is over.
        fast: poll more often and answer in the SuperNode's process, by internals of Flower.
        say: told what people should know.

    Raises:
        FedraxError: an address, key or override that cannot be used, ``data`` of another node that runs, or a run that
            is over without this node, or in which it cannot take part.
    """
    endpoint.check()
    if fast and not is_tested():
        say(f"this Flower is not one of {', '.join(TESTED)}, whose internals --fast needs: going on without")
        fast = False
    if key is not None and not key.exists() and endpoint.certificates is not None:
        key = endpoint.certificates / "nodes" / key
    if key is not None and not key.is_file():
        raise FedraxError(f"there is no key {key}; `fedrax certificates DIR --nodes N` makes keys")
    if endpoint.certificates is None and key is not None:
        raise FedraxError(f"the key {key} is for a SuperLink with certificates: give --certificates too, or no --key")
    if endpoint.certificates is not None and key is None:
        raise FedraxError(
            f"give --key, this node's private key, for example {endpoint.certificates / 'nodes' / 'node-0'}"
        )
    if peers is not None:
        if key is None:
            raise FedraxError("--peers is for nodes with keys, whose signatures they ask of each other: give --key too")
        if fingerprint(read_own(key).public_key()) not in read_peers(peers):
            raise FedraxError(
                f"{peers} lacks the public key of {key}: put the .pub of every node of the federation there"
            )
    for override in overrides:
        # The agent's process checks the rest; this one imports nothing heavy, as it only watches.
        if not override.startswith(("environment.", "environment=")):
            raise FedraxError(
                f"{override!r} is not a node's to say: it may set environment.KEY=VALUE, the rest is the server's"
            )
    with lock.held(data), socket_folder(data) as folder, contextlib.ExitStack() as stack:
        socket = folder / "agent"
        variables = environment(data.resolve() / "flower") | LOOKING
        connection, told = Connection(endpoint, key, data / "supernode.log"), Tail(data / TOLD)
        agent_command = agent_server_command(
            socket, data, agent, overrides, plugins=plugins, shared_seeds=shared_seeds, key=key, peers=peers
        )
        agent_server = stack.enter_context(Watched(agent_command, data / "agent.log", variables))
        command = supernode_command(endpoint, socket, free_port(), key, fast=fast)
        supernode = stack.enter_context(Watched(command, connection.tail.path, variables))
        say(f"node for {endpoint.address}; logs and state in {data}")
        over: float | None = None
        failed: str | None = None
        while over is None or time.monotonic() - over < OVER_SECONDS:
            for line in told.lines():
                # A run's name may be the server's words.
                text = "".join(each if each.isprintable() else " " for each in line)
                if over is None and not stay and text.startswith((OVER, CANNOT)):
                    over = time.monotonic()
                    failed = text if text.startswith((WITHOUT, CANNOT)) else None
                if text != failed:
                    say(text)
            for said in (agent_server.watch(), *connection.watch(supernode)):
                if said and over is None:
                    say(said)
            time.sleep(LOOK_SECONDS)
    if failed is not None:
        raise FedraxError(failed)


@contextlib.contextmanager
def socket_folder(data: Path) -> Iterator[Path]:
    """A new folder for the agent's socket, that only this user may look into.

    It is among the system's temporary ones, as a socket's path may have about a hundred characters. The node's data
    say where it is before it is made: what a killed node left of its last one is removed.
    """
    record = data / SOCKET_FOLDER
    with contextlib.suppress(OSError, ValueError):
        last = Path(record.read_text(encoding="utf-8").strip())
        if last.name.startswith(PREFIX) and last.stat().st_uid == os.getuid():
            shutil.rmtree(last)
    folder = Path(tempfile.gettempdir()) / f"{PREFIX}{secrets.token_hex(8)}"
    write_atomic(record, f"{folder}\n", private=True)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        record.unlink(missing_ok=True)


def agent_server_command(
    socket: Path,
    data: Path,
    agent: int | None,
    overrides: Sequence[str],
    *,
    plugins: Sequence[str],
    shared_seeds: bool,
    key: Path | None,
    peers: Path | None,
) -> list[str]:
    """The agent's process."""
    command = [sys.executable, "-m", "fedrax.runtime.flower.agent_server", "--socket", str(socket), "--data", str(data)]
    if agent is not None:
        command += ["--agent", str(agent)]
    for plugin in plugins:
        command += ["--plugins", plugin]
    if shared_seeds:
        command.append("--shared-seeds")
    if key is not None:
        command += ["--key", str(key.resolve())]
    if peers is not None:
        command += ["--peers", str(peers.resolve())]
    return [*command, *overrides]


def supernode_command(endpoint: Endpoint, socket: Path, port: int, key: Path | None, *, fast: bool) -> list[str]:
    """Flower's SuperNode, or the patched one, which polls more often."""
    command = patched_command("supernode") if fast else [flower_command("flower-supernode")]
    command += ["--superlink", endpoint.address, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--node-config", f'{SOCKET}="{socket}"']
    command += ["--insecure"] if endpoint.authority is None else ["--root-certificates", str(endpoint.authority)]
    if key is not None:
        command += ["--auth-supernode-private-key", str(key.resolve())]
    return [*command, "--isolation", "process"] if fast else command
