"""The server's post over Flower's grid: messages are pushed and pulled, nothing blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid

from fedrax.arrays import DecodeError
from fedrax.runtime.flower.records import MESSAGE_TYPE, from_records, to_records
from fedrax.runtime.remote.letters import Letter
from fedrax.runtime.remote.post import Answer, Lost, Post

REASONS = {
    1: "the node cannot load its ClientApp",
    2: "the node's ClientApp failed",
    3: "the letter expired",
    4: "the answer expired",
    5: "the node is not reachable",
}
"""Flower's error codes."""


class FlowerPost(Post):
    """Carries letters to the nodes of a Flower run."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def addresses(self) -> set[int]:
        """Flower's node ids; a node that died is among them for up to a minute."""
        return set(self.grid.get_node_ids())

    def send(self, letters: Sequence[tuple[int, Letter]], *, seconds: float) -> list[str]:
        """Pushes messages, which expire after so long."""
        payloads: dict[int, ConfigRecord] = {}
        messages = [
            Message(to_records(letter, payloads), dst_node_id=address, message_type=MESSAGE_TYPE, ttl=max(seconds, 1.0))
            for address, letter in letters
        ]
        return list(self.grid.push_messages(messages))

    def collect(self, tickets: Iterable[str]) -> list[tuple[str, Answer]]:
        """Pulls what has arrived."""
        wanted = list(tickets)
        if not wanted:
            return []
        return [(message.metadata.reply_to_message_id, answer(message)) for message in self.grid.pull_messages(wanted)]


def answer(message: Message) -> Answer:
    """What a message from a node is worth."""
    if message.has_error():
        reason = REASONS.get(message.error.code, f"Flower's error {message.error.code}")
        detail = " ".join(str(message.error.reason or "").split())
        return Lost(f"{reason}: {ascii(detail)[1:-1][:200]}" if detail else reason)
    try:
        return from_records(message.content)
    except DecodeError as error:
        return error
