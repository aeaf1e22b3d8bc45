"""Secure sums within this process: who takes part, who drops out where, and all bytes that the server receives."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from fedrax.privacy.secure_sum.agent import Participant
from fedrax.privacy.secure_sum.identity import NOBODY, Identity
from fedrax.privacy.secure_sum.server import Summation
from fedrax.privacy.secure_sum.terms import Terms, threshold_of

STAGES = ("keys", "shares", "masked", "unmasked")


def terms_of(agents: int, length: int, *, bits: int = 20, share: float | None = None, round: int = 3) -> Terms:
    return Terms("run", round, agents, threshold_of(agents, share), bits, length)


def vectors_of(terms: Terms, seed: int = 0) -> dict[int, np.ndarray]:
    """Quantised vectors that use all levels, the ends among them."""
    largest = 2 ** (terms.bits - 1)
    drawn = np.random.default_rng(seed).integers(-largest, largest + 1, (terms.participants, terms.length), np.int32)
    drawn[:, :1], drawn[:, 1:2] = largest, -largest
    return dict(enumerate(drawn))


class Sum:
    """One sum, stage by stage; ``heard`` is every byte that the server receives."""

    def __init__(self, terms: Terms, identities: Mapping[int, Identity] | None = None):
        self.terms, self.server, self.heard = terms, Summation(terms), []
        known = identities or {}
        self.agents = {k: Participant(terms, k, known.get(k, NOBODY)) for k in range(terms.participants)}

    def said(self, data: bytes) -> bytes:
        self.heard.append(data)
        return data

    def run(self, vectors: Mapping[int, np.ndarray], gone: Mapping[str, Collection[int]] = {}) -> np.ndarray:
        """The total; agents in ``gone`` are silent from the stage of that name on."""
        server, there = self.server, dict(self.agents)

        def leave(stage):
            for agent in gone.get(stage, ()):
                there.pop(agent, None)

        leave("keys")
        roster = server.enrol({k: server.check_keys(k, self.said(a.keys())) for k, a in there.items()})
        leave("shares")
        sent = {k: server.check_shares(k, self.said(a.shares(roster))) for k, a in there.items()}
        relayed = server.relay(sent)
        leave("masked")
        masked = {k: server.check_masked(k, self.said(a.masked(relayed[k], vectors[k]))) for k, a in there.items()}
        survivors = server.add(masked)
        leave("unmasked")
        shown = {k: server.check_unmasked(k, self.said(a.unmasked(survivors))) for k, a in there.items()}
        return server.total(shown)
