"""A node that lies: the real agent's answers, spoilt in another way in every round, by hand and past our own code."""

from __future__ import annotations

import sys
from multiprocessing.connection import Listener
from pathlib import Path

import numpy as np

from fedrax.runtime.distributed.agent_service import AgentService
from fedrax.runtime.distributed.envelopes import WORK, WORKED, Envelope, from_bytes, to_bytes


def spoilt(answer: Envelope, kept: list[Envelope]) -> dict[int, bytes]:
    """By round, the bytes that go out in place of an answer."""

    def with_fields(**fields) -> bytes:
        return to_bytes(Envelope(answer.kind, {**answer.fields, **fields}, answer.payload))

    numbers = np.frombuffer(answer.payload, np.float32).copy()
    numbers[0] = np.nan
    return {
        1: to_bytes(Envelope(answer.kind, answer.fields, numbers.tobytes())),
        2: to_bytes(Envelope(answer.kind, answer.fields, answer.payload[:-4])),
        3: with_fields(surprise=1),
        4: to_bytes(Envelope(answer.kind, answer.fields, bytes(30_000_000))),
        5: to_bytes(kept[0]),
        6: b"\xff\x00garbage\xfe" * 20,
        7: with_fields(form="\ud800"),
        8: with_fields(round=2**70),
        9: to_bytes(Envelope(WORKED, {}, b"")),
    }


def main(socket: str, data: str) -> None:
    service, kept = AgentService(Path(data), agent=1), []
    Path(socket).unlink(missing_ok=True)
    with Listener(socket, "AF_UNIX") as listener:
        while True:
            with listener.accept() as visitor:
                envelope = from_bytes(visitor.recv_bytes())
                answer = service.answer(envelope)
                reply = to_bytes(answer)
                if envelope.kind == WORK and answer.kind == WORKED:
                    kept.append(answer)
                    reply = spoilt(answer, kept).get(int(envelope.fields["round"]), reply)
                visitor.send_bytes(reply)


if __name__ == "__main__":
    main(*sys.argv[1:])
