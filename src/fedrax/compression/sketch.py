"""Sums of numbers that share a cell of a table."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from fedrax.compression.base import LEAST_SHARE, Compression, compressions, kept, length_of, update_of, vector_of
from fedrax.registry import option
from fedrax.seeds import derive


class Table(NamedTuple):
    """A sketch of ``r`` rows of ``c`` columns."""

    cells: Float[Array, "r c"]
    others: PyTree
    """Arrays that are not real."""


@compressions.register("sketch")
class Sketch(Compression):
    """A count sketch (Charikar, Chen and Farach-Colton, 2002).

    Each row adds every number, with a random sign, to a cell at random; the same signs and cells for all agents of a
    round.

    A number is estimated by the mean over rows of its cell with its sign: right on average, with a variance of at most
    ``|u|^2 / (rows * columns)`` of an update u. The mean is what may be summed; the median of the original, which is
    better for a few large numbers, is not. There is no error feedback: the estimate of all numbers is no contraction
    (FetchSGD, Rothchild et al., ICML 2020, keeps the largest alone, at a server that sees one sum).
    """

    uses_shared: ClassVar[bool] = True

    share: float = option(0.1, "cells of the whole table, as a share of the numbers", minimum=LEAST_SHARE, maximum=1)
    rows: int = option(1, "rows of the table, among which its cells are divided", minimum=1, maximum=64)

    def encode(self, update: PyTree, own: PRNGKeyArray, shared: PRNGKeyArray) -> Table:
        """The table as float32."""
        vector, others = vector_of(update)
        columns = self.columns(len(vector))

        def row(cell: Int[Array, " d"], sign: Float[Array, " d"]) -> Float[Array, " c"]:
            return jnp.zeros(columns).at[cell].add(sign * vector)

        return Table(jax.vmap(row)(*self.hashes(shared, len(vector))), others)

    def decode(self, encoded: Table, template: PyTree, shared: PRNGKeyArray) -> PyTree:
        """The mean of the rows' estimates."""
        cells, signs = self.hashes(shared, length_of(template))
        estimates = signs * jnp.take_along_axis(encoded.cells, cells, axis=1)
        return update_of(estimates.mean(0), encoded.others, template)

    def columns(self, length: int) -> int:
        """Cells of a row, for so many numbers."""
        return max(1, -(-kept(self.share, length) // self.rows))

    def hashes(self, shared: PRNGKeyArray, length: int) -> tuple[Int[Array, "r d"], Float[Array, "r d"]]:
        """The cell and the sign of each number in each row, independent of each other."""
        shape = (self.rows, length)
        cells = jax.random.randint(derive(shared, "cells"), shape, 0, self.columns(length))
        return cells, jax.random.rademacher(derive(shared, "signs"), shape, jnp.float32)
