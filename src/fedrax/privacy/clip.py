"""Updates and gradients made no longer than a bound, so that nobody's influence on a sum is larger than it."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

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
        leaves = [_shortened([leaf], share)[0] for leaf in leaves]
    else:
        leaves = _shortened(leaves, bound)
    return jax.tree.unflatten(structure, leaves)


def is_whole(update: PyTree, bound: float | Array) -> Bool[Array, ""]:
    """Whether a clipped update is as it was: so much shorter than ``bound`` that nothing was taken off it."""
    leaves = [leaf / bound for leaf in jax.tree.leaves(update)]
    length = jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in leaves))
    return length < 1.0 - 3 * _rounding(leaves)


def or_zeros(update: PyTree) -> PyTree:
    """The update, or zeros where it holds NaN or an infinity: to leave its sender out would tell that it did."""
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(update)]).all()
    return jax.tree.map(lambda leaf: jnp.where(finite, leaf, 0.0), update)


def _shortened(leaves: list[Array], bound: float | Array) -> list[Array]:
    """The vector that these make up, no longer than ``bound``, and as it is where it is shorter already."""
    largest = jnp.stack([jnp.abs(leaf).max(initial=0.0) for leaf in leaves]).max()
    # Squares of large numbers overflow, and reciprocals of the largest are subnormal, which compilers make zero.
    unit = jnp.where(largest >= jnp.finfo(jnp.float32).tiny, jnp.minimum(largest, 2.0**125), 1.0)
    scaled = [leaf / unit for leaf in leaves]
    length = jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in scaled))
    limit = bound * (1.0 - _rounding(leaves))
    factor = limit / jnp.where(length > 0, length, 1.0)
    return [jnp.where(unit * length > limit, part * factor, leaf) for part, leaf in zip(scaled, leaves, strict=True)]


def _rounding(leaves: list[Array]) -> float:
    """By how much of itself a norm over so many numbers may be wrong, and :data:`SAFETY`."""
    return SAFETY + float(jnp.finfo(jnp.float32).eps) * math.sqrt(sum(leaf.size for leaf in leaves))
