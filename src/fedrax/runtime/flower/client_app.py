"""Flower's ClientApp on every node: hands letters to the agent that lives there, and its answers back.

A node started by ``fedrax node`` says where the agent lives. Without that, as in Flower's own simulation, the agent is
woken in this process, from what it saved last.
"""

from __future__ import annotations

import os
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedrax.arrays import DecodeError
from fedrax.runtime.flower.door import SOCKET, ask
from fedrax.runtime.flower.records import from_records, to_records
from fedrax.runtime.remote.letters import REFUSED, Letter

app = ClientApp()
_awake: dict[int, object] = {}


@app.query("letter")
def hand_on(message: Message, context: Context) -> Message:
    """One letter and its answer."""
    letter = from_records(message.content)
    socket = context.node_config.get(SOCKET)
    try:
        answer = _awakened(letter, context) if socket is None else ask(str(socket), letter)
    except DecodeError as error:
        answer = Letter(REFUSED, {"reason": f"the agent's answer is garbled: {error}"})
    return Message(to_records(answer), reply_to=message)


def _awakened(letter: Letter, context: Context) -> Letter:
    # Only here is JAX needed: a node's ClientApp starts anew for every message, and does not wait for it.
    from fedrax.runtime.remote.resident import Resident

    agent = int(context.node_config["partition-id"])
    folder = Path(str(context.run_config.get("nodes", "")) or Path.cwd() / "runs" / "nodes")
    resident = _awake.get(agent)
    if resident is None:
        resident = _awake[agent] = Resident(folder / f"node-{agent}-of-{os.getuid()}", agent=agent)
    assert isinstance(resident, Resident)
    resident.refresh()
    return resident.answer(letter)
