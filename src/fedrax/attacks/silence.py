"""Attackers that hold back."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray, PyTree

from fedrax.attacks.base import Attack, Knowledge, attacks, replace_rows
from fedrax.attacks.gradients import per_tensor
from fedrax.registry import Number, option


@attacks.register("drop-out")
class DropOut(Attack):
    """Does not answer."""

    silence: Number = option(
        1.0, "chance of not answering in a round", unit="probability", minimum=0, maximum=1, argument=True
    )

    def answers(self, byzantine: Bool[Array, " n"], key: PRNGKeyArray) -> Bool[Array, " n"]:
        """Everyone but the silent attackers."""
        return ~(byzantine & jax.random.bernoulli(key, self.silence, byzantine.shape))


@attacks.register("partial-drop")
class PartialDrop(Attack):
    """Sends its message with a share of the coordinates set to zero."""

    ignores_honest = True

    share: Number = option(
        0.5, "chance of each coordinate to be dropped", unit="probability", minimum=0, maximum=1, argument=True
    )

    def corrupt(
        self, messages: PyTree, byzantine: Bool[Array, " n"], key: PRNGKeyArray, knowledge: Knowledge
    ) -> PyTree:
        """The thinned messages."""

        def thin(leaf: Array, leaf_key: PRNGKeyArray) -> Array:
            return jnp.where(jax.random.bernoulli(leaf_key, self.share, leaf.shape), 0.0, leaf)

        return replace_rows(messages, byzantine, per_tensor(thin, messages, key))
