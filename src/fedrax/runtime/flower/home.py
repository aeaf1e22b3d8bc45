"""Where a node's agent lives: a process that answers letters on a Unix socket, for as long as the node runs."""

from __future__ import annotations

import argparse
import contextlib
import logging
from multiprocessing.connection import Connection, Listener
from pathlib import Path

from fedrax.arrays import DecodeError
from fedrax.runtime.compiling import enable_compilation_cache
from fedrax.runtime.remote.letters import from_bytes, to_bytes
from fedrax.runtime.remote.resident import Resident, refused


def serve(resident: Resident, socket: str) -> None:
    """Answers letters until the process is stopped."""
    Path(socket).unlink(missing_ok=True)
    with Listener(socket, "AF_UNIX") as listener:
        Path(socket).chmod(0o600)
        while True:
            # A visitor may leave before its answer is ready, when Flower gave up on it.
            with contextlib.suppress(OSError, EOFError), listener.accept() as visitor:
                _answer(resident, visitor)


def _answer(resident: Resident, visitor: Connection) -> None:
    try:
        reply = resident.answer(from_bytes(visitor.recv_bytes()))
    except DecodeError as error:
        reply = refused(str(error))
    visitor.send_bytes(to_bytes(reply))
    resident.rest()


def main() -> None:
    """A home of its own: ``python -m fedrax.runtime.flower.home --socket S --data DIR``."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--agent", type=int)
    parser.add_argument("--plugins", action="append", default=[])
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    enable_compilation_cache()
    resident = Resident(options.data, overrides=options.overrides, agent=options.agent, plugins=options.plugins)
    serve(resident, options.socket)


if __name__ == "__main__":
    main()
