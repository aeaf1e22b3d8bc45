"""The process of a node's agent: it answers envelopes on a Unix socket, for as long as the node runs."""

from __future__ import annotations

import argparse
import contextlib
import logging
from multiprocessing.connection import Connection, Listener
from pathlib import Path

from fedrax.parsing import DecodeError
from fedrax.privacy.secure_sum.identity import Identity
from fedrax.privacy.secure_sum.signatures import read_own, read_peers
from fedrax.records.files import owner_only
from fedrax.runtime.compiling import enable_compilation_cache
from fedrax.runtime.distributed.agent_service import AgentService, refused
from fedrax.runtime.distributed.envelopes import from_bytes, to_bytes
from fedrax.runtime.flower.agent_client import TOLD


def serve(service: AgentService, socket: str) -> None:
    """Answers envelopes until the process is stopped."""
    Path(socket).unlink(missing_ok=True)
    with Listener(socket, "AF_UNIX") as listener:
        Path(socket).chmod(0o600)
        while True:
            # A client may disconnect before its answer is ready, when Flower gave up on it.
            with contextlib.suppress(OSError, EOFError), listener.accept() as client:
                _answer(service, client)


def _answer(service: AgentService, client: Connection) -> None:
    try:
        reply = service.answer(from_bytes(client.recv_bytes()))
    except DecodeError as error:
        reply = refused(str(error))
    client.send_bytes(to_bytes(reply))
    service.flush()


def main() -> None:
    """``python -m fedrax.runtime.flower.agent_server --socket S --data DIR``: serves a node's agent."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--agent", type=int)
    parser.add_argument("--key", type=Path)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--plugins", action="append", default=[])
    parser.add_argument("--shared-seeds", action="store_true")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    enable_compilation_cache()
    told = options.data / TOLD

    def tell(text: str) -> None:
        with contextlib.suppress(OSError), open(told, "a", encoding="utf-8", opener=owner_only) as file:
            file.write(f"{text}\n")

    service = AgentService(
        options.data,
        overrides=options.overrides,
        agent=options.agent,
        plugins=options.plugins,
        shared_seeds=options.shared_seeds,
        tell=tell,
        identity=Identity(
            None if options.key is None else read_own(options.key),
            None if options.peers is None else read_peers(options.peers),
        ),
    )
    serve(service, options.socket)


if __name__ == "__main__":
    main()
