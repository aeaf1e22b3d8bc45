"""The transport over Flower's grid: messages are pushed and pulled, nothing blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid

from fedrax.parsing import DecodeError
from fedrax.runtime.distributed.envelopes import Envelope
from fedrax.runtime.distributed.transport import Answer, DeliveryError, Transport
from fedrax.runtime.flower.flower_patches.commands import is_tested
from fedrax.runtime.flower.flower_patches.pulls import Pulls
from fedrax.runtime.flower.records import MESSAGE_TYPE, from_records, to_records

REASONS = {
    1: "the node cannot load its ClientApp",
    2: "the node's ClientApp failed",
    3: "the request expired",
    4: "the answer expired",
    5: "the node is not reachable",
}
"""Flower's error codes."""
OF_NODES = (1, 2)
"""Those whose reason a node gives; of the others Flower says no more than we do."""


class FlowerTransport(Transport):
    """Sends envelopes to the nodes of a Flower run."""

    def __init__(
        self,
        grid: Grid,
        *,
        keys: bool = False,
        names: Mapping[str, str] = MappingProxyType({}),
        refused: Callable[[str], bool] = lambda part: False,
    ) -> None:
        """Args:
        keys: nodes have proved keys that last; otherwise Flower makes one for every connection.
        names: of keys, by digest.
        refused: whether the SuperLink has not taken a message's part because of its size.
        """
        self.grid, self.keys, self.names = grid, keys, names
        self.pulls = Pulls(grid, refused) if hasattr(grid, "_runtime_client") and is_tested() else None
        self._digests: dict[int, str] = {}

    def addresses(self) -> set[int]:
        """Flower's node ids; a node that died is among them for up to a minute."""
        if not self.keys:
            return set(self.grid.get_node_ids())
        nodes = self.grid.get_nodes()
        self._digests = {node.node_id: hashlib.sha256(node.public_key).hexdigest() for node in nodes}
        return set(self._digests)

    def key(self, address: int) -> str:
        """The SHA-256 digest of the key under which the SuperLink knows the node."""
        return self._digests.get(address, "")

    def site(self, address: int) -> str:
        """The name of the file of that key, as it is registered."""
        return self.names.get(self.key(address), "")

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
        if self.pulls is not None:
            return [(ticket, answer(taken)) for ticket, taken in self.pulls.collect(wanted)]
        return [(message.metadata.reply_to_message_id, answer(message)) for message in self.grid.pull_messages(wanted)]


def answer(message: Message | DecodeError) -> Answer:
    """The answer in a message from a node, or what is wrong with it."""
    if isinstance(message, DecodeError):
        return message
    if message.has_error():
        reason = REASONS.get(message.error.code, f"Flower's error {message.error.code}")
        detail = " ".join(str(message.error.reason or "").split()) if message.error.code in OF_NODES else ""
        return DeliveryError(f"{reason}: {ascii(detail)[1:-1][:200]}" if detail else reason)
    try:
        return from_records(message.content)
    except DecodeError as error:
        return error
