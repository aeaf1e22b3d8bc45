"""Which node is which agent, across restarts of nodes and of the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fedrax.errors import FedraxError
from fedrax.records.files import keep_private, read_json, write_json
from fedrax.runtime.distributed.checks import Rejected, check_envelope
from fedrax.runtime.distributed.envelopes import JOINED, Envelope

UNKNOWN = -1
"""Where a node does not say which agent it is, or wants to be."""


@dataclass(frozen=True)
class Member:
    """A node that has joined."""

    index: int
    """The agent it is."""
    name: str
    """What it calls itself, the same after a restart."""
    address: int
    done: int
    """The number of the round it would do next, as it says."""


class Place(NamedTuple):
    """Whose an agent's place is, for good."""

    node: str
    """Its name."""
    key: str = ""
    """The digest of its key; empty where nodes have none."""
    address: int | None = None
    """Where it was last."""


class Membership:
    """Which node is each agent, and which nodes can be reached.

    A place is a key's, and a key has one: whatever names its node goes by. Where nodes have no keys, it is the name's,
    and who is at one address has one.
    """

    def __init__(self, count: int, file: Path) -> None:
        """Args:
        count: agents of the federation.
        file: where places are remembered, so that a restarted server knows its agents again.
        """
        self.count, self.file = count, file
        self.places: dict[int, Place] = {}
        """By agent, of all nodes that ever joined."""
        self.present: dict[int, Member] = {}
        """Members that can be reached, by agent."""
        if file.exists():
            self.places = read_places(file)
            keep_private(file)

    def admit(self, address: int, envelope: Envelope, *, run: str, addresses: set[int], key: str = "") -> Member:
        """The member that a node becomes by its answer.

        Args:
            addresses: where there are nodes now.
            key: what it has proved to hold, see :meth:`~fedrax.runtime.distributed.transport.Transport.key`.

        Raises:
            Rejected: the answer is not one, or the agent is another node, or every agent is.
        """
        fields = check_envelope(envelope, JOINED, {"run": run}).fields
        name, wanted = str(fields["node"]), int(fields["agent"])
        if not name.isalnum():
            raise Rejected("its name is not of letters and digits")
        index = self._own(name, key, address)
        if index is None:
            index = self._free(wanted)
        elif wanted not in (UNKNOWN, index):
            raise Rejected(f"it asks to be agent {wanted}, and was agent {index}")
        holder = self.present.get(index)
        if holder is not None and holder.address != address and holder.address in addresses:
            raise Rejected(f"agent {index} is another node, which is there")
        self.present[index] = member = Member(index, name, address, int(fields["done"]))
        place = Place(name, key, address)
        if self.places.get(index) != place:
            self.places[index] = place
            table = {str(agent): each._asdict() for agent, each in sorted(self.places.items())}
            write_json(self.file, table, private=True)
        return member

    def _own(self, name: str, key: str, address: int) -> int | None:
        """The agent that a node was before, by what it cannot choose where that is known."""
        for agent, place in self.places.items():
            if key and place.key == key:
                return agent
            if place.node == name:
                if place.key and place.key != key:
                    raise Rejected(f"it goes by the name of agent {agent}, and its key is another")
                return agent
            if not key and place.address == address:
                raise Rejected(f"it joins under another name, and is agent {agent} already")
        return None

    def _free(self, wanted: int) -> int:
        if wanted == UNKNOWN:
            free = [index for index in range(self.count) if index not in self.places]
            if not free:
                others = (
                    f"all {self.count} agents are other nodes" if self.count > 1 else "the only agent is another node"
                )
                raise Rejected(
                    f"{others}; where one is gone for good, whoever runs the server removes its place from "
                    f"{self.file.name} there, and starts the server again"
                )
            return free[0]
        if not 0 <= wanted < self.count:
            raise Rejected(f"it asks to be agent {wanted}, and there are agents 0 to {self.count - 1}")
        if wanted in self.places:
            raise Rejected(
                f"it asks to be agent {wanted}, which is another node; where that is gone for good, whoever runs the "
                f"server removes its place from {self.file.name} there, and starts the server again"
            )
        return wanted

    def name_of(self, index: int) -> str:
        """The name of the node that is this agent; empty where none ever was."""
        return self.places[index].node if index in self.places else ""

    def forget(self, addresses: set[int]) -> None:
        """Removes the members whose node is gone; no other node becomes their agent."""
        self.present = {index: member for index, member in self.present.items() if member.address in addresses}

    def by_address(self) -> Mapping[int, Member]:
        """The present members by address."""
        return {member.address: member for member in self.present.values()}


def read_places(file: Path) -> dict[int, Place]:
    """The places in a file, by agent; also of runs that knew names alone (``{name: agent}``).

    Raises:
        FedraxError: the file is damaged.
    """
    table = read_json(file, "list of members")
    try:
        if all(type(value) is int for value in table.values()):
            places = {agent: Place(name) for name, agent in table.items()}
        else:
            places = {
                int(agent): Place(str(each["node"]), str(each["key"]), each["address"]) for agent, each in table.items()
            }
        if len(places) < len(table) or not all(type(each.address) in (int, type(None)) for each in places.values()):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise FedraxError(f"the list of members {file} is damaged: it is no table of agents; mend it by hand") from None
    return places
