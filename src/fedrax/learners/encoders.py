"""What stands before a network's dense layers: observations of any shape and type as vectors of real numbers.

Images are observations of three axes and whole numbers of one byte. They are collected, remembered and sent as bytes,
and divided by the highest value that their space names (255) here, within the network. The axis of their channels is
the first where that is shorter than both others, as in stacks of frames (EnvPool's ``[4, 84, 84]``), else the last.

Convolutions are those of Mnih et al. (2015), "Human-level control through deep reinforcement learning", each followed
by a ReLU: 32 of 8x8 pixels every 4, 64 of 4x4 every 2, 64 of 3x3. Images with a side below 36 pixels, which the three
of them would use up, pass the last two alone.
"""

from __future__ import annotations

import abc
import math
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from fedrax.environments.base import Box, Dict, Tokens, shapes
from fedrax.errors import FedraxError
from fedrax.learners.networks import Dense, Initialisation, make_dense

GRID = (7, 7, 3)
"""Shape of MiniGrid's egocentric view, which is no picture: object, colour and state of each cell."""

TorsoKind = Literal["auto", "mlp", "cnn"]
TORSO = "what sees observations: dense layers alone (mlp) or convolutions before them (cnn); auto: cnn for uint8 images"
"""Of the option that learners have for it."""

NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""Channels, width of the kernel and stride of each convolution; the stride divides the width."""
WORDS = 32
"""Numbers that a sentence becomes."""
SMALLEST = (36, 8)
"""Pixels of a side that all of them need, and the last two."""


class Encoder(eqx.Module):
    """From observations, leaves ``[..., *o]``, to vectors ``[..., f]``."""

    @abc.abstractmethod
    def __call__(self, observation: Any) -> Float[Array, "... f"]:
        """The vectors."""


class ArrayEncoder(Encoder):
    """Of observations that are one array of numbers."""

    shape: tuple[int, ...] = eqx.field(static=True)
    """Of one observation."""
    highest: float = eqx.field(static=True)
    """What observations are divided by."""

    def real(self, observation: Array) -> Float[Array, ...]:
        """Observations as real numbers, scaled."""
        if not jnp.issubdtype(observation.dtype, jnp.floating):
            observation = observation.astype(jnp.float32)
        return observation if self.highest == 1.0 else observation / self.highest

    def batch(self, observation: Array) -> tuple[int, ...]:
        """The leading axes."""
        return observation.shape[: observation.ndim - len(self.shape)]


class Flatten(ArrayEncoder):
    """The numbers as they come."""

    def __call__(self, observation: Array) -> Float[Array, "... f"]:
        """The vectors."""
        return self.real(observation).reshape(*self.batch(observation), -1)


class Convolutions(ArrayEncoder):
    """Convolutions, a ReLU after each.

    A convolution is blocks side by side and one matrix product: on a CPU that is several times faster than a grouped
    convolution, which is what a convolution mapped over agents becomes.
    """

    layers: tuple[Dense, ...]
    plan: tuple[tuple[int, int, int], ...] = eqx.field(static=True)
    """As in :data:`NATURE`."""

    def __call__(self, observation: Array) -> Float[Array, "... f"]:
        """The vectors."""
        image = self.real(observation).reshape(-1, *self.shape)
        if channels_first(self.shape):
            image = jnp.moveaxis(image, 1, -1)
        for layer, (_, kernel, stride) in zip(self.layers, self.plan, strict=True):
            image = jax.nn.relu(layer(patches(image, kernel, stride)))
        return image.reshape(*self.batch(observation), -1)


class Words(Encoder):
    """Sentences as sums of a vector for each word in each place: words mean different things in different orders."""

    table: Float[Array, "words vocabulary f"]

    def __call__(self, observation: Int[Array, "... words"]) -> Float[Array, "... f"]:
        """The vectors."""
        return sum_of_words(self.table, observation)


class Named(Encoder):
    """Observations of several parts: the parts' vectors, one after the other in the order of their names."""

    parts: dict[str, Encoder]

    def __call__(self, observation: dict[str, Array]) -> Float[Array, "... f"]:
        """The vectors."""
        return jnp.concatenate([self.parts[name](observation[name]) for name in sorted(self.parts)], -1)


def make_words(key: PRNGKeyArray, space: Tokens, width: int) -> Float[Array, "words vocabulary f"]:
    """A fresh vector ``[width]`` for every word in every place."""
    return 0.1 * jax.random.normal(key, (space.length, space.vocabulary, width))


