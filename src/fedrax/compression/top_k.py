"""The numbers of largest magnitude, and where they are."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, UInt

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

INDEX_BYTES = 4


class Largest(NamedTuple):
    """The ``k`` largest of ``d`` numbers."""

    values: Float[Array, " k"]
    """In the order of their places."""
    places: UInt[Array, " p"]
    """Their indices, ``uint32[k]``, or a bit for each of all numbers, ``uint8[ceil(d / 8)]``: what is smaller."""
    others: PyTree
    """Arrays that are not real."""


@compressions.register("top-k")
class TopK(FeedbackCompression):
    """The numbers of largest magnitude of the whole update (Aji and Heafield, 2017; Stich et al., NeurIPS 2018).

    It is biased: without error feedback, what is small in every round never arrives, and training may diverge
    (counterexamples of Karimireddy et al., ICML 2019).
    """

    share: float = option(0.01, "share of the numbers that travel; at least one does", minimum=LEAST_SHARE, maximum=1)
    error_feedback: bool = option(True, "agents add what the last encodings left out to their next update")

    def encode(self, update: PyTree, own: PRNGKeyArray, shared: PRNGKeyArray) -> Largest:
        """The numbers as float32, and their places."""
        vector, others = vector_of(update)
        count = kept(self.share, len(vector))
        magnitude = jnp.where(jnp.isnan(vector), jnp.inf, jnp.abs(vector))
        indices = jnp.sort(jax.lax.top_k(magnitude, count)[1])
        if not as_bits(count, len(vector)):
            return Largest(vector[indices], indices.astype(jnp.uint32), others)
        chosen = jnp.zeros(len(vector), bool).at[indices].set(True)
        return Largest(vector[indices], jnp.packbits(chosen), others)

    def decode(self, encoded: Largest, template: PyTree, shared: PRNGKeyArray) -> PyTree:
        """Zeros elsewhere."""
        length = length_of(template)
        if not as_bits(kept(self.share, length), length):
            vector = jnp.zeros(length).at[encoded.places].set(encoded.values, mode="drop")
        else:
            chosen = jnp.unpackbits(encoded.places, count=length).astype(bool)
            rank = jnp.cumsum(chosen) - 1
            vector = jnp.where(chosen, jnp.take(encoded.values, rank, mode="clip"), 0.0)
        return update_of(vector, encoded.others, template)

    def flaw(self, encoded: Largest, template: PyTree) -> str | None:
        """Places that do not exist, or are not as many different ones as there are values."""
        length, places = length_of(template), np.asarray(encoded.places)
        count = kept(self.share, length)
        if as_bits(count, length):
            bits = np.unpackbits(places)
            right = bits.sum() == count and not bits[length:].any()
        else:
            right = (places < length).all() and (np.diff(places.astype(np.int64)) > 0).all()
        return None if right else f"the places of its numbers are not {count} different ones of {length} in order"


def as_bits(count: int, length: int) -> bool:
    """Whether a bit for each of so many numbers takes less than the indices of ``count`` of them."""
    return -(-length // 8) < INDEX_BYTES * count
