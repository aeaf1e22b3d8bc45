"""Updates and gradients made no longer than a bound, so that nobody's influence on a sum is larger than it."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

SAFETY = 1e-6
"""By how much shorter than the bound what is clipped becomes: a norm computed in float32 may be too small, by a few
units in the last place and, of d numbers summed up, by some sqrt(d) of them."""


def clipped(update: PyTree, bound: float | Array, *, by_layer: bool = False) -> PyTree:
    """The update, scaled to a Euclidean norm of at most ``bound``.

    Args:
        update: real arrays; one that holds NaN or an infinity stays what it is.
        bound: C, scalar.
        by_layer: each of the L arrays by itself, to C / sqrt(L), so that the norm of all is at most C (McMahan et al.,
            2018, "per-layer clipping").
    """
    leaves, structure = jax.tree.flatten(update)
    if not leaves:
        return update
    if by_layer:
        share = bound / math.sqrt(len(leaves))
        scaled = [leaf * _scale([leaf], share) for leaf in leaves]
    else:
        scale = _scale(leaves, bound)
        scaled = [leaf * scale for leaf in leaves]
    return jax.tree.unflatten(structure, scaled)


def or_zeros(update: PyTree) -> PyTree:
    """The update, or zeros where it holds NaN or an infinity: to leave its sender out would tell that it did."""
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(update)]).all()
    return jax.tree.map(lambda leaf: jnp.where(finite, leaf, 0.0), update)


def norm(update: PyTree) -> Float[Array, ""]:
    """The Euclidean norm over all arrays; also of numbers whose squares float32 cannot hold."""
    leaves = jax.tree.leaves(update)
    largest = jnp.stack([jnp.abs(leaf).max(initial=0.0) for leaf in leaves]).max()
    unit = jnp.where(largest > 0, largest, 1.0)
    return unit * jnp.sqrt(sum(jnp.square(leaf / unit).sum() for leaf in leaves))


def within(update: PyTree, bound: float | Array) -> Float[Array, ""]:
    """1 where the update is no longer than ``bound``, else 0."""
    return (norm(update) <= bound).astype(jnp.float32)


def _scale(leaves: list[Array], bound: float | Array) -> Float[Array, ""]:
    """What brings the vector that they make up to ``bound`` at most: 1 where it is shorter already."""
    length = norm(leaves)
    rounded = SAFETY + float(jnp.finfo(jnp.float32).eps) * math.sqrt(sum(leaf.size for leaf in leaves))
    limit = bound * (1.0 - rounded)
    return jnp.where(length > limit, limit / jnp.where(length > 0, length, 1.0), 1.0)
