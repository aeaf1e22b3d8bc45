"""Angles."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float


def wrap(angle: Float[Array, ""]) -> Float[Array, ""]:
    """The same angle in [-pi, pi], in rad."""
    return angle - 2 * math.pi * jnp.round(angle / (2 * math.pi))
