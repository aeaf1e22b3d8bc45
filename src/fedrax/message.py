"""What an agent sends: what of it may be averaged, when each part travels, and what that weighs.

The simulation and the runtime over a network count, zero and encode messages and broadcasts by the functions here, so
that the bytes in the records are the bytes on the wire.
"""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree


class Message(eqx.Module):
    """One agent's message of a round; the server sees those of all participants, leaves ``[m, ...]``."""

    update: PyTree = ()
    """Real changes that a server averages: a gradient, or weights minus those received. An attack, a norm or a distance
    therefore means the same for every strategy."""
    statistics: PyTree = ()
    """What adds up or merges exactly over agents: sums and counts of returns, moments of observations. No rule averages
    them, and no attack on updates touches them: a lie about them is an attack of its own."""
    individual: PyTree = ()
    """What the server keeps by sender, or relays: representations, policies. Attacked as updates are, never summed."""


Period = Callable[[tuple[str, ...]], int]
"""Of the array at a path (names of fields, keys, positions): the rounds from one time that it travels to the next."""


def every_time(path: tuple[str, ...]) -> int:
    """The :data:`Period` of what always travels."""
    return 1


def is_real(leaf: object) -> bool:
    """Whether an array holds floating-point numbers; attacks act on no other."""
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.floating))


def attackable(message: Message) -> tuple[PyTree, PyTree]:
    """The real arrays of update and individual part, and a message of all others, None in place of what is missing."""
    chosen = Message(
        jax.tree.map(is_real, message.update),
        jax.tree.map(lambda _: False, message.statistics),
        jax.tree.map(is_real, message.individual),
    )
    return eqx.partition(message, chosen)


def finite_rows(messages: PyTree, count: int) -> Bool[Array, " m"]:
    """Which of so many messages, leaves ``[m, ...]``, hold finite numbers alone."""
    finite = jnp.ones(count, bool)
    for leaf in jax.tree.leaves(messages):
        if is_real(leaf):
            finite &= jnp.isfinite(leaf.reshape(count, -1)).all(1)
    return finite


def keep_rows(messages: PyTree, rows: Bool[Array, " m"]) -> PyTree:
    """The messages, leaves ``[m, ...]``, with zeros in place of the rows that are not to be kept."""
    return jax.tree.map(lambda x: jnp.where(rows.reshape(-1, *[1] * (x.ndim - 1)), x, jnp.zeros_like(x)), messages)


def first_not_finite(message: PyTree) -> str | None:
    """The path of the first array that holds NaN or infinity."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(message):
        if is_real(leaf) and not np.isfinite(leaf).all():
            return jax.tree_util.keystr(path)
    return None


def norm(update: PyTree) -> float:
    """The Euclidean norm over all arrays, in double precision."""
    return float(np.sqrt(sum(float(np.square(leaf, dtype=np.float64).sum()) for leaf in jax.tree.leaves(update))))


def periods(tree: PyTree, period: Period) -> PyTree:
    """Of each array of a message or a broadcast, as :data:`Period` says; the same structure, with integer leaves."""
    return jax.tree_util.tree_map_with_path(lambda path, _: period(tuple(map(_name, path))), tree)


def travelling(tree: PyTree, period: Period, turn: int) -> PyTree:
    """What of a message or a broadcast travels in a turn: None in place of the other arrays.

    The turn is the round's number for a broadcast, and one more for a message: what the server averages at the end of
    a round is what it broadcasts at the start of the next.
    """
    return jax.tree.map(lambda x, each: None if turn % each else x, tree, periods(tree, period))


def arrived(tree: PyTree, period: Period, turn: Array) -> PyTree:
    """What the other end reads of it: zeros where an array did not travel. For a turn inside a compiled program."""
    each = periods(tree, period)
    if all(number == 1 for number in jax.tree.leaves(each)):
        return tree
    return jax.tree.map(lambda x, n: x if n == 1 else jnp.where(turn % n == 0, x, jnp.zeros_like(x)), tree, each)


def filled(template: PyTree, part: PyTree) -> PyTree:
    """``part`` of a message or a broadcast, as of :func:`travelling`, with zeros in place of what did not travel."""
    return jax.tree.map(lambda shape, x: np.zeros(shape.shape, shape.dtype) if x is None else x, template, part)


def _name(key: object) -> str:
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)
