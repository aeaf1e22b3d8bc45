"""The networks of off-policy actor-critic learners: an actor, and two critics in named parts."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from fedrax.environments.actions import middle_and_reach
from fedrax.environments.base import Box, Observation, Spaces
from fedrax.learners.encoders import Encoder, Flatten, TorsoKind, make_encoder
from fedrax.learners.moments import Normaliser
from fedrax.learners.networks import Activation, Dense, Initialisation, activate, flat_size, make_dense


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


class TwinCritic(eqx.Module):
    """Networks by part as strategies share them: features and heads of both critics, and the actor, deterministic."""

    features: tuple[MLP, MLP]
    """From observation and action to what each critic makes of them."""
    head: tuple[MLP, MLP]
    """From there to the value."""
    actor: MLP
    centre: tuple[float, ...] = eqx.field(static=True)
    """Middle of each action component's range."""
    reach: tuple[float, ...] = eqx.field(static=True)
    """Half the range."""
    scaled: bool = eqx.field(static=True)
    """Whether critics see an action as a share of its range, -1 to 1, rather than in the environment's units."""
    normaliser: Normaliser | tuple[()] = ()
    """By which all networks see observations; () where they see them as they are."""

    def seen(self, observation: Observation) -> Observation:
        """Observations, leaves ``[..., *o]``, as the networks see them."""
        return self.normaliser(observation) if isinstance(self.normaliser, Normaliser) else observation

    def act(self, observation: Observation) -> Float[Array, "... a"]:
        """The actor's actions, within bounds."""
        return jnp.asarray(self.centre) + jnp.asarray(self.reach) * jnp.tanh(self.actor(self.seen(observation)))

    def clip(self, action: Float[Array, "... a"]) -> Float[Array, "... a"]:
        """The action moved into its bounds."""
        centre, reach = jnp.asarray(self.centre), jnp.asarray(self.reach)
        return jnp.clip(action, centre - reach, centre + reach)

    def represent(
        self, observation: Observation, action: Float[Array, "... a"]
    ) -> tuple[Float[Array, "... f"], Float[Array, "... f"]]:
        """Each critic's features."""
        first, second = self.features
        observation, action = self.seen(observation), self._seen(action)
        return first(observation, action), second(observation, action)

    def values(
        self, observation: Observation, action: Float[Array, "... a"]
    ) -> tuple[Float[Array, ...], Float[Array, ...]]:
        """Both critics' values."""
        return self.judge(*self.represent(observation, action))

    def judge(
        self, first: Float[Array, "... f"], second: Float[Array, "... f"]
    ) -> tuple[Float[Array, ...], Float[Array, ...]]:
        """The heads' values of each critic's features."""
        return self.head[0](first)[..., 0], self.head[1](second)[..., 0]

    def value(self, observation: Observation, action: Float[Array, "... a"]) -> Float[Array, ...]:
        """The first critic's value."""
        return self.head[0](self.features[0](self.seen(observation), self._seen(action)))[..., 0]

    def _seen(self, action: Float[Array, "... a"]) -> Float[Array, "... a"]:
        """An action as the critics see it."""
        return self.shares(action) if self.scaled else action

    def shares(self, action: Float[Array, "... a"]) -> Float[Array, "... a"]:
        """Actions as shares of their range, -1 to 1."""
        # A component that cannot move is 0.
        return (action - jnp.asarray(self.centre)) / jnp.asarray([reach or 1.0 for reach in self.reach])


def make_twin_critic(
    key: PRNGKeyArray,
    spaces: Spaces,
    *,
    torso: TorsoKind,
    actor: tuple[int, ...],
    features: tuple[int, ...],
    head: tuple[int, ...],
    activation: Activation,
    initialisation: Initialisation,
    scaled: bool,
    normalised: bool,
    outputs: int | None = None,
) -> TwinCritic:
    """Fresh networks with hidden layers of these widths; ``features`` has at least one.

    ``outputs`` are the actor's, unset one for each component of an action. Critics of discrete actions see observations
    alone, and have a value for each action.
    """
    seen, values = (flat_size(spaces.action), 1) if isinstance(spaces.action, Box) else (0, spaces.action.n)
    centre, reach = middle_and_reach(spaces.action) if isinstance(spaces.action, Box) else (np.zeros(0), np.zeros(0))

    def seeing(key: PRNGKeyArray, others: int, sizes: tuple[int, ...], *, activate_last: bool) -> MLP:
        """On an observation and so many other numbers."""
        made = make_encoder(jax.random.fold_in(key, 1), torso, spaces.observation, initialisation)
        return mlp(key, (made[1] + others, *sizes), activate_last=activate_last, encoder=made[0])

    def mlp(key: PRNGKeyArray, sizes: tuple[int, ...], *, activate_last: bool, encoder: Encoder | None = None) -> MLP:
        keys = jax.random.split(key, len(sizes) - 1)
        layers = [
            make_dense(k, i, o, initialisation, by_output=True)
            for k, i, o in zip(keys, sizes[:-1], sizes[1:], strict=True)
        ]
        return MLP(encoder or Flatten(sizes[:1], 1.0), tuple(layers), activation, activate_last)

    first, second, third, fourth, actor_key = jax.random.split(key, 5)
    return TwinCritic(
        features=(
            seeing(first, seen, features, activate_last=True),
            seeing(second, seen, features, activate_last=True),
        ),
        head=(
            mlp(third, (features[-1], *head, values), activate_last=False),
            mlp(fourth, (features[-1], *head, values), activate_last=False),
        ),
        actor=seeing(actor_key, 0, (*actor, outputs or seen), activate_last=False),
        centre=tuple(centre.tolist()),
        reach=tuple(reach.tolist()),
        scaled=scaled,
        normaliser=Normaliser.fresh(spaces.observation) if normalised else (),
    )
