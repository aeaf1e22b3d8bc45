"""Masks: key streams of ChaCha20 read as 32-bit words, which are added and subtracted modulo 2^32."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray

from fedrax.privacy.secure_sum.terms import Terms

Words = NDArray[np.uint32]


def nonce(terms: Terms) -> bytes:
    """ChaCha20's counter, from 0, and its nonce of 96 bits: 64 of the run's digest, 32 of the round's number."""
    return struct.pack("<I8sI", 0, hashlib.sha256(terms.run.encode()).digest()[:8], terms.round % 2**32)


def stream(key: bytes, terms: Terms) -> Words:
    """The mask that a key of 32 bytes makes, ``uint32[length]``."""
    cipher = Cipher(algorithms.ChaCha20(key, nonce(terms)), mode=None).encryptor()
    return np.frombuffer(cipher.update(bytes(4 * terms.length)), "<u4").astype(np.uint32, copy=False)


def put(words: Words, mask: Words, *, add: bool) -> None:
    """Adds a mask to ``words`` in place, or subtracts it."""
    (np.add if add else np.subtract)(words, mask, out=words)


def adds(agent: int, other: int) -> bool:
    """Whether an agent adds the mask that it has with another; the other one subtracts it."""
    return agent < other
