"""Which nodes a federation's server could not take in, and why: a table beside the run's other records."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from fedrax.errors import FedraxError, one_line
from fedrax.records.files import read_json, write_json
from fedrax.records.sites import SHOWN

REFUSALS = "refused.json"
MOST = 100
"""Refusals that are kept, the newest: nodes without keys may come under ever new names."""


@dataclass(frozen=True)
class Refusal:
    """A node that is not in the run."""

    reason: str
    site: str = ""
    """The name of its key."""
    node: str = ""
    """Its own name; empty where it does not say it."""
    agent: int = -1
    """The agent that it asks to be; -1: any."""
    stays: bool = True
    """Whether it waits until it is taken in; who has ended, as settings must be mended, is named all the same."""

    @property
    def text(self) -> str:
        """Who it is, and why, in one line."""
        name = " ".join(("node", self.site or self.node[:SHOWN])).rstrip()
        return one_line(f"{name}{f', to be agent {self.agent}' if self.agent >= 0 else ''}: {self.reason}")

    @property
    def line(self) -> str:
        """The same, with what becomes of it: ``waits: node ...``, which the server asks again, or ``refused: ...``."""
        return f"{'waits' if self.stays else 'refused'}: {self.text}"


class Refusals:
    """Keeps the table; a server that starts anew goes on with it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        # Who waits asks the new server again.
        self.known = {who: refusal for who, refusal in read_refusals(file).items() if not refusal.stays}
        self.at: dict[int, str] = {}
        """Who is refused at an address, in this server's time."""

    def add(self, address: int, key: str, refusal: Refusal) -> bool:
        """Takes in that the node at an address is refused, by its key's digest if it has one; whether that is news."""
        who = key or refusal.node or str(address)
        before, self.at[address] = self.known.pop(who, None), who
        self.known[who] = refusal
        self.known = dict(list(self.known.items())[-MOST:])
        if refusal != before:
            self._write()
        return refusal != before

    def remove(self, address: int, key: str, node: str) -> None:
        """Takes in that a node has joined."""
        self._drop({self.at.pop(address, ""), key, node, str(address)})

    def look(self, addresses: Collection[int]) -> None:
        """Takes in where there are nodes now: who waited for a place and has gone waits no longer."""
        gone = {who for address, who in self.at.items() if address not in addresses}
        self.at = {address: who for address, who in self.at.items() if address in addresses}
        self._drop({who for who in gone if who in self.known and self.known[who].stays} - set(self.at.values()))

    def _drop(self, names: Collection[str]) -> None:
        kept = {who: refusal for who, refusal in self.known.items() if who not in names}
        if len(kept) < len(self.known):
            self.known = kept
            self._write()

    def _write(self) -> None:
        write_json(self.file, {who: asdict(refusal) for who, refusal in self.known.items()}, private=True)


def read_refusals(file: Path) -> dict[str, Refusal]:
    """The table in a file, by who is refused; it is for people alone: where it is damaged, nobody is."""
    with contextlib.suppress(FedraxError, TypeError, AttributeError):
        table = read_json(file, "list of refused nodes") if file.exists() else {}
        found = {who: Refusal(**each) for who, each in table.items()}
        if all(isinstance(getattr(each, name), kind) for each in found.values() for name, kind in KINDS.items()):
            return found
    return {}


KINDS = {"reason": str, "site": str, "node": str, "agent": int, "stays": bool}
