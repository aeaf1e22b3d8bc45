"""Updates as they are."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import PRNGKeyArray, PyTree

from fedrax.compression.base import Compression, compressions


@compressions.register("none")
class NoCompression(Compression):
    """Updates travel as they are."""

    lossless: ClassVar[bool] = True
    by_array: ClassVar[bool] = True

    def encode(self, update: PyTree, own: PRNGKeyArray, shared: PRNGKeyArray) -> PyTree:
        """The update."""
        return update

    def decode(self, encoded: PyTree, template: PyTree, shared: PRNGKeyArray) -> PyTree:
        """What came."""
        return encoded
