"""Replay: the transitions an off-policy agent remembers, in arrays on the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from fedrax.environments.base import Box, Dict, Observation, Spaces, Steps, Tokens
from fedrax.learners.base import flatten_steps


class Transitions(NamedTuple):
    """``N`` steps of one agent, actions flat."""

    observation: Observation
    """Leaves ``[N, *o]``, float32 or uint8, int32 for words."""
    action: Float[Array, "N a"]
    """Of discrete actions the number, ``[N, 1]``."""
    reward: Float[Array, " N"]
    next_observation: Observation
    terminated: Float[Array, " N"]
    """1 where the step led to a terminal state (not at a time limit)."""


class Replay(eqx.Module):
    """The last ``capacity`` transitions, oldest overwritten first.

    A transition is one row of numbers, so that a minibatch is one gather; the array is updated in place where the
    program that holds it is given it to keep (a donated argument, or a loop's carry). Observations of bytes are rows
    of their own, which take a quarter of the memory.
    """

    rows: Float[Array, "capacity width"]
    images: UInt8[Array, "capacity bytes"] | None
    """Both observations of each transition, where they are bytes."""
    cursor: Int[Array, ""]
    """Where the next row goes."""
    size: Int[Array, ""]
    """Rows filled so far."""
    space: Box | Dict = eqx.field(static=True)
    """Of observations."""

    def remember(self, steps: Steps, minimum_reward: float | None = None) -> Replay:
        """The replay with the steps that are experience; not more than the capacity.

        Rewards below ``minimum_reward`` are raised to it.
        """
        transitions, valid = transitions_of(steps, minimum_reward)
        return self.add(transitions, valid)

    def add(self, transitions: Transitions, valid: Array) -> Replay:
        """The replay with those of the ``N`` transitions that are ``valid``, bool ``[N]``; N at most the capacity."""
        capacity = self.rows.shape[0]
        numbers, seen = packed(self.space, transitions)
        place = (self.cursor + jnp.cumsum(valid) - 1) % capacity
        # An index past the end is dropped.
        place = jnp.where(valid, place, capacity)
        added = valid.sum(dtype=jnp.int32)
        return Replay(
            self.rows.at[place].set(numbers, mode="drop"),
            None if self.images is None else self.images.at[place].set(seen, mode="drop"),
            (self.cursor + added) % capacity,
            jnp.minimum(self.size + added, capacity),
            self.space,
        )

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Transitions:
        """Transitions drawn uniformly with replacement, leaves ``[*shape, ...]``; meaningless where there are none."""
        index = jax.random.randint(key, shape, 0, jnp.maximum(self.size, 1))
        # Within bounds by construction: clipping is cheaper than filling.
        images = None if self.images is None else self.images.at[index].get(mode="clip")
        return unpacked(self.space, self.rows.at[index].get(mode="clip"), images)

    @property
    def sampled(self) -> Int[Array, ""]:
        """How many transitions are sampled from."""
        return self.size


def packed(space: Box | Dict, transitions: Transitions) -> tuple[Float[Array, "*N width"], UInt8[Array, "*N bytes"]]:
    """Transitions, leaves ``[*N, ...]``, as rows of numbers and, of observations that are bytes, rows of bytes."""
    batch = transitions.reward.shape
    first, second = (split(space, each) for each in (transitions.observation, transitions.next_observation))

    def rows(parts: Sequence[Array], type: Any) -> Array:
        flat = [part.reshape(*batch, -1).astype(type) for part in parts]
        return jnp.concatenate(flat, -1) if flat else jnp.zeros((*batch, 0), type)

    numbers = (*first[0], transitions.action, transitions.reward, *second[0], transitions.terminated)
    return rows(numbers, jnp.float32), rows((*first[1], *second[1]), jnp.uint8)


def unpacked(space: Box | Dict, rows: Float[Array, "*N width"], images: UInt8[Array, "*N bytes"] | None) -> Transitions:
    """The transitions of rows of :func:`packed`; no images where no observation is bytes."""
    batch = rows.shape[:-1]
    width = sum(math.prod(part.shape) for part in jax.tree.leaves(space.tree) if part.seen != np.uint8)
    ends = (width, rows.shape[-1] - width - 2, rows.shape[-1] - width - 1, rows.shape[-1] - 1)
    first, action, reward, second, terminated = jnp.split(rows, ends, -1)
    seen: Sequence[Array | None] = (None, None) if images is None else jnp.split(images, 2, -1)
    observation, following = (
        whole(space, batch, numbers, each) for numbers, each in zip((first, second), seen, strict=True)
    )
    return Transitions(observation, action, reward[..., 0], following, terminated[..., 0])


def split(space: Box | Dict, observation: Observation) -> tuple[list[Array], list[Array]]:
    """The arrays of an observation: those of numbers, and those of bytes."""
    parts = list(zip(jax.tree.leaves(space.tree), jax.tree.leaves(observation), strict=True))
    numbers = [leaf for part, leaf in parts if part.seen != np.uint8]
    return numbers, [leaf for part, leaf in parts if part.seen == np.uint8]


def whole(space: Box | Dict, batch: tuple[int, ...], numbers: Array, images: Array | None) -> Observation:
    """The observation, leaves ``[*batch, *o]``, of its numbers and its bytes, each side by side, ``[*batch, n]``."""
    places = [0, 0]

    def one(part: Box | Tokens) -> Array:
        bytewise = part.seen == np.uint8
        rows: Any = images if bytewise else numbers
        begin = places[bytewise]
        places[bytewise] = end = begin + math.prod(part.shape)
        return rows[..., begin:end].astype(part.seen).reshape(*batch, *part.shape)

    return jax.tree.map(one, space.tree)


def empty_replay(spaces: Spaces, capacity: int) -> Replay:
    """A replay without transitions."""
    numbers, count = row_widths(spaces)
    zero = jnp.asarray(0, jnp.int32)
    images = jnp.zeros((capacity, count), jnp.uint8) if count else None
    return Replay(jnp.zeros((capacity, numbers)), images, zero, zero, spaces.observation)


def row_widths(spaces: Spaces) -> tuple[int, int]:
    """Real numbers of one transition, and bytes of its observations where they are bytes."""
    actions = math.prod(spaces.action.shape) if isinstance(spaces.action, Box) else 1
    parts = jax.tree.leaves(spaces.observation.tree)
    images = 2 * sum(math.prod(part.shape) for part in parts if part.seen == np.uint8)
    numbers = 2 * sum(math.prod(part.shape) for part in parts if part.seen != np.uint8)
    return numbers + actions + 2, images


def replay_bytes(spaces: Spaces, capacity: int) -> int:
    """Memory that one agent's replay takes."""
    numbers, images = row_widths(spaces)
    return capacity * (4 * numbers + images)


def transitions_of(steps: Steps, minimum_reward: float | None = None) -> tuple[Transitions, Array]:
    """A collection's transitions in the order of time, leaves ``[T * B, ...]``, and which of them are experience."""
    transitions = jax.tree.map(flatten_steps, transitions_by_copy(steps, minimum_reward))
    return transitions, steps.valid.ravel()


def transitions_by_copy(steps: Steps, minimum_reward: float | None = None) -> Transitions:
    """A collection's transitions, leaves ``[T, B, ...]``; rewards below ``minimum_reward`` are raised to it."""
    action = steps.action.reshape(*steps.reward.shape, -1)
    reward = steps.reward if minimum_reward is None else jnp.maximum(steps.reward, minimum_reward)
    terminated = steps.terminated.astype(jnp.float32)
    return Transitions(steps.acted_on, action, reward, steps.following, terminated)
