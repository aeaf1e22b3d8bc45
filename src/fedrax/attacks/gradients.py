"""Attackers that each change their own message, without colluding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray, PyTree

from fedrax.attacks.base import Attack, Knowledge, attacks, replace_rows
from fedrax.registry import Number, option
from fedrax.trees import ravel_rows, unravel_like


def per_tensor(function: object, messages: PyTree, key: PRNGKeyArray) -> PyTree:
    """``function(leaf, key)`` of every leaf ``[n, ...]``, each with a key of its own."""
    leaves, structure = jax.tree.flatten(messages)
    assert callable(function)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(structure, [function(leaf, k) for leaf, k in zip(leaves, keys, strict=True)])


@attacks.register("zero-gradient")
class ZeroGradient(Attack):
    """Sends zeros: a free rider, who shortens an undefended mean."""

    ignores_honest = True

    def corrupt(
        self, messages: PyTree, byzantine: Bool[Array, " n"], key: PRNGKeyArray, knowledge: Knowledge
    ) -> PyTree:
        """Zeros."""
        return replace_rows(messages, byzantine, jax.tree.map(jnp.zeros_like, messages))


@attacks.register("random-noise")
class RandomNoise(Attack):
    """Adds ``U(-1, 1) * scale * (max g - min g)``, the range taken per tensor of the attacker's own message."""

    ignores_honest = True

    scale: Number = option(3.0, "noise amplitude in multiples of the tensor's range", minimum=0, argument=True)

    def corrupt(
        self, messages: PyTree, byzantine: Bool[Array, " n"], key: PRNGKeyArray, knowledge: Knowledge
    ) -> PyTree:
        """The messages with noise."""

        def noisy(leaf: Array, leaf_key: PRNGKeyArray) -> Array:
            axes = tuple(range(1, leaf.ndim))
            spread = leaf.max(axes, keepdims=True) - leaf.min(axes, keepdims=True)
            return leaf + jax.random.uniform(leaf_key, leaf.shape, leaf.dtype, -1, 1) * self.scale * spread

        return replace_rows(messages, byzantine, per_tensor(noisy, messages, key))


@attacks.register("sign-flipping")
class SignFlipping(Attack):
    """Sends ``-scale`` times the honest message."""

    ignores_honest = True

    scale: Number = option(2.5, "factor on the flipped message", minimum=0, argument=True)

    def corrupt(
        self, messages: PyTree, byzantine: Bool[Array, " n"], key: PRNGKeyArray, knowledge: Knowledge
    ) -> PyTree:
        """The messages flipped."""
        return replace_rows(messages, byzantine, jax.tree.map(lambda leaf: -self.scale * leaf, messages))


@attacks.register("large-noise")
class LargeNoise(Attack):
    """Sends ``U(-amplitude, amplitude)`` instead of anything learnt (DecByzPG)."""

    ignores_honest = True

    amplitude: Number = option(1000.0, "largest coordinate sent", minimum=0, argument=True)

    def corrupt(
        self, messages: PyTree, byzantine: Bool[Array, " n"], key: PRNGKeyArray, knowledge: Knowledge
    ) -> PyTree:
        """Pure noise."""

        def noise(leaf: Array, leaf_key: PRNGKeyArray) -> Array:
            return self.amplitude * jax.random.uniform(leaf_key, leaf.shape, leaf.dtype, -1, 1)

        return replace_rows(messages, byzantine, per_tensor(noise, messages, key))


@attacks.register("orthogonal-noise")
class OrthogonalNoise(Attack):
    """Sends noise orthogonal to the honest message and ``scale`` times as long: it hides from angles, not norms."""

    ignores_honest = True

    scale: Number = option(1.0, "length of the noise over that of the honest message", minimum=0, argument=True)

    def corrupt(
        self, messages: PyTree, byzantine: Bool[Array, " n"], key: PRNGKeyArray, knowledge: Knowledge
    ) -> PyTree:
        """The noise, in the space of the flat message."""
        vectors = ravel_rows(messages)
        lengths = jnp.linalg.norm(vectors, axis=1, keepdims=True)
        unit = vectors / jnp.where(lengths > 0, lengths, 1.0)
        noise = jax.random.normal(key, vectors.shape, vectors.dtype)
        noise -= (noise * unit).sum(1, keepdims=True) * unit
        noise *= self.scale * lengths / jnp.linalg.norm(noise, axis=1, keepdims=True)
        example = jax.tree.map(lambda leaf: leaf[0], messages)
        return replace_rows(messages, byzantine, unravel_like(example, noise))
