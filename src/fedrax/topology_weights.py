"""How much agents listen to one another in a round: pure functions of a graph ``W[n, n]``, for use inside ``jit``.

``W[i, j] >= 0`` is how much agent ``i`` listens to agent ``j`` (:mod:`fedrax.topology` builds it); an edge is a
positive entry. Every function returns finite, non-negative weights, whatever the returns or policies are, and an
agent with nobody to listen to has a row of zeros, never NaN: what to do then is the caller's decision.

``present`` marks the agents that can be listened to in this round. It is given to the function that makes the
weights, not applied to its result: there, an absent agent could have pushed all others to zero.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def normalise(W: Float[Array, "n n"], present: Bool[Array, " n"] | None = None) -> Float[Array, "n n"]:
    """Rows that sum to 1 over the present columns; a row with nothing there stays all zero.

    Only ratios within a row count. The gradient with respect to ``W`` is finite everywhere.
    """
    W = _among(W, present)
    # Rows are scaled by their largest entry first, or large sums, and the squares of small ones that the gradient
    # divides by, would leave float32.
    peak = jax.lax.stop_gradient(W.max(axis=1, keepdims=True))
    scaled = W / jnp.where(peak > 0, peak, 1.0)
    total = scaled.sum(axis=1, keepdims=True)
    return scaled / jnp.where(total > 0, total, 1.0)


def return_weights(
    returns: Float[Array, " n"],
    graph: Float[Array, "n n"],
    temperature: float | Float[Array, ""],
    *,
    present: Bool[Array, " n"] | None = None,
) -> Float[Array, "n n"]:
    """Listens more to agents with higher returns: rows proportional to ``graph * exp(returns / temperature)``.

    FedRL's ``average_return`` (RLHF-And-Friends/FedRL) uses the returns themselves as weights, which breaks on
    negative and zero ones. Here their sign is of no consequence: adding a constant to all returns changes nothing.

    Args:
        returns: each agent's mean return. One that is not finite (no episode ended yet) is unknown, and counts as
            the mean of the known returns among the same listener's neighbours; all are equal where none is known.
        graph: base weights; the diagonal takes part like any other edge.
        temperature: the difference of returns, in units of return, that makes a factor of e. Returns are not
            standardised, since that would make the largest differences out of noise. At 0 only the best are
            listened to; as it grows the result becomes ``normalise(graph)``.
        present: agents that can be listened to; unset, all.
    """
    graph = _among(graph, present)
    known = jnp.isfinite(returns)
    counted = (graph > 0) & known
    count = jnp.maximum(counted.sum(axis=1, keepdims=True), 1)
    # Divided before the sum, since the sum of large returns overflows; clipped, since rounding could take their
    # mean there too.
    limit = jnp.finfo(returns.dtype).max
    mean = jnp.clip(jnp.where(counted, returns / count, 0.0).sum(axis=1, keepdims=True), -limit, limit)
    return _boltzmann(jnp.where(known, returns, mean), graph, temperature)


def divergence_weights(
    divergence: Float[Array, "n n"],
    graph: Float[Array, "n n"],
    temperature: float | Float[Array, ""],
    *,
    top: int | None = None,
    present: Bool[Array, " n"] | None = None,
) -> Float[Array, "n n"]:
    """Listens more to agents that act alike: rows proportional to ``graph * exp(-divergence / temperature)``.

    For policies of any kind. The weights are constants of the policies: no gradient passes through them. (FedRL's
    ``scalar_product`` scores neighbours by products of log-probabilities, which are largest where the policies
    disagree, and lets gradients into the weights.)

    Args:
        divergence: of agent ``j``'s policy from agent ``i``'s, 0 where they are equal (Jensen-Shannon, symmetric
            KL ...). An agent at a divergence that is not finite is not listened to.
        graph: base weights.
        temperature: the difference of divergences, in their unit, that makes a factor of e. At 0 only the most
            alike are listened to.
        top: neighbours to listen to, the most alike ones; of equally alike ones, those with the lowest index. The
            agent itself is not among them: its own weight stays. Unset, all neighbours.
        present: agents that can be listened to; unset, all.
    """
    likeness = -jax.lax.stop_gradient(divergence)
    likeness = jnp.where(jnp.isfinite(likeness), likeness, -jnp.inf)
    return _boltzmann(likeness, _most_alike(_among(graph, present), likeness, top), temperature)


def stale(W: Float[Array, "n n"], age: Int[Array, " n"], bound: int | None) -> Float[Array, "n n"]:
    """The graph without edges to agents whose snapshot is too old; ``normalise`` it afterwards.

    Args:
        W: the graph. Its diagonal is kept: an agent has its own parameters at hand.
        age: rounds since each agent's snapshot was taken.
        bound: rounds that a snapshot may be old, inclusive; unset, any age will do.
    """
    if bound is None:
        return W
    return jnp.where((age <= bound) | jnp.eye(W.shape[0], dtype=bool), W, 0.0)


def _among(W: Float[Array, "n n"], present: Bool[Array, " n"] | None) -> Float[Array, "n n"]:
    """The graph without edges to absent agents."""
    return W if present is None else jnp.where(present, W, 0.0)


def _boltzmann(
    score: Float[Array, "n n"], graph: Float[Array, "n n"], temperature: float | Float[Array, ""]
) -> Float[Array, "n n"]:
    """Rows proportional to ``graph * exp(score / temperature)``, where a score of -inf means no weight."""
    usable = (graph > 0) & (score > -jnp.inf)
    peak = jax.lax.stop_gradient(jnp.where(usable, score, -jnp.inf).max(axis=1, keepdims=True))
    # The peak is taken off before the division, which overflows where the temperature is low. The gap itself can
    # overflow too, and infinity divided by an infinite temperature would be NaN.
    limits = jnp.finfo(score.dtype)
    gap = jnp.maximum(jnp.where(usable, score - peak, 0.0), limits.min)
    factor = jnp.exp(gap / jnp.maximum(temperature, limits.tiny))
    return normalise(jnp.where(usable, graph * factor, 0.0))


def _most_alike(graph: Float[Array, "n n"], likeness: Float[Array, "n n"], top: int | None) -> Float[Array, "n n"]:
    """The graph with every agent's edges to itself and to the ``top`` neighbours most like it."""
    if top is None:
        return graph
    oneself = jnp.eye(graph.shape[0], dtype=bool)
    distance = jnp.where((graph > 0) & ~oneself, -likeness, jnp.inf)
    # Sorting twice makes places of an order; it is stable, so among equals the lower index comes first.
    place = jnp.argsort(jnp.argsort(distance, axis=1, stable=True), axis=1)
    return jnp.where((place < top) | oneself, graph, 0.0)
