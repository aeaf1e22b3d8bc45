"""Which node is which agent, across restarts of nodes and of the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedrax.records.files import read_json, write_json
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


class Membership:
    """Which node is each agent, and which nodes can be reached."""

    def __init__(self, count: int, file: Path) -> None:
        """Args:
        count: agents of the federation.
        file: where names are remembered, so that a restarted server knows its agents again.
        """
        self.count, self.file = count, file
        self.names: dict[str, int] = {}
        """Agents by node name, of all nodes that ever joined."""
        self.present: dict[int, Member] = {}
        """Members that can be reached, by agent."""
        if file.exists():
            known = read_json(file, "list of members")
            self.names = {str(name): int(index) for name, index in known.items()}

    def admit(self, address: int, envelope: Envelope, *, run: str, addresses: set[int]) -> Member:
        """The member that a node becomes by its answer; ``addresses`` are where there are nodes now.

        Raises:
            Rejected: the answer is not one, or the agent is another node, or every agent is.
        """
        fields = check_envelope(envelope, JOINED, {"run": run}).fields
        name, wanted = str(fields["node"]), int(fields["agent"])
        if not name.isalnum():
            raise Rejected("its name is not of letters and digits")
        if name in self.names:
            index = self.names[name]
            if wanted not in (UNKNOWN, index):
                raise Rejected(f"it asks to be agent {wanted}, and was agent {index}")
        else:
            index = self._agent(wanted)
        holder = self.present.get(index)
        if holder is not None and holder.address != address and holder.address in addresses:
            raise Rejected(f"agent {index} is another node, which is there")
        self.present[index] = member = Member(index, name, address, int(fields["done"]))
        if name not in self.names:
            self.names[name] = index
            write_json(self.file, self.names)
        return member

    def _agent(self, wanted: int) -> int:
        taken = set(self.names.values())
        if wanted == UNKNOWN:
            free = [index for index in range(self.count) if index not in taken]
            if not free:
                raise Rejected(f"all {self.count} agents are other nodes")
            return free[0]
        if not 0 <= wanted < self.count:
            raise Rejected(f"it asks to be agent {wanted}, and there are agents 0 to {self.count - 1}")
        if wanted in taken:
            raise Rejected(f"it asks to be agent {wanted}, which is another node")
        return wanted

    def name_of(self, index: int) -> str:
        """The name of the node that is this agent; empty where none ever was."""
        return next((name for name, agent in self.names.items() if agent == index), "")

    def forget(self, addresses: set[int]) -> None:
        """Removes the members whose node is gone; no other node becomes their agent."""
        self.present = {index: member for index, member in self.present.items() if member.address in addresses}

    def by_address(self) -> Mapping[int, Member]:
        """The present members by address."""
        return {member.address: member for member in self.present.values()}
