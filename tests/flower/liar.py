"""A node that lies: the real agent's answers, spoilt in another way in every round, by hand and past our own code."""

from __future__ import annotations

import sys
from multiprocessing.connection import Listener
from pathlib import Path

import numpy as np

from fedrax.runtime.remote.letters import WORK, WORKED, Letter, from_bytes, to_bytes
from fedrax.runtime.remote.resident import Resident


def spoilt(answer: Letter, kept: list[Letter]) -> dict[int, bytes]:
    """By round, the bytes that go out in place of an answer."""

    def with_fields(**fields) -> bytes:
        return to_bytes(Letter(answer.kind, {**answer.fields, **fields}, answer.payload))

    numbers = np.frombuffer(answer.payload, np.float32).copy()
    numbers[0] = np.nan
    return {
        1: to_bytes(Letter(answer.kind, answer.fields, numbers.tobytes())),
        2: to_bytes(Letter(answer.kind, answer.fields, answer.payload[:-4])),
        3: with_fields(surprise=1),
        4: to_bytes(Letter(answer.kind, answer.fields, bytes(30_000_000))),
        5: to_bytes(kept[0]),
        6: b"\xff\x00garbage\xfe" * 20,
        7: with_fields(form="\ud800"),
        8: with_fields(round=2**70),
        9: to_bytes(Letter(WORKED, {}, b"")),
    }


def main(socket: str, data: str) -> None:
    resident, kept = Resident(Path(data), agent=1), []
    Path(socket).unlink(missing_ok=True)
    with Listener(socket, "AF_UNIX") as listener:
        while True:
            with listener.accept() as visitor:
                letter = from_bytes(visitor.recv_bytes())
                answer = resident.answer(letter)
                reply = to_bytes(answer)
                if letter.kind == WORK and answer.kind == WORKED:
                    kept.append(answer)
                    reply = spoilt(answer, kept).get(int(letter.fields["round"]), reply)
                visitor.send_bytes(reply)


if __name__ == "__main__":
    main(*sys.argv[1:])
