"""The transport over Flower's grid: messages are pushed and pulled, nothing blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid

from fedrax.arrays import DecodeError
from fedrax.runtime.distributed.envelopes import Envelope
from fedrax.runtime.distributed.transport import Answer, DeliveryError, Transport
from fedrax.runtime.flower.records import MESSAGE_TYPE, from_records, to_records

REASONS = {
    1: "the node cannot load its ClientApp",
    2: "the node's ClientApp failed",
    3: "the request expired",
    4: "the answer expired",
    5: "the node is not reachable",
}
"""Flower's error codes."""


class FlowerTransport(Transport):
    """Sends envelopes to the nodes of a Flower run."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def addresses(self) -> set[int]:
        """Flower's node ids; a node that died is among them for up to a minute."""
        return set(self.grid.get_node_ids())

    def send(self, envelopes: Sequence[tuple[int, Envelope]], *, seconds: float) -> list[str]:
        """Pushes messages, which expire after so long."""
        payloads: dict[int, ConfigRecord] = {}
        messages = [
            Message(
                to_records(envelope, payloads), dst_node_id=address, message_type=MESSAGE_TYPE, ttl=max(seconds, 1.0)
            )
            for address, envelope in envelopes
        ]
        return list(self.grid.push_messages(messages))

    def collect(self, tickets: Iterable[str]) -> list[tuple[str, Answer]]:
        """Pulls what has arrived."""
        wanted = list(tickets)
        if not wanted:
            return []
        return [(message.metadata.reply_to_message_id, answer(message)) for message in self.grid.pull_messages(wanted)]


def answer(message: Message) -> Answer:
    """The answer in a message from a node."""
    if message.has_error():
        reason = REASONS.get(message.error.code, f"Flower's error {message.error.code}")
        detail = " ".join(str(message.error.reason or "").split())
        return DeliveryError(f"{reason}: {ascii(detail)[1:-1][:200]}" if detail else reason)
    try:
        return from_records(message.content)
    except DecodeError as error:
        return error
