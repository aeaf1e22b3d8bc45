"""Actor and critic, on one torso or on two: the networks of on-policy actor-critic learners."""

from __future__ import annotations

import math
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from fedrax.environments.base import Box, Dict, Discrete, Observation, Spaces, Tokens
from fedrax.learners.distributions import Categorical, Distribution, Gaussian
from fedrax.learners.encoders import GRID, Encoder, make_encoder, make_words, sum_of_words
from fedrax.learners.networks import Activation, Dense, Policy, activate, flat_size, make_dense

TILES = (11, 6, 4)
"""Object kinds, colours and states of a cell."""
CHANNELS = (16, 32, 64)
"""Of the three convolutions on a grid (the federated-PPO reference's)."""

TorsoKind = Literal["auto", "mlp", "cnn", "grid"]
Encoding = Literal["one-hot", "raw"]
CriticTorso = Literal["shared", "separate"]


class Torso(eqx.Module):
    """From observations ``[..., *o]`` to features ``[..., f]``, whatever axes lead."""

    def __call__(self, observation: Observation) -> Float[Array, "... f"]:
        """The features."""
        raise NotImplementedError


class MLPTorso(Torso):
    """Dense layers on the encoded observation, an activation after each."""

    encoder: Encoder
    layers: tuple[Dense, ...]
    activation: Activation = eqx.field(static=True)

    def __call__(self, observation: Observation) -> Float[Array, "... f"]:
        """The features."""
        features = self.encoder(observation)
        for layer in self.layers:
            features = activate(self.activation, layer(features))
        return features


