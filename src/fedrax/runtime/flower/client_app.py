"""Flower's ClientApp on every node: forwards envelopes to the node's agent, and returns its answers.

A node started by ``fedrax node`` says where the agent's server is. Without that, as in Flower's own simulation, the
agent is loaded in this process, from what it saved last.
"""

from __future__ import annotations

import os
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedrax.parsing import DecodeError
from fedrax.runtime.distributed.envelopes import KEYS, REFUSED, Envelope
from fedrax.runtime.flower.agent_client import SOCKET, ask
from fedrax.runtime.flower.records import from_records, to_records

PARTITION = "partition-id"
"""Of a SuperNode's configuration: the agent's number, which Flower's simulation sets."""

app = ClientApp()
_services: dict[int, object] = {}


@app.query("envelope")
def forward(message: Message, context: Context) -> Message:
    """One envelope and its answer."""
    envelope = from_records(message.content)
    socket = context.node_config.get(SOCKET)
    try:
        answer = _answered_here(envelope, context) if socket is None else ask(str(socket), envelope)
    except DecodeError as error:
        answer = Envelope(REFUSED, {"reason": f"the agent's answer cannot be decoded: {error}"})
    return Message(to_records(answer), reply_to=message)


def _answered_here(envelope: Envelope, context: Context) -> Envelope:
    if envelope.kind == KEYS:
        # The next request may find another process.
        reason = "privacy.secure_sum needs agents that stay in one process: start nodes by `fedrax node`"
        return Envelope(REFUSED, {"reason": reason})
    if PARTITION not in context.node_config:
        reason = f"this SuperNode says no {PARTITION}: start it by `fedrax node`, or with --node-config '{PARTITION}=K'"
        return Envelope(REFUSED, {"reason": reason})
    # Only here is JAX needed: a node's ClientApp starts anew for every message, and does not wait for it.
    from fedrax.runtime.compiling import enable_compilation_cache
    from fedrax.runtime.distributed.agent_service import AgentService

    enable_compilation_cache()
    agent = int(context.node_config[PARTITION])
    folder = Path(str(context.run_config.get("nodes", "")) or Path.cwd() / "runs" / "nodes")
    service = _services.get(agent)
    if service is None:
        service = _services[agent] = AgentService(folder / f"node-{agent}-of-{os.getuid()}", agent=agent)
    assert isinstance(service, AgentService)
    service.refresh()
    return service.answer(envelope)
