"""What everyone who takes part in a secure sum knows of it, and which sums can be had."""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

WORD = 32
"""Bits in which integers are summed."""
LEAST = 3
"""Participants of a sum: of two, each would know the other's part."""
MOST = 100
"""Participants between all of whom there are masks."""


class SecureSumError(Exception):
    """What cannot be done, or is not done because it would show too much; the text says why."""


class TooFew(SecureSumError):
    """Fewer are left than the threshold: the sum cannot be had, and nobody's part is shown."""


class Terms(NamedTuple):
    """One sum's; whoever takes part with others finds no signature and no share of it valid."""

    run: str
    round: int
    participants: int
    """Who might take part, at most."""
    threshold: int
    """Who must stay to the end."""
    bits: int
    """Of a quantised coordinate."""
    length: int
    """Coordinates of a vector."""
    noise: int = 0
    """The most that noise adds to a number of one agent's; independent, over n agents sqrt(n) times that."""
    context: bytes = b""
    """A digest of what everybody was sent before. A server that shows agents different models, so that all updates but
    one are known beforehand (Pasquini et al., 2022), leaves them with masks that do not cancel."""

    def check(self) -> None:
        """Raises :class:`SecureSumError` for terms under which somebody's part could be seen, or the sum overflow."""
        if self.participants < LEAST:
            raise SecureSumError(f"a sum of {self.participants} agents would show their parts; it takes {LEAST}")
        if not self.participants // 2 < self.threshold <= self.participants:
            # Otherwise two halves could be told two stories of who dropped out.
            raise SecureSumError(f"a threshold of {self.threshold} of {self.participants} agents is no majority")
        if self.bits > most_bits(self.participants):
            raise SecureSumError(f"sums of {self.participants} numbers of {self.bits} bits pass {WORD} bits")

    def largest(self, agents: int) -> int:
        """The largest number of a sum over so many agents, without its sign."""
        return agents * 2 ** (self.bits - 1) + math.ceil(self.noise * math.sqrt(agents))

    def tagged(self, purpose: str, *agents: int) -> bytes:
        """These terms, a purpose and whom it concerns as bytes that nothing else has: what keys are derived for."""
        words = self.run.encode() + self.context
        numbers = (
            len(words),
            self.round,
            self.participants,
            self.threshold,
            self.bits,
            self.length,
            self.noise,
            *agents,
        )
        return b"fedrax secure sum 1 " + purpose.encode() + b"\0" + struct.pack(f"<{len(numbers)}Q", *numbers) + words


def most_bits(participants: int, noise: float = 0.0) -> int:
    """The most bits of a quantised number of which a sum over so many fits: ``participants + noise < 2^(32 - bits)``.

    ``noise`` is the most that noise adds to the sum, in units of the largest such number.
    """
    return WORD - math.floor(participants + noise).bit_length()


def threshold_of(participants: int, share: float | None) -> int:
    """How many of the participants must stay to the end.

    Unset, ``floor(2n/3) + 1``: then neither that many colluding nodes less one, nor a lying server with fewer than a
    third of the nodes, sees anybody's part. ``share`` is one above a half.
    """
    if share is None:
        return 2 * participants // 3 + 1
    return max(math.ceil(share * participants), participants // 2 + 1)
