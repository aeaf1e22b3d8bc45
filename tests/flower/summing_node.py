"""``fedrax node`` whose agent keeps what it adds to sums, and is killed at the stages that a variable names."""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing.connection import Listener
from pathlib import Path

import numpy as np

from fedrax import cli
from fedrax.privacy.clip import clipped
from fedrax.privacy.secure_sum.identity import Identity
from fedrax.privacy.secure_sum.signatures import read_own, read_peers
from fedrax.runtime.distributed.agent_service import AgentService
from fedrax.runtime.distributed.envelopes import KEYED, Envelope, from_bytes, to_bytes
from fedrax.runtime.flower import node
from fedrax.trees import ravel_rows

DIES = "FEDRAX_TEST_DIES"
"""The environment's variable with the stages, between blanks, at which it is killed, one after the other."""


def main() -> None:
    def summing(socket, data, agent, overrides, *, key, peers, **others):
        return [sys.executable, __file__, "agent", str(socket), str(data), str(agent), str(key), str(peers)]

    node.agent_server_command = summing
    sys.exit(cli.main(sys.argv[1:]))


def serve(socket: str, data: str, agent: str, key: str, peers: str) -> None:
    folder = Path(data)
    identity = Identity(read_own(Path(key)), read_peers(Path(peers)))
    service = AgentService(folder, agent=int(agent), identity=identity)
    Path(socket).unlink(missing_ok=True)
    with Listener(socket, "AF_UNIX") as listener:
        while True:
            with listener.accept() as client:
                request = from_bytes(client.recv_bytes())
                die(folder, request)
                answer = service.answer(request)
                if answer.kind == KEYED:
                    keep(service, folder / f"update-{answer.fields['round']}.npy")
                client.send_bytes(to_bytes(answer))
                service.flush()


def die(folder: Path, request: Envelope) -> None:
    """Kills this process where it is the turn of such a request, after the first round."""
    stages, done = os.environ.get(DIES, "").split(), folder / "deaths"
    before = done.read_text().split() if done.exists() else []
    if len(before) < len(stages) and request.kind == stages[len(before)] and request.fields.get("round", 0) > 0:
        done.write_text(" ".join([*before, f"{request.kind}-{request.fields['round']}"]))
        os.kill(os.getpid(), signal.SIGKILL)


def keep(service: AgentService, path: Path) -> None:
    """The update of the last round, clipped."""
    import jax

    session = service.session
    rows = jax.tree.map(lambda x: x[None], session._update(session.done - 1))
    np.save(path, clipped(ravel_rows(rows)[0], session.config.privacy.clip))


if __name__ == "__main__":
    if sys.argv[1] == "agent":
        serve(*sys.argv[2:])
    else:
        main()
