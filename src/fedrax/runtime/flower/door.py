"""The way to a node's agent: a letter through a Unix socket. It imports little: every message's process does this."""

from __future__ import annotations

import time
from multiprocessing.connection import Client

from fedrax.errors import FedraxError
from fedrax.runtime.remote.letters import Letter, from_bytes, to_bytes

SOCKET = "fedrax-socket"
"""Under which key a node's configuration says where its agent's socket is."""
START_SECONDS = 60.0
"""How long a letter waits for a home that is (re)starting."""
RETRY_SECONDS = 0.1


def ask(socket: str, letter: Letter, *, patience: float = START_SECONDS) -> Letter:
    """The agent's answer; only bytes are exchanged, never pickles.

    Raises:
        FedraxError: nobody is at home, or the home died over the letter.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            with Client(socket, "AF_UNIX") as connection:
                connection.send_bytes(to_bytes(letter))
                return from_bytes(connection.recv_bytes())
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > deadline:
                raise FedraxError(f"the node's agent is not at home (no answer at {socket})") from None
            time.sleep(RETRY_SECONDS)
        except (EOFError, ConnectionResetError):
            raise FedraxError("the node's agent died over the letter; it is started anew") from None
