"""Krum and its relatives: rules that choose agents by the distance to their nearest neighbours."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from fedrax.aggregators.base import Aggregate, Aggregator, aggregators
from fedrax.aggregators.distances import map_rows, pairwise, smallest
from fedrax.aggregators.rows import aggregate, average, difference, draws, enlarged, length, median, present_rows
from fedrax.errors import FedraxError
from fedrax.registry import option


def neighbour_count(count: Int[Array, ""], f: int) -> Int[Array, ""]:
    """``count - f - 2``, the neighbours Krum looks at; at least one, where anyone else is present."""
    return jnp.minimum(jnp.maximum(count - f - 2, 1), jnp.maximum(count - 1, 0))


def krum_scores(vectors: Float[Array, "n d"], present: Bool[Array, " n"], f: int) -> Float[Array, " n"]:
    """Roots of the summed squared distances to the ``count - f - 2`` nearest others, in a unit of their own.

    The order of the roots is the order of the sums (Blanchard et al., NeurIPS 2017), and unlike these they neither
    overflow nor vanish: a sum of squares in float32 only holds distances from about 1e-19 to 1e18. Infinite for the
    absent.
    """
    # With the row itself, at distance 0.
    crowd = neighbour_count(present.sum(), f) + 1

    def score(distances: Float[Array, " n"]) -> Float[Array, ""]:
        last = smallest(distances, crowd)
        closer = distances < last
        level = (crowd - closer.sum()).astype(distances.dtype)
        return length(jnp.append(jnp.where(closer, distances, 0.0), jnp.sqrt(level) * last))

    return jnp.where(present, map_rows(score, enlarged(vectors), present), jnp.inf)


def lowest(
    scores: Float[Array, " n"], present: Bool[Array, " n"], count: int | Array, turn: Float[Array, " n"]
) -> Bool[Array, " n"]:
    """The ``count`` present agents of lowest score; of equal ones those of highest ``turn``.

    ``turn`` is drawn, because every fixed order favours somebody: with the lowest ids first, it would be the Byzantine
    agents, who have the lowest ids here and can copy a message to tie with it.
    """
    order = jnp.lexsort((-turn, scores, ~present))
    return jnp.zeros_like(present).at[order].set(jnp.arange(len(present)) < count) & present


@aggregators.register("krum")
class Krum(Aggregator):
    """The one vector nearest to its ``n - f - 2`` neighbours (Blanchard et al., NeurIPS 2017).

    Of equally good ones (two that are each other's nearest, say), one is drawn with the rule's key: the same in every
    run of a seed. With fewer than f + 3 present it looks at a single neighbour, and the resilience no longer holds.
    """

    rejects = True

    def __call__(
        self,
        vectors: Float[Array, "n d"],
        weights: Float[Array, " n"],
        *,
        samples: float | Array = 1.0,
        key: PRNGKeyArray,
    ) -> Aggregate:
        """The present row of lowest score."""
        vectors, present, _ = present_rows(vectors, weights)
        accepted = lowest(krum_scores(vectors, present, self.f), present, 1, draws(key, present))
        return aggregate(vectors[jnp.argmax(accepted)], accepted)

    def check(self, agents: int) -> None:
        """Needs ``2f + 3`` agents."""
        self.demand(agents, 2 * self.f + 3, "2f + 3")


@aggregators.register("multi-krum")
class MultiKrum(Aggregator):
    """The mean of the vectors of lowest Krum score (Blanchard et al., NeurIPS 2017).

    Where the last places fall among equally good ones, they are drawn with the rule's key.
    """

    rejects = True

    selected: int | None = option(
        None, "vectors to average; unset, all but f (fewer where fewer are present)", unit="agents", minimum=1
    )

    def __call__(
        self,
        vectors: Float[Array, "n d"],
        weights: Float[Array, " n"],
        *,
        samples: float | Array = 1.0,
        key: PRNGKeyArray,
    ) -> Aggregate:
        """The mean of the chosen rows; at least one is chosen where anyone is present."""
        vectors, present, count = present_rows(vectors, weights)
        chosen = jnp.maximum(count - self.f, 1) if self.selected is None else self.selected
        accepted = lowest(krum_scores(vectors, present, self.f), present, chosen, draws(key, present))
        return aggregate(average(vectors, accepted.astype(vectors.dtype)), accepted)

    def check(self, agents: int) -> None:
        """Needs ``2f + 3`` agents, and no more to select than may be honest."""
        self.demand(agents, 2 * self.f + 3, "2f + 3")
        if self.selected is not None and self.selected > agents - self.f:
            raise FedraxError(
                f"aggregator.selected = {self.selected} is more than the {agents - self.f} of {agents} "
                f"agents that are honest if {self.f} are Byzantine; lower it"
            )


@aggregators.register("bulyan")
class Bulyan(Aggregator):
    """Bulyan over Krum (El Mhamdi et al., ICML 2018).

    Krum chooses ``n - 2f`` agents one after the other, each time among the rest; then every coordinate is
    the mean of the ``n - 4f`` chosen values nearest to their median. Where few are present both numbers are
    at least one. Of equally good agents, one is drawn with the rule's key: its last Krum often compares two that are
    each other's nearest. It holds the whole distance matrix and costs O(n^3), which is meant for hundreds of
    agents.
    """

    rejects = True

    def __call__(
        self,
        vectors: Float[Array, "n d"],
        weights: Float[Array, " n"],
        *,
        samples: float | Array = 1.0,
        key: PRNGKeyArray,
    ) -> Aggregate:
        """The mean, by coordinate, of the chosen rows' central values."""
        vectors, present, count = present_rows(vectors, weights)
        wanted = jnp.minimum(jnp.maximum(count - 2 * self.f, 1), count)
        accepted = self._choose(vectors, present, wanted, draws(key, present))
        middle = median(vectors, accepted)
        off = jnp.where(accepted[:, None], jnp.abs(difference(vectors, middle)), jnp.inf)
        _, ordered = jax.lax.sort((off, vectors), dimension=0, num_keys=2)
        central = jnp.arange(len(present)) < jnp.minimum(jnp.maximum(wanted - 2 * self.f, 1), count)
        return aggregate(average(ordered, central.astype(vectors.dtype)), accepted)

    def _choose(
        self, vectors: Float[Array, "n d"], present: Bool[Array, " n"], wanted: Int[Array, ""], turn: Float[Array, " n"]
    ) -> Bool[Array, " n"]:
        """The ``wanted`` agents that repeated Krum takes out one by one; of equal ones those of highest ``turn``."""
        distances = pairwise(enlarged(vectors), present)
        # Sorted once: who is left changes, the order of a row's neighbours does not.
        order = jnp.argsort(distances, axis=1)
        ordered = jnp.take_along_axis(distances, order, axis=1)

        def step(_: Array, left: Bool[Array, " n"]) -> Bool[Array, " n"]:
            neighbours = neighbour_count(left.sum(), self.f)
            here = left[order]
            nearest = here & (jnp.cumsum(here, axis=1) <= neighbours + 1)
            return left & ~lowest(length(jnp.where(nearest, ordered, 0.0)), left, 1, turn)

        return present & ~jax.lax.fori_loop(0, wanted, step, present)

    def check(self, agents: int) -> None:
        """Needs ``4f + 3`` agents."""
        self.demand(agents, 4 * self.f + 3, "4f + 3")
