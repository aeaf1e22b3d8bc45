"""The updates that nodes sent compressed, decoded one by one, as the server's checks of their size need them."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
from jaxtyping import Array, PyTree

from fedrax.federation import Federation
from fedrax.runtime.compiling import jitted
from fedrax.runtime.distributed.checks import Rejected
from fedrax.seeds import derive


class Decoding:
    """Decodes what an agent sends in place of its update, and trusts none of it."""

    def __init__(self, federation: Federation, seed: int) -> None:
        """``seed`` is the run's."""
        self.compression = federation.compression
        self.template = federation.update_shapes()
        self._decoded = jitted(partial(self._decode, federation, seed))

    def _decode(self, federation: Federation, seed: int, encoded: PyTree, round: Array) -> PyTree:
        shared = federation.shared_key(derive(jax.random.key(seed), "round", round))
        return self.compression.decode(encoded, self.template, shared)

    def __call__(self, encoded: PyTree, round: int) -> PyTree:
        """The update, as NumPy arrays, of what was sent in a round.

        Args:
            encoded: NumPy arrays of the right shapes, zeros where they did not travel.

        Raises:
            Rejected: they encode no update.
        """
        flaw = self.compression.flaw(encoded, self.template)
        if flaw is not None:
            raise Rejected(f"an update that cannot be decoded: {flaw}")
        update: PyTree = jax.tree.map(np.asarray, self._decoded(encoded, round))
        return update
