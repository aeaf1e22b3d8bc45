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

    def add(self, transitions: Transitions, valid: Array) -> Replay:
        """The replay with those of the ``N`` transitions that are ``valid``, bool ``[N]``; N at most the capacity."""
        capacity = self.rows.shape[0]
        count = valid.shape[0]
        numbers, seen = zip(
            *(split(self.space, each) for each in (transitions.observation, transitions.next_observation)), strict=True
        )
        kept = (*numbers[0], transitions.action, transitions.reward, *numbers[1], transitions.terminated)
        place = (self.cursor + jnp.cumsum(valid) - 1) % capacity
        # An index past the end is dropped.
        place = jnp.where(valid, place, capacity)

        def put(rows: Array, parts: tuple[Array, ...]) -> Array:
            new = jnp.concatenate([part.reshape(count, -1).astype(rows.dtype) for part in parts], 1)
            return rows.at[place].set(new, mode="drop", unique_indices=False)

        added = valid.sum(dtype=jnp.int32)
        return Replay(
            put(self.rows, kept),
            None if self.images is None else put(self.images, (*seen[0], *seen[1])),
            (self.cursor + added) % capacity,
            jnp.minimum(self.size + added, capacity),
            self.space,
        )

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Transitions:
        """Transitions drawn uniformly with replacement, leaves ``[*shape, ...]``; meaningless where there are none."""
        index = jax.random.randint(key, shape, 0, jnp.maximum(self.size, 1))
        # Within bounds by construction: clipping is cheaper than filling.
        rows = self.rows.at[index].get(mode="clip")
        width = sum(math.prod(part.shape) for part in jax.tree.leaves(self.space.tree) if part.seen != np.uint8)
        ends = (width, rows.shape[-1] - width - 2, rows.shape[-1] - width - 1, rows.shape[-1] - 1)
        first, action, reward, second, terminated = jnp.split(rows, ends, -1)
        images: Sequence[Array | None] = (None, None)
        if self.images is not None:
            images = jnp.split(self.images.at[index].get(mode="clip"), 2, -1)
        observation, following = (
            whole(self.space, shape, numbers, seen) for numbers, seen in zip((first, second), images, strict=True)
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
    assert isinstance(spaces.action, Box)
    parts = jax.tree.leaves(spaces.observation.tree)
    images = 2 * sum(math.prod(part.shape) for part in parts if part.seen == np.uint8)
    numbers = 2 * sum(math.prod(part.shape) for part in parts if part.seen != np.uint8)
    return numbers + math.prod(spaces.action.shape) + 2, images


def replay_bytes(spaces: Spaces, capacity: int) -> int:
    """Memory that one agent's replay takes."""
    numbers, images = row_widths(spaces)
    return capacity * (4 * numbers + images)


def transitions_of(steps: Steps) -> tuple[Transitions, Array]:
    """A collection's transitions in the order of time, leaves ``[T * B, ...]``, and which of them are experience."""
    count = steps.reward.size
    observation, following = flatten_steps(steps.acted_on), flatten_steps(steps.following)
    action = flatten_steps(steps.action).reshape(count, -1)
    transitions = Transitions(
        observation, action, steps.reward.ravel(), following, steps.terminated.ravel().astype(jnp.float32)
    )
    return transitions, steps.valid.ravel()