class GridTorso(Torso):
    """Three 2x2 convolutions and a dense layer on MiniGrid's view, and a layer on the words of its mission.

    The first convolution may be followed by the largest of each 2x2 block, as in MiniGrid's own starter agents
    (Willems, rl-starter-files): a fifth of the operations.

    A 2x2 convolution is four shifted slices side by side and one matrix product: on a CPU that is several times
    faster than a grouped convolution, which is what a convolution mapped over agents becomes.
    """

    convolutions: tuple[Dense, ...]
    dense: Dense
    words: Float[Array, "words vocabulary f"] | None
    """An embedding for each word in each place: a mission's words mean different things in different orders."""
    activation: Activation = eqx.field(static=True)
    encoding: Encoding = eqx.field(static=True)
    pooling: bool = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True, default=())
    """Of the view and of the mission in the observation; () where it is the view itself."""

    def __call__(self, observation: Observation) -> Float[Array, "... f"]:
        """The features."""
        image = observation[self.names[0]] if isinstance(observation, dict) else observation
        batch = image.shape[:-3]
        grid = image.reshape(-1, *GRID).astype(jnp.float32)
        for place, convolution in enumerate(self.convolutions):
            patches = _patches(grid) if place else self._encoded(_patches(grid))
            grid = convolution(patches.reshape(*patches.shape[:3], -1))
            if self.pooling and place == 0:
                n, side, _, channels = grid.shape
                grid = grid.reshape(n, side // 2, 2, side // 2, 2, channels).max((2, 4))
            grid = activate(self.activation, grid)
        flat = self.dense(grid.reshape(grid.shape[0], -1)).reshape(*batch, -1)
        if isinstance(observation, dict) and self.words is not None:
            flat = flat + sum_of_words(self.words, observation[self.names[1]])
        return activate(self.activation, flat)

    def _encoded(self, patches: Float[Array, "n h w 4 3"]) -> Float[Array, "n h w 4 c"]:
        """Encoding after cutting moves a seventh of the memory that cutting encoded cells would."""
        if self.encoding == "raw":
            return patches
        parts = [patches[..., i, None] == jnp.arange(size, dtype=patches.dtype) for i, size in enumerate(TILES)]
        return jnp.concatenate(parts, -1).astype(patches.dtype)


def _patches(grid: Float[Array, "n h w c"]) -> Float[Array, "n h-1 w-1 4 c"]:
    """Every 2x2 block of cells."""
    return jnp.stack((grid[:, :-1, :-1], grid[:, :-1, 1:], grid[:, 1:, :-1], grid[:, 1:, 1:]), 3)


class Value(eqx.Module):
    """A value function with a torso of its own."""

    torso: Torso
    head: Dense

    def __call__(self, observation: Observation) -> Float[Array, "... 1"]:
        """The states' values."""
        return self.head(self.torso(observation))


class ActorCritic(Policy):
    """A policy and its value function. Its parts by name, as strategies share them: torso, actor, critic."""

    torso: Torso
    actor: Dense | GaussianHead
    critic: Dense | Value
    """On the torso's features, or with a torso of its own, which is a part of it."""

    def __call__(self, observation: Observation) -> Distribution:
        """The action distribution."""
        return self._acted(self.torso(observation))

    def both(self, observation: Observation) -> tuple[Distribution, Float[Array, ...]]:
        """The action distribution and the state's value."""
        features = self.torso(observation)
        value = self.critic(observation) if isinstance(self.critic, Value) else self.critic(features)
        return self._acted(features), value[..., 0]

    def _acted(self, features: Array) -> Distribution:
        return self.actor(features) if isinstance(self.actor, GaussianHead) else Categorical(self.actor(features))


class GaussianHead(eqx.Module):
    """A linear mean, and one log deviation per component whatever the state."""

    mean: Dense
    log_deviation: Float[Array, " a"]

    def __call__(self, features: Float[Array, "... f"]) -> Gaussian:
        """The distribution."""
        mean = self.mean(features)
        return Gaussian(mean, jnp.broadcast_to(jnp.exp(self.log_deviation), mean.shape))


def make_actor_critic(
    key: PRNGKeyArray,
    spaces: Spaces,
    *,
    torso: TorsoKind,
    hidden: tuple[int, ...],
    activation: Activation,
    encoding: Encoding,
    pooling: bool,
    critic_torso: CriticTorso = "shared",
    deviation: float = 1.0,
) -> ActorCritic:
    """Fresh networks: orthogonal weights, gain sqrt 2 in the torso, 0.01 for the actor, 1 for the critic.

    ``hidden`` are the widths of the torso's dense layers; a grid torso takes the last of them for its one.
    ``deviation`` is that of real actions.
    """
    torso_key, actor_key, critic_key = jax.random.split(key, 3)

    def made(key: PRNGKeyArray) -> Torso:
        if uses_grid(torso, spaces):
            return _grid_torso(key, spaces, hidden[-1], activation, encoding, pooling)
        encoder, inputs = make_encoder(jax.random.fold_in(key, 1), torso, spaces.observation, "orthogonal")
        sizes = (inputs, *hidden)
        keys = jax.random.split(key, len(hidden))
        layers = tuple(make_dense(k, i, o, "orthogonal") for k, i, o in zip(keys, sizes[:-1], sizes[1:], strict=True))
        return MLPTorso(encoder, layers, activation)

    body = made(torso_key)
    value = make_dense(critic_key, hidden[-1], 1, "orthogonal", gain=1.0)
    critic = Value(made(jax.random.fold_in(torso_key, 2)), value) if critic_torso == "separate" else value
    if isinstance(spaces.action, Discrete):
        return ActorCritic(body, make_dense(actor_key, hidden[-1], spaces.action.n, "orthogonal", gain=0.01), critic)
    outputs = flat_size(spaces.action)
    mean = make_dense(actor_key, hidden[-1], outputs, "orthogonal", gain=0.01)
    return ActorCritic(body, GaussianHead(mean, jnp.full(outputs, math.log(deviation))), critic)


def uses_grid(torso: TorsoKind, spaces: Spaces) -> bool:
    """Whether the torso is the one for MiniGrid's views."""
    return torso == "grid" or (torso == "auto" and grid_parts(spaces.observation) is not None)


def grid_parts(space: Box | Dict) -> tuple[str, ...] | None:
    """The names of a view of MiniGrid and of the words that come with it; () for the view alone, None for neither."""
    if isinstance(space, Box):
        return () if space.shape == GRID else None
    views = [name for name, part in space.parts if part.shape == GRID]
    words = [name for name, part in space.parts if isinstance(part, Tokens)]
    return (*views, *words) if len(views) == len(words) == 1 and len(space.parts) == 2 else None


def _grid_torso(
    key: PRNGKeyArray, spaces: Spaces, width: int, activation: Activation, encoding: Encoding, pooling: bool
) -> GridTorso:
    *keys, dense_key, words_key = jax.random.split(key, len(CHANNELS) + 2)
    sizes = (sum(TILES) if encoding == "one-hot" else GRID[-1], *CHANNELS)
    convolutions = tuple(
        make_dense(k, 4 * i, o, "orthogonal", by_output=True)
        for k, i, o in zip(keys, sizes[:-1], sizes[1:], strict=True)
    )
    side = (GRID[0] - 1) // 2 - 2 if pooling else GRID[0] - len(CHANNELS)
    dense = make_dense(dense_key, side * side * CHANNELS[-1], width, "orthogonal", by_output=True)
    sentences = [part for part in jax.tree.leaves(spaces.observation.tree) if isinstance(part, Tokens)]
    words = make_words(words_key, sentences[0], width) if sentences else None
    names = grid_parts(spaces.observation) or ()
    return GridTorso(convolutions, dense, words, activation, encoding, pooling, names)
