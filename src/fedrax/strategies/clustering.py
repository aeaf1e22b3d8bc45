"""Groups of agents whose updates point the same way: pure functions, for use inside ``jit``."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fedrax.aggregators.rows import unit_rows


def cosines(vectors: Float[Array, "n d"]) -> Float[Array, "n n"]:
    """Of all pairs of rows; 0 with a row of zeros."""
    units = unit_rows(vectors)
    return units @ units.T


def running_mean(
    known: Float[Array, "agents agents"],
    new: Float[Array, "n n"],
    ids: Int[Array, " n"],
    present: Bool[Array, " n"],
    memory: float,
) -> Float[Array, "agents agents"]:
    """``memory known + (1 - memory) new`` of the pairs among the present ``ids``; NaN stands for no value yet."""
    rows, columns = ids[:, None], ids[None, :]
    old = known[rows, columns]
    mean = jnp.where(jnp.isnan(old), new, memory * old + (1 - memory) * new)
    return known.at[rows, columns].set(jnp.where(present[:, None] & present, mean, old))


class Merging(NamedTuple):
    """Average linkage under way; ``n`` agents. A group has the number of one of its agents."""

    group: Int[Array, " n"]
    """Each agent's group."""
    size: Float[Array, " n"]
    """Each group's size."""
    between: Float[Array, "n n"]
    """The mean similarity of the pairs between two groups; -inf where one of them is no more, and on the diagonal."""
    left: Int[Array, ""]
    """How many groups there are."""


def average_linkage(
    similarity: Float[Array, "n n"], *, threshold: float | Array = -jnp.inf, clusters: int = 1
) -> Int[Array, " n"]:
    """Hierarchical clustering (UPGMA): joins the two groups that are most alike on average, again and again.

    Args:
        similarity: symmetric and finite; its diagonal does not count.
        threshold: groups less alike than this are not joined.
        clusters: nor are any once so few are left.

    Returns:
        Each agent's group, by the lowest number in it.
    """
    n = similarity.shape[0]
    start = Merging(
        jnp.arange(n),
        jnp.ones(n, similarity.dtype),
        jnp.where(jnp.eye(n, dtype=bool), -jnp.inf, similarity),
        jnp.asarray(n),
    )

    def goes_on(state: Merging) -> Array:
        closest = state.between.max()
        return (state.left > clusters) & (closest >= threshold) & (closest > -jnp.inf)

    def join(state: Merging) -> Merging:
        # The first of equals, which lies above the diagonal: the group keeps its lower number.
        kept, gone = jnp.divmod(jnp.argmax(state.between), n)
        size, between = state.size, state.between
        row = (size[kept] * between[kept] + size[gone] * between[gone]) / (size[kept] + size[gone])
        row = row.at[kept].set(-jnp.inf)
        between = between.at[kept].set(row).at[:, kept].set(row)
        between = between.at[gone].set(-jnp.inf).at[:, gone].set(-jnp.inf)
        group = jnp.where(state.group == gone, kept, state.group)
        return Merging(group, size.at[kept].add(size[gone]), between, state.left - 1)

    return jax.lax.while_loop(goes_on, join, start).group
