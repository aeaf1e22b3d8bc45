"""Keys that two agents agree on through the server, and what they send each other under them."""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedrax.privacy.secure_sum.terms import SecureSumError, Terms

BYTES = 32
"""Of private and public keys, and of what is derived from them."""
NONCE, TAG = 12, 16
"""Bytes that sealing adds."""


def agreed(own: X25519PrivateKey, other: bytes, info: bytes) -> bytes:
    """The key of 32 bytes that both owners derive (X25519, RFC 7748; HKDF-SHA256, RFC 5869).

    Raises:
        SecureSumError: the other public key is one of those few with which everybody agrees on zero.
    """
    try:
        shared = own.exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError:
        raise SecureSumError("a public key of X25519 that makes no secret") from None
    return HKDF(SHA256(), BYTES, salt=None, info=info).derive(shared)


def mask_key(own: X25519PrivateKey, other: bytes, terms: Terms, agents: tuple[int, int]) -> bytes:
    """The key of the mask between two agents, the same in either order."""
    return agreed(own, other, terms.tagged("mask", *sorted(agents)))


def sealing_key(own: X25519PrivateKey, other: bytes, terms: Terms, sender: int, receiver: int) -> bytes:
    """The key of what one agent sends another, one for each direction."""
    return agreed(own, other, terms.tagged("shares", sender, receiver))


def sealed(key: bytes, text: bytes) -> bytes:
    """The text under AES-256-GCM: nonce, ciphertext, tag. The key is one message's, so it alone says whose it is."""
    nonce = secrets.token_bytes(NONCE)
    return nonce + AESGCM(key).encrypt(nonce, text, None)


def opened(key: bytes, data: bytes) -> bytes | None:
    """The inverse of :func:`sealed`; None where it was not sealed with this key."""
    try:
        return AESGCM(key).decrypt(data[:NONCE], data[NONCE:], None)
    except InvalidTag:
        return None