def sum_of_words(table: Float[Array, "words vocabulary f"], tokens: Int[Array, "... words"]) -> Float[Array, "... f"]:
    """The sum of the words' vectors, without the padding's: one product with the words as rows of 0 and 1."""
    places, vocabulary, width = table.shape
    chosen = jax.nn.one_hot(tokens, vocabulary).at[..., 0].set(0.0)
    return chosen.reshape(*tokens.shape[:-1], places * vocabulary) @ table.reshape(-1, width)


def patches(image: Float[Array, "n h w c"], kernel: int, stride: int) -> Float[Array, "n h2 w2 p"]:
    """Every ``kernel`` x ``kernel`` block, ``stride`` pixels apart, as a vector; the stride divides the kernel.

    First tiles as wide as the stride, each a vector, then blocks of tiles: their order in the vector is
    ``[kernel / stride, kernel / stride, stride, stride, c]``.
    """
    n, *sides, channels = image.shape
    tiles = kernel // stride
    high, wide = (steps(side, kernel, stride) for side in sides)
    image = image[:, : (high + tiles - 1) * stride, : (wide + tiles - 1) * stride]
    image = image.reshape(n, high + tiles - 1, stride, wide + tiles - 1, stride, channels)
    image = image.swapaxes(2, 3).reshape(n, high + tiles - 1, wide + tiles - 1, -1)
    blocks = [image[:, i : i + high, j : j + wide] for i in range(tiles) for j in range(tiles)]
    return jnp.concatenate(blocks, -1)


def steps(side: int, kernel: int, stride: int) -> int:
    """Places of a kernel along a side."""
    return (side - kernel) // stride + 1


def is_image(box: Box | Tokens) -> bool:
    """Whether observations are pictures."""
    return isinstance(box, Box) and len(box.shape) == 3 and box.dtype == "uint8" and box.shape != GRID


def channels_first(shape: tuple[int, ...]) -> bool:
    """Whether an image's channels are its first axis."""
    return shape[0] < min(shape[1:])


def sides_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """An image's height and width."""
    return shape[1:] if channels_first(shape) else shape[:2]


def fits_convolutions(box: Box | Tokens) -> bool:
    """Whether observations are images, and large enough."""
    return len(box.shape) == 3 and min(sides_of(box.shape)) >= SMALLEST[1]


def check_torso(torso: str, space: Box | Dict) -> None:
    """Raises :class:`FedraxError` for convolutions where nothing is an image, or too small a one."""
    if torso == "cnn" and not any(fits_convolutions(part) for part in jax.tree.leaves(space.tree)):
        raise FedraxError(
            f"learner.torso = 'cnn' needs images (height, width, channels) of at least {SMALLEST[1]} x {SMALLEST[1]} "
            f"pixels, and observations have the shape {shapes(space)}; set learner.torso=mlp"
        )


def make_encoder(
    key: PRNGKeyArray, torso: str, space: Box | Dict, initialisation: Initialisation
) -> tuple[Encoder, int]:
    """A fresh encoder, and how many numbers it makes of an observation.

    Each part of an observation gets one of its own: convolutions where the torso has them and the part is an image.
    """
    if isinstance(space, Box):
        return _make_encoder(key, torso, space, initialisation)
    keys = jax.random.split(key, len(space.parts))
    made = {
        name: _make_encoder(each, torso, part, initialisation)
        for each, (name, part) in zip(keys, space.parts, strict=True)
    }
    return Named({name: encoder for name, (encoder, _) in made.items()}), sum(size for _, size in made.values())


def _make_encoder(
    key: PRNGKeyArray, torso: str, box: Box | Tokens, initialisation: Initialisation
) -> tuple[Encoder, int]:
    if isinstance(box, Tokens):
        return Words(make_words(key, box, WORDS)), WORDS
    highest = float(max(*box.high, 1)) if is_image(box) else 1.0
    if not (fits_convolutions(box) and (torso == "cnn" or (torso == "auto" and is_image(box)))):
        return Flatten(box.shape, highest), math.prod(box.shape)
    sides = sides_of(box.shape)
    plan = NATURE if min(sides) >= SMALLEST[0] else NATURE[1:]
    channels = math.prod(box.shape) // math.prod(sides)
    layers = []
    for each, (count, kernel, stride) in zip(jax.random.split(key, len(plan)), plan, strict=True):
        layers.append(make_dense(each, kernel * kernel * channels, count, initialisation, by_output=True))
        sides, channels = tuple(steps(side, kernel, stride) for side in sides), count
    return Convolutions(box.shape, highest, tuple(layers), plan), math.prod(sides) * channels
