"""A node that lies: the real agent's answers, bent past our own code, in a way that an environment variable names."""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
import uuid
from collections.abc import Callable
from multiprocessing.connection import Listener
from pathlib import Path

import jax
import numpy as np

from fedrax.arrays import packed, unpacked
from fedrax.message import is_real
from fedrax.runtime.distributed.agent_service import AgentService
from fedrax.runtime.distributed.envelopes import JOINED, UNKNOWN_RUN, WORKED, Envelope, from_bytes, to_bytes

sys.path.insert(0, str(Path(__file__).parents[1] / "distributed"))

from lies import lies_about

FLOOD = 400_000_000
"""Bytes."""
LIE = "FEDRAX_TEST_LIE"
"""The environment's variable that names the lie."""


class Liar:
    """Bends answers; what it needs to remember of the honest ones it keeps."""

    def __init__(self, service: AgentService) -> None:
        self.service, self.first = service, None

    def arrays(self):
        """The shapes of an answer to work, ``(message, report)``."""
        session = self.service.session
        return session.message, session.report

    def every_lie(self, answer: Envelope) -> bytes:
        """The first answer is honest; the others are one lie after the other, and at last honest again."""
        if answer.kind != WORKED:
            return to_bytes(answer)
        self.first = self.first or answer
        number = int(answer.fields["round"])
        if number == 0:
            return to_bytes(answer)
        lies = itertools.islice(lies_about(answer, self.arrays(), earlier=self.first), number - 1, None)
        return next(lies, (None, to_bytes(answer)))[1]

    def new_names(self, answer: Envelope) -> bytes:
        """It joins under another name whenever it is asked, and forgets the run when it is to work."""
        if answer.kind == JOINED:
            wanted = -1 if self.first else answer.fields["agent"]
            self.first = self.first or answer
            fields = answer.fields | {"node": uuid.uuid4().hex, "agent": wanted}
            return to_bytes(dataclasses.replace(answer, fields=fields))
        return to_bytes(Envelope(UNKNOWN_RUN))

    def all_done(self, answer: Envelope) -> bytes:
        """It has done more rounds than there can be."""
        if answer.kind != JOINED:
            return to_bytes(answer)
        return to_bytes(dataclasses.replace(answer, fields=answer.fields | {"done": 2**64 - 1}))

    def many_episodes(self, answer: Envelope) -> bytes:
        """It has seen 160 episodes."""
        return self.bent(answer, lambda message, report: (message, report | {"episodes": np.int32(160)}))

    def huge_message(self, answer: Envelope) -> bytes:
        """Its message is 3e38 all over."""

        def bend(message, report):
            return jax.tree.map(lambda x: np.full_like(x, 3e38) if is_real(x) else x, message), report

        return self.bent(answer, bend)

    def flood(self, answer: Envelope) -> bytes:
        """Four hundred megabytes in place of a message."""
        return to_bytes(dataclasses.replace(answer, payload=bytes(FLOOD)) if answer.kind == WORKED else answer)

    def bent(self, answer: Envelope, bend: Callable) -> bytes:
        """An answer to work with other arrays."""
        if answer.kind == WORKED:
            answer = dataclasses.replace(answer, payload=packed(bend(*unpacked(self.arrays(), answer.payload))))
        return to_bytes(answer)


def main(socket: str, data: str, agent: str) -> None:
    service = AgentService(Path(data), agent=int(agent))
    lie = getattr(Liar(service), os.environ[LIE])
    Path(socket).unlink(missing_ok=True)
    with Listener(socket, "AF_UNIX") as listener:
        while True:
            with listener.accept() as visitor:
                visitor.send_bytes(lie(service.answer(from_bytes(visitor.recv_bytes()))))


if __name__ == "__main__":
    main(*sys.argv[1:])
