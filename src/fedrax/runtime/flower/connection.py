"""What people are told of a node's connection to its SuperLink: the obstacle, once until it is another, and when the
connection is made.

A SuperNode retries for ever where nobody listens, or plain text meets TLS, and says only that it retries. It ends
where a certificate or its key is refused, and is started again. So the node looks for itself what is in the way.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from fedrax.runtime.flower.endpoint import NODES, Endpoint
from fedrax.runtime.flower.health import obstacle
from fedrax.runtime.flower.processes import Watched
from fedrax.runtime.flower.run_lock import Tail

LOOK_SECONDS = 1.0
"""Between two looks at what is in the way."""
CONNECTED_LOOK_SECONDS = 10.0
"""The same of a SuperNode that is connected: it goes on trying by itself where its SuperLink has ended."""
CONNECTED = "SuperNode ID:"
"""In the line that a SuperNode logs once it is connected."""
FAILED = "Exit Code:"
"""In the line that a SuperNode logs before the reason why it ends."""
REFUSED = "Failed to activate SuperNode"
"""In the reason where the SuperLink knows nothing of the key, or of another connection with it that is not over."""
PASSING_SECONDS = 90.0
"""How long a key may be refused for what passes: the server still registers keys, each of which takes seconds, or
Flower has not noticed that the key's last connection is over, which takes up to a minute."""
LONGEST = 300
"""Characters shown of what a SuperNode said last."""


class Connection:
    """A node's connection, by what its SuperNode logs and what a look at the SuperLink finds."""

    def __init__(self, endpoint: Endpoint, key: Path | None, log: Path) -> None:
        self.endpoint, self.key = endpoint, key
        self.tail = Tail(log)
        self.connected = False
        self.told: str | None = None
        """The obstacle that was told last, while it is one."""
        self.looked = 0.0
        self.found: str | None = None
        """What the last look found in the way."""
        self.refused: float | None = None
        """When the key was refused first, since it was not, or nobody listened."""
        self.lines: list[str] = []
        """What the SuperNode logged since it was started, while it is not connected."""

    def watch(self, supernode: Watched) -> Iterator[str]:
        """Starts the SuperNode again if it has died; what to tell people."""
        ended = supernode.watch()
        yield from self._read()
        if ended is not None and self.connected:
            self.connected = False
            yield ended
        elif ended is not None:
            yield from self._once(self.found or self._reason(ended))
            self.lines = []
        elif time.monotonic() - self.looked >= (CONNECTED_LOOK_SECONDS if self.connected else LOOK_SECONDS):
            yield from self._look()

    def _look(self) -> Iterator[str]:
        self.looked = time.monotonic()
        before, self.found = self.found, obstacle(self.endpoint)
        # Found twice: a busy machine may be late once.
        lasting = self.found if self.found == before else None
        yield from self._once(lasting)
        if lasting is not None:
            self.refused = None
        if self.connected and self.told is not None and self.found is None:
            self.told = None
            yield f"the SuperLink at {self.endpoint.address} answers again"

    def _read(self) -> Iterator[str]:
        for line in self.tail.lines():
            if CONNECTED in line:
                self.connected, self.found, self.refused, self.lines = True, None, None, []
                self.told = None
                yield f"connected to the SuperLink at {self.endpoint.address}"
            elif not self.connected:
                self.lines.append(line)

    def _once(self, text: str | None) -> Iterator[str]:
        if text is not None and text != self.told:
            self.told = text
            yield f"{text}; trying again"

    def _reason(self, ended: str) -> str:
        """Why the SuperNode ended before it was connected, as its log says."""
        found = [number for number, line in enumerate(self.lines) if FAILED in line]
        if not found:
            return ended.removesuffix("; it is started again")
        words = []
        for line in self.lines[found[-1] + 1 :]:
            if not line.strip():
                break
            words.append(line.strip())
        text = " ".join(words)
        if REFUSED in text:
            return self._refusal()
        # It may hold what the SuperLink answered.
        shown = "".join(each if each.isprintable() else " " for each in text)[:LONGEST]
        return f"the SuperNode does not connect: {shown} ({self.tail.path})"

    def _refusal(self) -> str:
        """Why the key is refused: what passes by itself, until that would have passed."""
        now = time.monotonic()
        self.refused = now if self.refused is None else self.refused
        address = self.endpoint.address
        if now - self.refused < PASSING_SECONDS:
            return (
                f"the SuperLink at {address} does not take the key {self.key} yet: a server that has just started "
                "registers the nodes' keys one after the other, and a node that was killed is let back in within a "
                "minute"
            )
        return (
            f"the SuperLink at {address} still does not take the key {self.key}: its public half is not in {NODES}/ of "
            "the server's certificates (put it there, and start the server again), or another node uses this key"
        )
