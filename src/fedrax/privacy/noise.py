"""Gaussian noise on real arrays, and its like on integers."""

from __future__ import annotations

import secrets

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, PyTree


def with_noise(update: PyTree, deviation: float | Array, key: PRNGKeyArray) -> PyTree:
    """The update plus independent noise of this standard deviation on each of its numbers."""
    leaves, structure = jax.tree.flatten(update)
    keys = jax.random.split(key, max(len(leaves), 1))
    noisy = [
        leaf + deviation * jax.random.normal(each, leaf.shape, jnp.float32)
        for leaf, each in zip(leaves, keys, strict=False)
    ]
    return jax.tree.unflatten(structure, noisy)


def integer_noise(deviation: float | Array, shape: tuple[int, ...], key: PRNGKeyArray) -> Int[Array, "*shape"]:
    """Rounded Gaussian noise, int32: what a simulation has in place of :func:`skellam`, too large for its generator."""
    return jnp.round(deviation * jax.random.normal(key, shape)).astype(jnp.int32)


def skellam(deviation: float, size: int) -> Int[np.ndarray, " size"]:
    """Differences of two Poisson numbers, int64, from randomness that was never used.

    Sums of such noise are such noise again, which rounded Gaussian noise is not. Of the Gaussian mechanism of the same
    deviation mu^(1/2) it differs, in Renyi divergence of order a at sensitivity D (l1: D_1), by at most
    ``((2a - 1) D^2 + 6 D_1) / (4 mu^2)`` (Agarwal, Kairouz and Liu, 2021, theorem 3.5): where a clip is 2^19, nothing.
    """
    generator = np.random.Generator(np.random.PCG64DXSM(secrets.randbits(128)))
    rate = deviation**2 / 2
    return generator.poisson(rate, size) - generator.poisson(rate, size)
