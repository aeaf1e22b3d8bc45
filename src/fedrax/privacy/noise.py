"""Gaussian noise on real arrays."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree


def with_noise(update: PyTree, deviation: float | Array, key: PRNGKeyArray) -> PyTree:
    """The update plus independent noise of this standard deviation on each of its numbers."""
    leaves, structure = jax.tree.flatten(update)
    keys = jax.random.split(key, max(len(leaves), 1))
    noisy = [
        leaf + deviation * jax.random.normal(each, leaf.shape, jnp.float32)
        for leaf, each in zip(leaves, keys, strict=False)
    ]
    return jax.tree.unflatten(structure, noisy)
