"""Networks of dense layers on observations, and who makes them for given spaces."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from fedrax.environments.base import Observation, Spaces
from fedrax.learners.encoders import Encoder, Flatten, TorsoKind, make_encoder
from fedrax.learners.networks import Activation, Dense, Initialisation, activate, make_dense

LAST = 0.003
"""Bound of the last layer's numbers in rlkit."""


class MLP(eqx.Module):
    """Dense layers, an activation after each but, unless ``activate_last``, the last."""

    encoder: Encoder
    """Of the input; what else there is (an action) goes to the layers as it is."""
    layers: tuple[Dense, ...]
    activation: Activation = eqx.field(static=True)
    activate_last: bool = eqx.field(static=True)

    def __call__(self, x: Observation, *others: Float[Array, "... i"]) -> Float[Array, "... o"]:
        """The last layer's output."""
        return self.both(x, *others)[1]

    def both(
        self, x: Observation, *others: Float[Array, "... i"]
    ) -> tuple[Float[Array, "... h"], Float[Array, "... o"]]:
        """The output of the last layer but one (the input itself where there is one layer), and the last layer's."""
        hidden = jnp.concatenate([self.encoder(x), *others], -1)
        for layer in self.layers[:-1]:
            hidden = activate(self.activation, layer(hidden))
        output = self.layers[-1](hidden)
        return hidden, activate(self.activation, output) if self.activate_last else output


@dataclasses.dataclass(frozen=True)
class MLPMaker:
    """Makes the networks of one learner."""

    spaces: Spaces
    torso: TorsoKind
    activation: Activation
    initialisation: Initialisation

    def seeing(self, key: PRNGKeyArray, others: int, sizes: tuple[int, ...], *, activate_last: bool) -> MLP:
        """On an observation and so many other numbers, with layers of these widths."""
        made = make_encoder(jax.random.fold_in(key, 1), self.torso, self.spaces.observation, self.initialisation)
        return self._made(key, (made[1] + others, *sizes), activate_last, made[0])

    def mlp(self, key: PRNGKeyArray, sizes: tuple[int, ...]) -> MLP:
        """On ``sizes[0]`` numbers, with layers of the widths that follow."""
        return self._made(key, sizes, False, Flatten(sizes[:1], 1.0))

    def _made(self, key: PRNGKeyArray, sizes: tuple[int, ...], activate_last: bool, encoder: Encoder) -> MLP:
        keys = jax.random.split(key, len(sizes) - 1)
        layers = [
            make_dense(k, i, o, self.initialisation, by_output=True)
            for k, i, o in zip(keys, sizes[:-1], sizes[1:], strict=True)
        ]
        if self.initialisation == "rlkit" and not activate_last:
            layers[-1] = _small(jax.random.fold_in(key, 2), layers[-1])
        return MLP(encoder, tuple(layers), self.activation, activate_last)


def _small(key: PRNGKeyArray, layer: Dense) -> Dense:
    """The layer with weights and biases of U(+-0.003), as rlkit's last ones."""
    keys = jax.random.split(key)
    weight, bias = (
        jax.random.uniform(k, shape, minval=-LAST, maxval=LAST)
        for k, shape in zip(keys, (layer.weight.shape, layer.weight.shape[:1]), strict=True)
    )
    return Dense(weight, bias, layer.by_output)
