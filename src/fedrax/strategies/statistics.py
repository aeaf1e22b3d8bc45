"""What agents count and a server adds up: returns, and moments of observations, which are merged exactly."""

from __future__ import annotations

import equinox as eqx
from jaxtyping import Array, Bool, PyTree

from fedrax.learners.moments import Normaliser
from fedrax.parts import NORMALISER, put_parts
from fedrax.strategies.return_weights import Returns


class Statistics(eqx.Module):
    """What agents count: returns where they are weighted by them, moments of observations that are normalised."""

    returns: Returns | tuple[()]
    observations: PyTree


def normaliser_of(params: PyTree) -> Normaliser | None:
    """By what networks see observations; None where they see them as they are."""
    normaliser = getattr(params, NORMALISER, None)
    return normaliser if isinstance(normaliser, Normaliser) else None


def shared_moments(params: PyTree) -> PyTree:
    """Of all agents' observations, as a server broadcasts them; () where there are none."""
    normaliser = normaliser_of(params)
    return () if normaliser is None else normaliser.shared


def put_moments(params: PyTree, moments: PyTree) -> PyTree:
    """An agent's networks after a broadcast with these."""
    normaliser = normaliser_of(params)
    return params if normaliser is None else put_parts(params, {NORMALISER: normaliser.received(moments)})


def own_moments(params: PyTree) -> PyTree:
    """Of what an agent observed since the broadcast, which it sends; () where observations are not normalised."""
    normaliser = normaliser_of(params)
    return () if normaliser is None else normaliser.own


def pool_moments(params: PyTree, moments: PyTree, present: Bool[Array, " n"]) -> PyTree:
    """A server's networks with the agents' moments, leaves ``[n, ...]``, of those whose messages arrived."""
    normaliser = normaliser_of(params)
    if normaliser is None:
        return params
    return put_parts(params, {NORMALISER: normaliser.received(normaliser.pooled(moments, present))})
