"""The networks of deterministic actor-critic learners: an actor, and two critics in named parts."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from fedrax.environments.base import Box, Spaces
from fedrax.learners.networks import Activation, Dense, Initialisation, activate, flat_size, make_dense


class MLP(eqx.Module):
    """Dense layers, an activation after each but, unless ``activate_last``, the last."""

    layers: tuple[Dense, ...]
    activation: Activation = eqx.field(static=True)
    activate_last: bool = eqx.field(static=True)

    def __call__(self, x: Float[Array, "... i"]) -> Float[Array, "... o"]:
        """The last layer's output."""
        return self.both(x)[1]

    def both(self, x: Float[Array, "... i"]) -> tuple[Float[Array, "... h"], Float[Array, "... o"]]:
        """The output of the last layer but one (the input itself where there is one layer), and the last layer's."""
        hidden = x
        for layer in self.layers[:-1]:
            hidden = activate(self.activation, layer(hidden))
        output = self.layers[-1](hidden)
        return hidden, activate(self.activation, output) if self.activate_last else output


class TwinCritic(eqx.Module):
    """Networks of TD3, by part as strategies share them: features and heads of both critics, and the actor."""

    features: tuple[MLP, MLP]
    """From observation and action to what each critic makes of them."""
    head: tuple[MLP, MLP]
    """From there to the value."""
    actor: MLP
    centre: tuple[float, ...] = eqx.field(static=True)
    """Middle of each action component's range."""
    reach: tuple[float, ...] = eqx.field(static=True)
    """Half the range."""

    def act(self, observation: Float[Array, "... o"]) -> Float[Array, "... a"]:
        """The actor's actions, within bounds."""
        return jnp.asarray(self.centre) + jnp.asarray(self.reach) * jnp.tanh(self.actor(observation))

    def clip(self, action: Float[Array, "... a"]) -> Float[Array, "... a"]:
        """The action moved into its bounds."""
        centre, reach = jnp.asarray(self.centre), jnp.asarray(self.reach)
        return jnp.clip(action, centre - reach, centre + reach)

    def represent(
        self, observation: Float[Array, "... o"], action: Float[Array, "... a"]
    ) -> tuple[Float[Array, "... f"], Float[Array, "... f"]]:
        """Each critic's features."""
        both = jnp.concatenate([observation, action], -1)
        first, second = self.features
        return first(both), second(both)

    def values(
        self, observation: Float[Array, "... o"], action: Float[Array, "... a"]
    ) -> tuple[Float[Array, ...], Float[Array, ...]]:
        """Both critics' values."""
        return self.judge(*self.represent(observation, action))

    def judge(
        self, first: Float[Array, "... f"], second: Float[Array, "... f"]
    ) -> tuple[Float[Array, ...], Float[Array, ...]]:
        """The heads' values of each critic's features."""
        return self.head[0](first)[..., 0], self.head[1](second)[..., 0]

    def value(self, observation: Float[Array, "... o"], action: Float[Array, "... a"]) -> Float[Array, ...]:
        """The first critic's value."""
        features = self.features[0](jnp.concatenate([observation, action], -1))
        return self.head[0](features)[..., 0]


def make_twin_critic(
    key: PRNGKeyArray,
    spaces: Spaces,
    *,
    actor: tuple[int, ...],
    features: tuple[int, ...],
    head: tuple[int, ...],
    activation: Activation,
    initialisation: Initialisation,
) -> TwinCritic:
    """Fresh networks with hidden layers of these widths; ``features`` has at least one."""
    assert isinstance(spaces.action, Box)
    observations, actions = flat_size(spaces.observation), flat_size(spaces.action)

    def mlp(key: PRNGKeyArray, sizes: tuple[int, ...], *, activate_last: bool) -> MLP:
        keys = jax.random.split(key, len(sizes) - 1)
        layers = [
            make_dense(k, i, o, initialisation, by_output=True)
            for k, i, o in zip(keys, sizes[:-1], sizes[1:], strict=True)
        ]
        return MLP(tuple(layers), activation, activate_last)

    first, second, third, fourth, actor_key = jax.random.split(key, 5)
    return TwinCritic(
        features=(
            mlp(first, (observations + actions, *features), activate_last=True),
            mlp(second, (observations + actions, *features), activate_last=True),
        ),
        head=(
            mlp(third, (features[-1], *head, 1), activate_last=False),
            mlp(fourth, (features[-1], *head, 1), activate_last=False),
        ),
        actor=mlp(actor_key, (observations, *actor, actions), activate_last=False),
        centre=tuple((high + low) / 2 for low, high in zip(spaces.action.low, spaces.action.high, strict=True)),
        reach=tuple((high - low) / 2 for low, high in zip(spaces.action.low, spaces.action.high, strict=True)),
    )
