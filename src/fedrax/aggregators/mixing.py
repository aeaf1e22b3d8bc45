"""Pre-aggregators: steps that make honest vectors more alike before a rule sees them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from fedrax.aggregators.base import PreAggregator, preaggregators
from fedrax.aggregators.distances import map_rows, smallest
from fedrax.aggregators.rows import draws, present_rows, saturate
from fedrax.registry import option


@preaggregators.register("bucketing")
class Bucketing(PreAggregator):
    """Averages random buckets of agents (Karimireddy et al., ICLR 2022, algorithm 1).

    A bucket's vector is its members' weighted mean and its weight their sum, so the weighted mean is
    unchanged. One Byzantine agent spoils one bucket: the rule must tolerate f of ``ceil(n / size)`` rows.
    """

    size: int = option(2, "agents in a bucket", unit="agents", minimum=1)

    def __call__(
        self, vectors: Float[Array, "n d"], weights: Float[Array, " n"], tolerated: int, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, "m d"], Float[Array, " m"], Int[Array, " n"]]:
        """One row for each bucket; the last one may be smaller, and absent agents fill no place."""
        vectors, present, _ = present_rows(vectors, weights)
        n = len(present)
        # Sorting an order gives ranks.
        bucket = jnp.argsort(jnp.argsort(draws(key, present))) // self.size
        total = jax.ops.segment_sum(weights, bucket, self.rows(n))
        share = weights / jnp.where(total > 0, total, 1.0)[bucket]
        mixed = jax.ops.segment_sum(share[:, None] * vectors, bucket, self.rows(n))
        return saturate(mixed), total, bucket

    def rows(self, agents: int) -> int:
        """The number of buckets, ``ceil(agents / size)``."""
        return -(-agents // self.size)


@preaggregators.register("nearest-neighbour-mixing")
class NearestNeighbourMixing(PreAggregator):
    """Replaces each vector by the mean of its ``n - f`` nearest (Allouah et al., AISTATS 2023).

    A vector is its own nearest neighbour; vectors at the same distance share the last places, so that it does not
    matter who comes first. Where no more than f are present it is left as it is.
    """

    def __call__(
        self, vectors: Float[Array, "n d"], weights: Float[Array, " n"], tolerated: int, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, "m d"], Float[Array, " m"], Int[Array, " n"]]:
        """The mixed vectors in the agents' own rows, with their own weights; absent agents' are zero."""
        vectors, present, count = present_rows(vectors, weights)
        wanted = jnp.maximum(count - tolerated, 1)

        def mix(distances: Float[Array, " n"]) -> Float[Array, " d"]:
            share = nearest(distances, wanted) / wanted.astype(vectors.dtype)
            return saturate(jnp.matmul(share, vectors, precision=jax.lax.Precision.HIGHEST))

        mixed = map_rows(mix, vectors, present)
        return jnp.where(present[:, None], mixed, 0.0), weights, jnp.arange(len(present))


def nearest(distances: Float[Array, " n"], count: Int[Array, ""]) -> Float[Array, " n"]:
    """One for each of the ``count`` smallest of a row of distances; equal ones share the last places."""
    last = smallest(distances, count)
    closer = distances < last
    level = distances == last
    share = (count - closer.sum()) / jnp.maximum(level.sum(), 1)
    return jnp.where(level, share, closer).astype(distances.dtype)
