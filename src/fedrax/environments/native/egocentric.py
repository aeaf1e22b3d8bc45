"""MiniGrid's partial view: what an agent that walls blind sees of a grid, seven cells ahead and three to each side.

Cells are the bits of integers, so a line of the grid is cut out of the grid by one shift, and light falls through a
row of seven cells at once. Mapped over many copies, a view costs a few hundred integer operations on whole arrays and
no gather.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

VIEW_SIZE = 7
"""Cells along each side of the view."""
AHEAD = VIEW_SIZE - 1
"""The view's row, counted from the farthest, in which the agent stands."""
BESIDE = VIEW_SIZE // 2
"""The view's column in which the agent stands."""

_WHOLE_ROW = (1 << VIEW_SIZE) - 1


class Bitboard(NamedTuple):
    """A set of the cells of a square grid, twice: by rows and by columns, of which a heading wants one or the other."""

    rows: Int[Array, " size"]
    """Bit x of element y is the cell (x, y), y counted downwards."""
    columns: Int[Array, " size"]
    """Bit y of element x is the cell (x, y)."""


class Pose(NamedTuple):
    """The agent's cell, and its heading: 0 east, 1 south, 2 west, 3 north."""

    x: Int[Array, ""]
    y: Int[Array, ""]
    heading: Int[Array, ""]


def pack(cells: Bool[Array, "size size"]) -> Bitboard:
    """The set of cells (x, y) for which ``cells[x, y]``."""
    bits = 1 << jnp.arange(cells.shape[0])
    return Bitboard(jnp.where(cells, bits[:, None], 0).sum(0), jnp.where(cells, bits, 0).sum(1))


def forward(heading: Int[Array, ""]) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """The unit step (x, y) in this direction."""
    sign = jnp.where(heading < 2, 1, -1)
    across = heading % 2
    return sign * (1 - across), sign * across


def contains(board: Bitboard, x: Int[Array, ""], y: Int[Array, ""]) -> Bool[Array, ""]:
    """Whether the cell belongs to the set; no cell outside the grid does."""
    row = jnp.where(jnp.arange(board.rows.shape[0]) == y, board.rows, 0).sum()
    return ((row >> x) & 1) == 1


def rows_ahead(board: Bitboard, pose: Pose) -> Int[Array, " 7"]:
    """The part of the set that lies in the view: bits by ascending x or y, rows from the farthest to the agent's own.

    Which of a row's ends is the agent's left is settled by :func:`unpack`.
    """
    along_x = pose.heading % 2 == 0
    lines = jnp.where(along_x, board.columns, board.rows)
    own = jnp.where(along_x, pose.x, pose.y)
    beside = jnp.where(along_x, pose.y, pose.x)
    distances = jnp.where(pose.heading < 2, 1, -1) * (AHEAD - jnp.arange(VIEW_SIZE))
    wanted = jnp.arange(lines.shape[0]) == (own + distances)[:, None]
    rows = jnp.where(wanted, lines, 0).sum(1)
    return ((rows << BESIDE) >> beside) & _WHOLE_ROW


def visible(transparent: Int[Array, " 7"]) -> Int[Array, " 7"]:
    """The cells that are seen, if these let light through; both as :func:`rows_ahead` orders them.

    MiniGrid's ``process_vis`` passes over every row from left to right and back, from the agent's own to the farthest:
    a cell that is seen and transparent shows both its neighbours in the row, and the three nearest cells in the next.
    The two passes are no more than light running along the row both ways, which is what is done here.
    """
    lit = jnp.asarray(1 << BESIDE, transparent.dtype)
    seen = []
    for row in reversed(range(VIEW_SIZE)):
        passing = lit & transparent[row]
        for _ in range(VIEW_SIZE - 1):
            passing |= transparent[row] & ((passing << 1) | (passing >> 1))
        shown = (passing | (passing << 1) | (passing >> 1)) & _WHOLE_ROW
        seen.append(lit | shown)
        lit = shown
    return jnp.stack(seen[::-1])


def unpack(rows: Int[Array, " 7"], heading: Int[Array, ""]) -> Bool[Array, "7 7"]:
    """The cells of the view, ``[from left to right, from the farthest to the agent's own row]``, as MiniGrid's are."""
    columns = jnp.arange(VIEW_SIZE)
    # Heading east or north, the agent's right hand points to larger coordinates.
    turned = (heading == 1) | (heading == 2)
    shift = jnp.where(turned, VIEW_SIZE - 1 - columns, columns)
    return ((rows >> shift[:, None]) & 1) == 1


def view_mask(pose: Pose, x: Int[Array, ""], y: Int[Array, ""]) -> Bool[Array, "7 7"]:
    """True at the place of the grid's cell (x, y) in the view, and nowhere if it lies outside."""
    step_x, step_y = forward(pose.heading)
    across, down = x - pose.x, y - pose.y
    column = BESIDE + step_x * down - step_y * across
    row = AHEAD - (step_x * across + step_y * down)
    places = jnp.arange(VIEW_SIZE)
    return (places == column)[:, None] & (places == row)
