"""Answers taken from a SuperLink part by part, so that one that is never whole holds nobody up.

Flower's own pull waits, for hours where it must, until every part of every message that it has begun to take is there;
and what it cannot read ends the server. It uses internals of the Flower versions that :mod:`.commands` names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from flwr.app import Message
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree, PullObjectRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from fedrax.parsing import DecodeError
from fedrax.runtime.flower.flower_patches.commands import PULL_WAIT

PATIENCE = 0.5
"""Seconds for which the parts of an answer are waited for, once: most follow at once, and to look again and again costs
the SuperLink more than they do."""
MOST_PARTS = 8
"""Of a message: itself, its table of records, a header and a payload are four."""


@dataclass
class Partial:
    """A message that has been announced."""

    name: str
    missing: list[str]
    """Parts that have not arrived."""
    contents: dict[str, bytes] = field(default_factory=dict)
    patience: float = PATIENCE
    """Seconds for which its parts may still be waited for."""


class Pulls:
    """Takes messages from a grid over HTTP."""

    def __init__(
        self, grid: Any, refused: Callable[[str], bool], *, pause: Callable[[float], None] = time.sleep
    ) -> None:
        """Args:
        refused: says of a part whether the SuperLink did not take it because of its size.
        pause: lets so many seconds pass.
        """
        self.grid, self.refused, self.pause = grid, refused, pause
        self.partial: dict[str, Partial] = {}
        """By ticket."""

    def collect(self, tickets: Sequence[str]) -> list[tuple[str, Message | DecodeError]]:
        """The whole answers to these tickets by now, and what is wrong with those that never will be.

        It waits for :data:`PATIENCE` at most, once for each answer.
        """
        self.partial = {ticket: partial for ticket, partial in self.partial.items() if ticket in tickets}
        done: list[tuple[str, Message | DecodeError]] = []
        unknown = [ticket for ticket in tickets if ticket not in self.partial]
        if unknown:
            announced = self.grid._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=unknown))
            for message, tree in zip(announced.messages_list, announced.message_object_trees, strict=True):
                ticket = message.metadata.reply_to_message_id
                parts = _parts(tree)
                if parts is None:
                    self._confirm(message.metadata.message_id)
                    done.append((ticket, DecodeError(f"an answer of more than {MOST_PARTS} parts")))
                else:
                    self.partial[ticket] = Partial(message.metadata.message_id, parts)
        for ticket, partial in list(self.partial.items()):
            result = self._result(partial)
            while result is None and partial.patience > 0:
                self.pause(PULL_WAIT)
                partial.patience -= PULL_WAIT
                result = self._result(partial)
            if result is not None:
                del self.partial[ticket]
                self._confirm(partial.name)
                done.append((ticket, result))
        return done

    def _result(self, partial: Partial) -> Message | DecodeError | None:
        """The message, or what is wrong with it; None while it is on its way."""
        while partial.missing:
            part = partial.missing[0]
            request = PullObjectRequest(node=self.grid.node, run_id=self.grid.run.run_id, object_id=part)
            answer = self.grid._runtime_client.PullObject(request)
            if answer.object_found and not answer.object_available:
                return DecodeError("its answer is larger than any that is asked for") if self.refused(part) else None
            if not answer.object_found:
                return DecodeError("a part of its answer did not arrive")
            partial.contents[part] = answer.object_content
            del partial.missing[0]
        try:
            message = cast(Message, inflate_object_from_contents(partial.name, partial.contents))
            message.metadata.__dict__["_message_id"] = partial.name
        except Exception as error:
            # Whatever a node sent, it must not end the server.
            return DecodeError(f"its answer cannot be read ({type(error).__name__})")
        return message

    def _confirm(self, name: str) -> None:
        """Lets the SuperLink forget a message."""
        request = ConfirmMessageReceivedRequest(
            node=self.grid.node, run_id=self.grid.run.run_id, message_object_id=name
        )
        self.grid._runtime_client.ConfirmMessageReceived(request)


def _parts(tree: ObjectTree) -> list[str] | None:
    """The names of a message's parts; None where they are too many."""
    names: list[str] = []
    for each in iterate_object_tree(tree):
        names.append(each.object_id)
        if len(names) > MOST_PARTS:
            return None
    return names
