"""What the server and the nodes of a run agree on before a secure sum."""

from __future__ import annotations

import hashlib

from fedrax.config import Config
from fedrax.privacy.guarantee import most_noise
from fedrax.privacy.secure_sum.terms import Terms, threshold_of
from fedrax.runtime.distributed.envelopes import MASK, MASKED, SHARE, SHARED, UNMASK, UNMASKED

ANSWERS = {SHARE: SHARED, MASK: MASKED, UNMASK: UNMASKED}
"""The kinds of requests after that for keys, and of their answers."""


def terms_of(config: Config, run: str, round: int, context: bytes, *, participants: int, length: int) -> Terms:
    """The terms of a round's sum, of updates of so many numbers: the server's and every agent's."""
    settings = config.privacy
    assert settings.bits is not None
    threshold = threshold_of(participants, settings.threshold)
    noise = most_noise(settings, participants)
    return Terms(run, round, participants, threshold, settings.bits, length, noise, context)


def context_of(config: str, broadcast: str) -> bytes:
    """What everybody in a round's sum was sent: the run's configuration as TOML, and a broadcast of this digest."""
    return hashlib.sha256(hashlib.sha256(config.encode()).digest() + bytes.fromhex(broadcast)).digest()


def digest_of(broadcast: bytes) -> str:
    """A broadcast's, in hexadecimal."""
    return hashlib.sha256(broadcast).hexdigest()
