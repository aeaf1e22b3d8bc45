"""What a node draws from: a secret of its own, so that nobody who knows the configuration can recompute what it saw."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import tempfile
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from fedrax.errors import FedraxError

BYTES = 32
"""Of a node's secret."""
SHARED = "runtime.shared_seeds: nodes draw from the run's seed, so whoever knows it can recompute their trajectories"
"""What people are told at the server."""


class Randomness(NamedTuple):
    """The root of an agent's draws in one run."""

    key: PRNGKeyArray
    """Of acting, learning, and native environments."""
    seed: int
    """Of environments that Python steps."""


def shared_randomness(seed: int) -> Randomness:
    """The simulation's, which whoever knows the configuration knows."""
    return Randomness(jax.random.key(seed), seed)


def secret_randomness(secret: bytes, run: str, seed: int) -> Randomness:
    """A node's own in a run: HMAC-SHA256 of the run's name and seed under its secret.

    The key has as many of its bits as JAX's default keys hold, which are 64.
    """
    digest = hmac.digest(secret, f"{run} {seed}".encode(), hashlib.sha256)
    shape = jax.random.key_data(jax.random.key(0)).shape
    data = np.frombuffer(digest, "<u4")[: shape[0]].astype(np.uint32)
    return Randomness(jax.random.wrap_key_data(jnp.asarray(data)), int.from_bytes(digest[16:], "little"))


def fresh_key() -> PRNGKeyArray:
    """A key that was never used: the same noise on two sums would tell how they differ."""
    shape = jax.random.key_data(jax.random.key(0)).shape
    data = np.frombuffer(secrets.token_bytes(4 * shape[0]), np.uint32)
    return jax.random.wrap_key_data(jnp.asarray(data))


def node_secret(folder: Path) -> bytes:
    """The secret in a node's folder, or a run's, made on first use; no one but its owner may read the file.

    Raises:
        FedraxError: the file is not a secret's.
    """
    path = folder / "secret"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix="secret.", dir=folder)
        with open(descriptor, "wb") as file:
            file.write(secrets.token_bytes(BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            # Two processes of one node that start together end with the same secret, that of the first.
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError:
            # Not every file system has links.
            os.replace(temporary, path)
        Path(temporary).unlink(missing_ok=True)
    secret = path.read_bytes()
    if len(secret) != BYTES:
        raise FedraxError(
            f"{path} has {len(secret)} bytes, and a node's secret has {BYTES}: restore it, or remove it and the node "
            "draws from a new one"
        )
    return secret
