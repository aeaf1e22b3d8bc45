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
    total: Float[Array, "n n"]
    """The summed similarity of the known pairs between two groups; 0 where one of them is no more, and on the
    diagonal."""
    pairs: Float[Array, "n n"]
    """How many these are."""
    left: Int[Array, ""]
    """How many groups there are."""

    @property
    def between(self) -> Float[Array, "n n"]:
        """The mean similarity of the known pairs; -inf where there are none."""
        return jnp.where(self.pairs > 0, self.total / jnp.maximum(self.pairs, 1), -jnp.inf)


def average_linkage(
    similarity: Float[Array, "n n"], *, threshold: float | Array = -jnp.inf, clusters: int = 1
) -> Int[Array, " n"]:
    """Hierarchical clustering (UPGMA): joins the two groups that are most alike on average, again and again.

    Args:
        similarity: symmetric; NaN where it is not known, which counts in no mean. Its diagonal does not count.
        threshold: groups less alike than this are not joined, nor are groups of which no pair is known.
        clusters: nor are any once so few are left.

    Returns:
        Each agent's group, by the lowest number in it.
    """
    n = similarity.shape[0]
    known = ~jnp.isnan(similarity) & ~jnp.eye(n, dtype=bool)
    start = Merging(jnp.arange(n), jnp.where(known, similarity, 0.0), known.astype(similarity.dtype), jnp.asarray(n))

    def goes_on(state: Merging) -> Array:
        closest = state.between.max()
        return (state.left > clusters) & (closest >= threshold) & (closest > -jnp.inf)

    def join(state: Merging) -> Merging:
        # The first of equals, which lies above the diagonal: the group keeps its lower number.
        kept, gone = jnp.divmod(jnp.argmax(state.between), n)

        def joined(sums: Array) -> Array:
            row = (sums[kept] + sums[gone]).at[kept].set(0.0)
            sums = sums.at[kept].set(row).at[:, kept].set(row)
            return sums.at[gone].set(0.0).at[:, gone].set(0.0)

        group = jnp.where(state.group == gone, kept, state.group)
        return Merging(group, joined(state.total), joined(state.pairs), state.left - 1)

    return jax.lax.while_loop(goes_on, join, start).group
