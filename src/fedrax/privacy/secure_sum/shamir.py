"""Secrets in shares, of which any t yield the secret and t - 1 nothing (Shamir, 1979), over GF(2^521 - 1)."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache

PRIME = 2**521 - 1
"""A Mersenne prime above any secret of 64 bytes."""
BYTES = 66
"""Of a share."""


def split(secret: int, threshold: int, points: Sequence[int]) -> dict[int, int]:
    """A share of the secret for each point, any ``threshold`` of which yield it.

    A share is the value at its point of a random polynomial of degree ``threshold - 1`` whose value at 0 is the secret.

    Args:
        secret: 0 or more, below :data:`PRIME`.
        points: different ones from 1 on, at least ``threshold``.
    """
    if not 0 <= secret < PRIME or len(set(points)) < max(threshold, 1) or min(points) < 1:
        raise ValueError("a secret below 2^521 - 1 is shared among at least so many points from 1 on")
    coefficients = [secret, *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return {point: _value(coefficients, point) for point in points}


def joined(shares: Mapping[int, int]) -> int:
    """The secret of these shares by point, as many as the threshold; of fewer, or of false ones, some other number."""
    points = tuple(sorted(shares))
    return sum(factor * shares[point] for point, factor in zip(points, _at_zero(points), strict=True)) % PRIME


def _value(coefficients: Sequence[int], point: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * point + coefficient) % PRIME
    return value


@lru_cache(maxsize=64)
def _at_zero(points: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange's coefficients at 0: all secrets of a round are joined from the same few sets of points."""
    factors = []
    for point in points:
        above = below = 1
        for other in points:
            if other != point:
                above, below = above * other % PRIME, below * (other - point) % PRIME
        factors.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(factors)
