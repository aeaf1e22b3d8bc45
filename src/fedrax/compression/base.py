"""What a compression is: a pair of pure functions, from one agent's update to what travels and back."""

from __future__ import annotations

import abc
import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from fedrax.message import is_real
from fedrax.registry import Registry, option
from fedrax.trees import ravel_rows, unravel_like

LEAST_SHARE = 1e-9
"""Of an update's numbers. None at all is no compression, and whoever asks for it means something else."""


class Compression(eqx.Module):
    """How an agent's update is encoded; the functions speak of ONE agent and are mapped over agents.

    Only arrays of real numbers are compressed; others travel as they are. What is not finite must stay so, since that
    is how the server tells a broken update.
    """

    name: ClassVar[str]
    lossless: ClassVar[bool] = False
    """What is encoded is the update itself."""
    by_array: ClassVar[bool] = False
    """Each array is encoded by itself, under its own path, so some may travel less often than others."""
    uses_shared: ClassVar[bool] = False
    """What travels can be read with the ``shared`` key of its own round alone."""

    @property
    def remembers(self) -> bool:
        """Whether agents add what an encoding left out to their next update (:func:`with_feedback`)."""
        return False

    @abc.abstractmethod
    def encode(self, update: PyTree, own: PRNGKeyArray, shared: PRNGKeyArray) -> PyTree:
        """What travels: a pytree of arrays, whose shapes depend on those of the update alone.

        Args:
            update: one agent's, real arrays of any shape and perhaps others.
            own: the agent's randomness.
            shared: randomness that is the same at the server and at all agents in a round.
        """

    @abc.abstractmethod
    def decode(self, encoded: PyTree, template: PyTree, shared: PRNGKeyArray) -> PyTree:
        """The update again, with the structure, shapes and types of ``template`` (which may be bare shapes).

        Zeros in place of an encoding are an update of zeros.
        """

    def flaw(self, encoded: PyTree, template: PyTree) -> str | None:
        """Why these NumPy arrays, of the right shapes and all finite, encode no update; None where they do."""
        return None


class FeedbackCompression(Compression):
    """A compression that may be corrected by error feedback (Seide et al., 2014; Karimireddy et al., ICML 2019)."""

    error_feedback: bool = option(False, "agents add what the last encodings left out to their next update")

    @property
    def remembers(self) -> bool:
        """As :attr:`error_feedback` says."""
        return self.error_feedback


compressions: Registry[Compression] = Registry("compression", "fedrax.compression")


def with_feedback(
    compression: Compression, update: PyTree, residual: PyTree, travels: PyTree, own: PRNGKeyArray, shared: PRNGKeyArray
) -> tuple[PyTree, PyTree]:
    """An encoding of ``update + residual``, and what it left out (algorithm 2 of Karimireddy et al., ICML 2019).

    Args:
        update: one agent's.
        residual: what earlier encodings left out, as :func:`no_residual`.
        travels: for each real array of the update whether it travels now; where it does not, its residual stays.
        own, shared: as of :meth:`Compression.encode`.

    Returns:
        What travels, and the new residual. An update that is not finite leaves the residual as it was: the server
        does not use it, and its NaN would stay in the agent for good.
    """
    real, others = eqx.partition(update, is_real)
    corrected = jax.tree.map(jnp.add, real, residual)
    encoded = compression.encode(eqx.combine(corrected, others), own, shared)
    decoded = eqx.filter(compression.decode(encoded, update, shared), is_real)
    left = jax.tree.map(jnp.subtract, corrected, decoded)
    finite = jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(left)]).all()
    return encoded, jax.tree.map(lambda new, old, now: jnp.where(finite & now, new, old), left, residual, travels)


def no_residual(update: PyTree) -> PyTree:
    """The residual before the first encoding: zeros for real arrays, None in place of others."""
    real = jax.tree.map(lambda x: x if is_real(x) else None, update)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), real)


def vector_of(update: PyTree) -> tuple[Float[Array, " d"], PyTree]:
    """The real arrays of an update as one float32 vector, and its other arrays, None in place of the real ones."""
    real, others = eqx.partition(update, is_real)
    if not jax.tree.leaves(real):
        return jnp.zeros(0), others
    return ravel_rows(jax.tree.map(lambda x: x[None].astype(jnp.float32), real))[0], others


def update_of(vector: Float[Array, " d"], others: PyTree, template: PyTree) -> PyTree:
    """The inverse of :func:`vector_of`, with the structure, shapes and types of ``template``."""
    return eqx.combine(unravel_like(_real(template), vector), others)


def length_of(template: PyTree) -> int:
    """How many real numbers an update has; ``template`` may be bare shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(_real(template)))


def kept(share: float, length: int) -> int:
    """``ceil(share * length)`` of so many numbers, at least one where there is any."""
    return min(length, max(1, math.ceil(share * length - 1e-9)))


def _real(template: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x if is_real(x) else None, template)
