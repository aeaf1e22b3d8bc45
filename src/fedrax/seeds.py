"""The seed tree: run -> purpose -> round -> agent. Nothing draws from a global generator.

A key is derived from what it is for, never from how many draws came before, so a resumed run continues with the
same numbers, and two methods compared under one seed see the same environments and the same initial states.
"""

from __future__ import annotations

import zlib

import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray


def derive(key: PRNGKeyArray, purpose: str, *path: int | Array) -> PRNGKeyArray:
    """The key for ``purpose`` under ``key``, then for each number of ``path`` (round, agent, update ...).

    Purposes are words, not positions: adding one never changes another's draws.
    """
    key = jax.random.fold_in(key, zlib.crc32(purpose.encode()) & 0x7FFFFFFF)
    for number in path:
        key = jax.random.fold_in(key, number)
    return key


def host_seeds(shape: tuple[int, ...], *path: int | str) -> np.ndarray:
    """Seeds below 2**31 for host environments, ``int64[shape]``, one stream per path (seed, purpose, round ...)."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in path]
    return np.random.default_rng(np.random.SeedSequence(words)).integers(0, 2**31 - 1, size=shape, dtype=np.int64)
