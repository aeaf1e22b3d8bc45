"""Replay: the transitions an off-policy agent remembers, in arrays on the device."""

from __future__ import annotations

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from fedrax.environments.base import Box, Spaces, Steps
from fedrax.learners.base import flatten_steps


class Transitions(NamedTuple):
    """``N`` steps of one agent, observations and actions flat."""

    observation: Float[Array, "N o"]
    action: Float[Array, "N a"]
    reward: Float[Array, " N"]
    next_observation: Float[Array, "N o"]
    terminated: Float[Array, " N"]
    """1 where the step led to a terminal state (not at a time limit)."""


class Replay(eqx.Module):
    """The last ``capacity`` transitions, oldest overwritten first.

    A transition is one row of numbers, so that a minibatch is one gather; the array is updated in place where the
    program that holds it is given it to keep (a donated argument, or a loop's carry).
    """

    rows: Float[Array, "capacity width"]
    cursor: Int[Array, ""]
    """Where the next row goes."""
    size: Int[Array, ""]
    """Rows filled so far."""
    widths: tuple[int, ...] = eqx.field(static=True)
    """Numbers of each field of :class:`Transitions`."""

    def add(self, transitions: Transitions, valid: Array) -> Replay:
        """The replay with those of the ``N`` transitions that are ``valid``, bool ``[N]``; N at most the capacity."""
        capacity = self.rows.shape[0]
        count = valid.shape[0]
        new = jnp.concatenate([part.reshape(count, -1) for part in transitions], 1)
        place = (self.cursor + jnp.cumsum(valid) - 1) % capacity
        # An index past the end is dropped.
        rows = self.rows.at[jnp.where(valid, place, capacity)].set(new, mode="drop", unique_indices=False)
        added = valid.sum(dtype=jnp.int32)
        return Replay(rows, (self.cursor + added) % capacity, jnp.minimum(self.size + added, capacity), self.widths)

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Transitions:
        """Transitions drawn uniformly with replacement, leaves ``[*shape, ...]``; meaningless where there are none."""
        index = jax.random.randint(key, shape, 0, jnp.maximum(self.size, 1))
        # Within bounds by construction: clipping is cheaper than filling.
        rows = self.rows.at[index].get(mode="clip")
        ends = [sum(self.widths[: place + 1]) for place in range(len(self.widths) - 1)]
        observation, action, reward, following, terminated = jnp.split(rows, ends, axis=-1)
        return Transitions(observation, action, reward[..., 0], following, terminated[..., 0])


def empty_replay(spaces: Spaces, capacity: int) -> Replay:
    """A replay without transitions."""
    widths = row_widths(spaces)
    zero = jnp.asarray(0, jnp.int32)
    return Replay(jnp.zeros((capacity, sum(widths))), zero, zero, widths)


def row_widths(spaces: Spaces) -> tuple[int, ...]:
    """Numbers of each field of one transition."""
    assert isinstance(spaces.action, Box)
    observation, action = (math.prod(box.shape) for box in (spaces.observation, spaces.action))
    return observation, action, 1, observation, 1


def replay_bytes(spaces: Spaces, capacity: int) -> int:
    """Memory that one agent's replay takes."""
    return 4 * capacity * sum(row_widths(spaces))


def transitions_of(steps: Steps) -> tuple[Transitions, Array]:
    """A collection's transitions in the order of time, leaves ``[T * B, ...]``, and which of them are experience."""
    count = steps.reward.size
    observation, following = (
        flatten_steps(part).reshape(count, -1) for part in (steps.observation[:-1], steps.observation[1:])
    )
    action = flatten_steps(steps.action).reshape(count, -1)
    transitions = Transitions(
        observation, action, steps.reward.ravel(), following, steps.terminated.ravel().astype(jnp.float32)
    )
    return transitions, steps.valid.ravel()
