"""The server's half of a secure sum: it relays what it cannot read, adds up what it cannot see, and unmasks the sum."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from jaxtyping import Int32

from fedrax.privacy.secure_sum import shamir
from fedrax.privacy.secure_sum.keys import BYTES, agreed, mask_key
from fedrax.privacy.secure_sum.masks import Words, adds, put, stream
from fedrax.privacy.secure_sum.terms import SecureSumError, Terms, TooFew
from fedrax.privacy.secure_sum.wire import (
    Entry,
    agents_bytes,
    entries_bytes,
    read_entries,
    read_sealed,
    read_shares,
    sealed_bytes,
)


class Summation:
    """One sum. Each stage has a check of an agent's answer, and a step that takes the answers of those who stayed."""

    def __init__(self, terms: Terms) -> None:
        """Raises :class:`SecureSumError` for terms that agents would refuse."""
        terms.check()
        self.terms = terms
        self.roster: dict[int, Entry] = {}
        """Who advertised keys."""
        self.went_on: list[int] = []
        """Whose shares were relayed."""
        self.survivors: list[int] = []
        """Whose masked vectors are in the sum."""
        self._words: Words = np.zeros(terms.length, np.uint32)

    @property
    def authenticated(self) -> bool:
        """Whether everybody on the roster asks its peers for signatures."""
        return bool(self.roster) and all(entry.checks for entry in self.roster.values())

    # Stage A.

    def check_keys(self, agent: int, answer: bytes) -> Entry:
        """An agent's keys.

        Raises:
            SecureSumError: they are none, or another agent's.
        """
        entries = read_entries(answer)
        if [entry.agent for entry in entries] != [agent]:
            raise SecureSumError("keys of other agents than the one that was asked")
        for public in (entries[0].sealing, entries[0].masking):
            agreed(X25519PrivateKey.generate(), public, b"")
        return entries[0]

    def enrol(self, entries: Mapping[int, Entry]) -> bytes:
        """The roster, which is everybody's request of stage B.

        Raises:
            TooFew: for the threshold.
        """
        self._demand(entries, "have keys for it")
        self.roster = dict(sorted(entries.items()))
        return entries_bytes(self.roster.values())

    # Stage B.

    def check_shares(self, agent: int, answer: bytes) -> dict[int, bytes]:
        """An agent's sealed shares by receiver.

        Raises:
            SecureSumError: they are not for exactly all the others.
        """
        shares = read_sealed(answer)
        if set(shares) != set(self.roster) - {agent}:
            raise SecureSumError("shares that are not for all the others")
        return shares

    def relay(self, shares: Mapping[int, Mapping[int, bytes]]) -> dict[int, bytes]:
        """What was sealed for each agent of those who go on, which is its request of stage C.

        Raises:
            TooFew: for the threshold.
        """
        self._demand(shares, "have shared their secrets")
        self.went_on = sorted(shares)
        return {
            agent: sealed_bytes({peer: shares[peer][agent] for peer in self.went_on if peer != agent})
            for agent in self.went_on
        }

    # Stage C.

    def check_masked(self, agent: int, answer: bytes) -> Words:
        """An agent's masked vector; nothing can be told by it.

        Raises:
            SecureSumError: it has another length.
        """
        if len(answer) != 4 * self.terms.length:
            raise SecureSumError(f"{len(answer)} bytes where a masked vector has {4 * self.terms.length}")
        return np.frombuffer(answer, "<u4").astype(np.uint32, copy=False)

    def add(self, masked: Mapping[int, Words]) -> bytes:
        """Adds up the masked vectors; who survived, which is everybody's request of stage D.

        Raises:
            TooFew: for the threshold.
        """
        self._demand(masked, "have sent their masked vectors")
        self.survivors = sorted(masked)
        for words in masked.values():
            put(self._words, words, add=True)
        return agents_bytes(self.survivors)

    # Stage D.

    def check_unmasked(self, agent: int, answer: bytes) -> dict[int, int]:
        """The shares that an agent shows, by the agent whose secret it is: survivors' seeds, the others' keys.

        Raises:
            SecureSumError: they are too many or too few.
        """
        shares = zip(self.went_on, read_shares(answer, len(self.went_on)), strict=True)
        return {peer: share for peer, share in shares if share is not None}

    def total(self, shown: Mapping[int, Mapping[int, int]]) -> Int32[np.ndarray, " d"]:
        """The sum of the survivors' vectors, of the shares that agents have shown.

        Raises:
            TooFew: for the threshold.
            SecureSumError: shares do not fit together, or the sum cannot be one of such vectors: somebody lied.
        """
        self._demand(shown, "have shown their shares")
        secrets = {peer: self._joined(peer, shown) for peer in self.went_on}
        words = self._words.copy()
        for agent in self.survivors:
            put(words, stream(secrets[agent], self.terms), add=False)
        for gone in set(self.went_on) - set(self.survivors):
            self._take_off(words, gone, secrets[gone])
        total = words.view(np.int32)
        bound = self.terms.largest(len(self.survivors))
        if ((total < -bound) | (total > bound)).any():
            raise SecureSumError("the sum is larger than any of such vectors: a node lied about its vector or a share")
        return total

    def _joined(self, peer: int, shown: Mapping[int, Mapping[int, int]]) -> bytes:
        """The secret of an agent."""
        shares = {agent + 1: shown[agent][peer] for agent in sorted(shown) if peer in shown[agent]}
        if len(shares) < self.terms.threshold:
            raise TooFew(f"{len(shares)} shares of agent {peer}'s secret, and {self.terms.threshold} are needed")
        secret = shamir.joined(dict(list(shares.items())[: self.terms.threshold]))
        if secret >= 2 ** (8 * BYTES):
            raise SecureSumError(f"shares of agent {peer}'s secret that do not fit together: a node lied")
        return secret.to_bytes(BYTES, "little")

    def _take_off(self, words: Words, gone: int, secret: bytes) -> None:
        """Removes the masks that survivors have with an agent that dropped out."""
        key = X25519PrivateKey.from_private_bytes(secret)
        if key.public_key().public_bytes_raw() != self.roster[gone].masking:
            raise SecureSumError(f"shares of agent {gone}'s key that do not fit together: a node lied")
        for agent in self.survivors:
            mask = stream(mask_key(key, self.roster[agent].masking, self.terms, (agent, gone)), self.terms)
            put(words, mask, add=not adds(agent, gone))

    def _demand(self, agents: Collection[int], what: str) -> None:
        if len(agents) < self.terms.threshold:
            raise TooFew(f"{len(agents)} agents {what}, and the threshold is {self.terms.threshold}")
