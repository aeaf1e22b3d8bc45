"""Numbers at random places, the same for all agents of a round."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from fedrax.compression.base import (
    LEAST_SHARE,
    FeedbackCompression,
    compressions,
    kept,
    length_of,
    update_of,
    vector_of,
)
from fedrax.registry import option


class Chosen(NamedTuple):
    """The ``k`` numbers at a round's places."""

    values: Float[Array, " k"]
    others: PyTree
    """Arrays that are not real."""


@compressions.register("random-k")
class RandomK(FeedbackCompression):
    """The numbers at k of d places, drawn anew in each round and the same for all agents (Konečný et al., 2016).

    Their places need not travel, and encodings may be summed. Numbers are scaled by d / k, which makes the update right
    on average and its squared error d / k - 1 times its squared norm. With error feedback they are not scaled: what was
    left out would grow without bound (Stich et al., NeurIPS 2018).
    """

    uses_shared: ClassVar[bool] = True

    share: float = option(0.1, "share of the numbers that travel; at least one does", minimum=LEAST_SHARE, maximum=1)

    def encode(self, update: PyTree, own: PRNGKeyArray, shared: PRNGKeyArray) -> Chosen:
        """The numbers as float32."""
        vector, others = vector_of(update)
        count = kept(self.share, len(vector))
        scale = 1.0 if self.error_feedback or not count else len(vector) / count
        return Chosen(vector[places(shared, count, len(vector))] * scale, others)

    def decode(self, encoded: Chosen, template: PyTree, shared: PRNGKeyArray) -> PyTree:
        """Zeros elsewhere."""
        length = length_of(template)
        where = places(shared, kept(self.share, length), length)
        vector = jnp.zeros(length).at[where].set(encoded.values, unique_indices=True)
        return update_of(vector, encoded.others, template)


def places(shared: PRNGKeyArray, count: int, length: int) -> Int[Array, " k"]:
    """So many different ones of ``length`` places: those of the largest of as many random numbers.

    That takes a tenth of the time of a permutation.
    """
    return jax.lax.top_k(jax.random.bits(shared, (length,)), count)[1]
