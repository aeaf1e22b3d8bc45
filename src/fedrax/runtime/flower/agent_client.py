"""The client of a node's agent, over a Unix socket. It imports little: every message's process does this."""

from __future__ import annotations

import time
from multiprocessing.connection import Client

from fedrax.errors import FedraxError
from fedrax.runtime.distributed.envelopes import Envelope, from_bytes, to_bytes

SOCKET = "fedrax-socket"
"""Under which key a node's configuration says where its agent's socket is."""
TOLD = "agent.txt"
"""In a node's data: what its agent does, a line each, for the node's owner."""
START_SECONDS = 60.0
"""How long an envelope waits for an agent's server that is (re)starting."""
RETRY_SECONDS = 0.1


def ask(socket: str, envelope: Envelope, *, patience: float = START_SECONDS) -> Envelope:
    """The agent's answer; only bytes are exchanged, never pickles.

    Raises:
        FedraxError: the agent's server does not answer, or died over the request.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            with Client(socket, "AF_UNIX") as connection:
                connection.send_bytes(to_bytes(envelope))
                return from_bytes(connection.recv_bytes())
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > deadline:
                raise FedraxError(f"the node's agent does not answer at {socket}") from None
            time.sleep(RETRY_SECONDS)
        except (EOFError, ConnectionResetError):
            raise FedraxError("the node's agent died over the request; it is started anew") from None
