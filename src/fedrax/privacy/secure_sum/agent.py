"""An agent's half of a secure sum: four stages in their order, each once, and no more shown than one sum needs.

Bonawitz et al. (2017), figure 4, without its round of consistency checks. Secrets are in this process's memory alone.
"""

from __future__ import annotations

import enum
import hashlib
import secrets
from collections.abc import Callable, Collection, Mapping

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from jaxtyping import Int32

from fedrax.privacy.secure_sum import shamir
from fedrax.privacy.secure_sum.identity import Identity
from fedrax.privacy.secure_sum.keys import BYTES, mask_key, opened, sealed, sealing_key
from fedrax.privacy.secure_sum.masks import adds, put, stream
from fedrax.privacy.secure_sum.signatures import fingerprint, is_signed, signed
from fedrax.privacy.secure_sum.terms import SecureSumError, Terms
from fedrax.privacy.secure_sum.wire import (
    Entry,
    entries_bytes,
    read_agents,
    read_entries,
    read_sealed,
    sealed_bytes,
    shares_bytes,
)


class Stage(enum.IntEnum):
    """What an agent is asked for, in this order."""

    KEYS = 0
    SHARES = 1
    MASKED = 2
    UNMASKED = 3


class Participant:
    """One agent in one sum.

    A request that comes again gets the same answer again; another request of a stage that was answered is refused.
    So an agent's vector is masked once, and of every peer it shows either the share of the peer's seed or that of its
    key: who had a threshold of both could take off both of the peer's masks.
    """

    def __init__(self, terms: Terms, agent: int, identity: Identity) -> None:
        """Raises :class:`SecureSumError` for terms under which the agent's part could be seen."""
        terms.check()
        self.terms, self.agent, self.identity = terms, agent, identity
        self._sealing, self._masking = X25519PrivateKey.generate(), X25519PrivateKey.generate()
        self._seed = secrets.token_bytes(BYTES)
        """Of the agent's own mask."""
        self._answers: dict[Stage, tuple[bytes, bytes]] = {}
        """By stage, a digest of the request and the answer."""
        self._entry: Entry = self._advertised()
        self._roster: dict[int, Entry] = {}
        self._held: dict[int, tuple[int, int] | None] = {}
        """The shares that the agent holds of each peer's seed and key, its own included; None: unreadable."""

    @property
    def stage(self) -> Stage | None:
        """The last stage that was answered; None before the first."""
        return max(self._answers, default=None)

    def _advertised(self) -> Entry:
        public = (self._sealing.public_key().public_bytes_raw(), self._masking.public_key().public_bytes_raw())
        entry, own = Entry(self.agent, *public, self.identity.peers is not None), self.identity.own
        if own is None:
            return entry
        signature = signed(own, entry.content(self.terms))
        return entry._replace(signer=fingerprint(own.public_key()), signature=signature)

    def keys(self) -> bytes:
        """Stage A: the agent's public keys, signed where it has a registered key."""
        return self._once(Stage.KEYS, b"", lambda: entries_bytes([self._entry]))

    def shares(self, roster: bytes) -> bytes:
        """Stage B: shares of the agent's secrets for everybody on the roster, each sealed for its receiver.

        Raises:
            SecureSumError: too few are on the roster, or somebody who is not who it says.
        """
        return self._once(Stage.SHARES, roster, lambda: self._shared(roster))

    def masked(self, sealed_shares: bytes, vector: Int32[np.ndarray, " d"]) -> bytes:
        """Stage C: the quantised vector under all masks, ``uint32[d]``.

        Args:
            sealed_shares: what the peers who go on sealed for this agent.
            vector: as the terms say.

        Raises:
            SecureSumError: too few go on, or the vector is not as the terms say.
        """
        return self._once(Stage.MASKED, sealed_shares, lambda: self._under_masks(sealed_shares, vector))

    def unmasked(self, survivors: bytes) -> bytes:
        """Stage D: for every peer who went on, the share of its seed if it survived, of its key if it dropped out.

        Raises:
            SecureSumError: too few survived, or this agent or somebody who did not go on is said to have.
        """
        return self._once(Stage.UNMASKED, survivors, lambda: self._shown(survivors))

    def _once(self, stage: Stage, request: bytes, make: Callable[[], bytes]) -> bytes:
        digest = hashlib.sha256(request).digest()
        if stage in self._answers:
            known, answer = self._answers[stage]
            if known != digest:
                raise SecureSumError(f"another request of the stage {stage.name.lower()}, which was answered before")
            return answer
        if stage != len(self._answers):
            raise SecureSumError(f"the stage {stage.name.lower()} out of its order")
        answer = make()
        self._answers[stage] = (digest, answer)
        return answer

    def _shared(self, roster: bytes) -> bytes:
        entries = {entry.agent: entry for entry in read_entries(roster)}
        self._check_count(entries)
        if len(entries) > self.terms.participants or entries.get(self.agent) != self._entry:
            raise SecureSumError("a roster of more than take part, or without this agent's own keys")
        self._check_signatures(entries)
        points = [agent + 1 for agent in entries]
        seed = shamir.split(int.from_bytes(self._seed, "little"), self.terms.threshold, points)
        key = int.from_bytes(self._masking.private_bytes_raw(), "little")
        key_shares = shamir.split(key, self.terms.threshold, points)
        answer = {}
        for agent, entry in entries.items():
            shares = seed[agent + 1], key_shares[agent + 1]
            if agent == self.agent:
                self._held[agent] = shares
                continue
            own = sealing_key(self._sealing, entry.sealing, self.terms, self.agent, agent)
            answer[agent] = sealed(own, shares_bytes(shares))
        self._roster = entries
        return sealed_bytes(answer)

    def _check_count(self, agents: Collection[int]) -> None:
        if len(agents) < self.terms.threshold:
            raise SecureSumError(f"{len(agents)} agents, and the threshold is {self.terms.threshold}")

    def _check_signatures(self, entries: Mapping[int, Entry]) -> None:
        """Raises :class:`SecureSumError` unless everybody is another one of the nodes whose keys this one was given."""
        if self.identity.peers is None:
            return
        for entry in entries.values():
            key = self.identity.peers.get(entry.signer)
            if key is None:
                raise SecureSumError(f"keys of agent {entry.agent} that no registered key signed")
            if not is_signed(key, entry.content(self.terms), entry.signature):
                raise SecureSumError(f"keys of agent {entry.agent} that its registered key did not sign")
        if len({entry.signer for entry in entries.values()}) < len(entries):
            raise SecureSumError("one node's registered key signed for several agents")

    def _under_masks(self, sealed_shares: bytes, vector: Int32[np.ndarray, " d"]) -> bytes:
        received = read_sealed(sealed_shares)
        peers = set(received)
        if not peers <= set(self._roster) - {self.agent}:
            raise SecureSumError("shares from agents that are not on the roster, or from this one")
        self._check_count({*peers, self.agent})
        largest = self.terms.largest(1)
        # Not by the absolute value: of the least integer there is none.
        if vector.shape != (self.terms.length,) or not ((vector >= -largest) & (vector <= largest)).all():
            raise SecureSumError("a vector that is not as the terms say")
        words = vector.astype(np.int32).view(np.uint32)
        put(words, stream(self._seed, self.terms), add=True)
        for peer in peers:
            key = mask_key(self._masking, self._roster[peer].masking, self.terms, (self.agent, peer))
            put(words, stream(key, self.terms), add=adds(self.agent, peer))
        self._held |= {peer: self._opened(peer, data) for peer, data in received.items()}
        return words.astype("<u4", copy=False).tobytes()

    def _opened(self, peer: int, data: bytes) -> tuple[int, int] | None:
        """A peer's shares; None where it sealed something else, which must not end the sum of the others."""
        text = opened(sealing_key(self._sealing, self._roster[peer].sealing, self.terms, peer, self.agent), data)
        if text is None:
            return None
        half = shamir.BYTES
        return int.from_bytes(text[:half], "little"), int.from_bytes(text[half:], "little")

    def _shown(self, survivors: bytes) -> bytes:
        stayed = set(read_agents(survivors))
        self._check_count(stayed)
        if self.agent not in stayed or not stayed <= set(self._held):
            raise SecureSumError("survivors without this agent, or with some that did not go on")
        shares = []
        for peer in sorted(self._held):
            held = self._held[peer]
            shares.append(None if held is None else held[0] if peer in stayed else held[1])
        return shares_bytes(shares)
