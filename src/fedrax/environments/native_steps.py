"""Consecutive steps of ONE agent from a native environment, in pure JAX, to be mapped over agents and seeds.

Unlike whole episodes, these run on where the last collection stopped, so the environment's state is part of the
agent's side of the federation and is saved with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from fedrax.environments.base import NativeEnvironment, Steps
from fedrax.environments.native_collector import where_rows

Decide = Callable[[Array, PRNGKeyArray], tuple[Array, PyTree]]
"""Actions for a batch of observations, and notes."""


class Front(eqx.Module):
    """Where ``B`` copies of one agent stand between two steps."""

    state: PyTree
    observation: Array
    """``[B, *o]``."""
    over: Bool[Array, " B"]
    """The episode has ended: the next step starts a new one."""
    length: Int[Array, " B"]
    """Steps of the episode so far."""
    returned: Float[Array, " B"]
    """Undiscounted return of the episode so far."""


def start_steps(
    environment: NativeEnvironment, physics: Mapping[str, Any], key: PRNGKeyArray, *, copies: int, per_copy: bool
) -> Front:
    """Fresh episodes in every copy; arguments as in :func:`collect_steps`."""
    keys = jax.random.split(key, copies)
    state, observation = jax.vmap(environment.reset, (0, 0 if per_copy else None))(keys, dict(physics))
    zero = jnp.zeros(copies)
    return Front(state, observation, zero > 0, zero.astype(jnp.int32), zero)


def restarted(front: Front) -> Front:
    """Every episode is over, whatever came of it: the next step starts a new one, from a finite observation."""
    zeros = jax.tree.map(jnp.zeros_like, (front.observation, front.length, front.returned))
    return Front(front.state, zeros[0], jnp.ones_like(front.over), zeros[1], zeros[2])


def collect_steps(
    environment: NativeEnvironment,
    physics: Mapping[str, Any],
    decide: Decide,
    key: PRNGKeyArray,
    front: Front,
    *,
    steps: int,
    horizon: int,
    per_copy: bool = False,
) -> tuple[Steps, Front]:
    """``T`` = ``steps`` steps of every copy from ``front`` on, and where the copies stand then.

    Args:
        environment: stepped in as many copies as ``front`` has.
        physics: its parameters by name: scalars, or ``[B]`` each with ``per_copy``.
        decide: ``decide(observation[B, *o], key) -> (action[B, *a], notes[B, ...])``.
        key: determines every action, transition and reset.
        front: from :func:`start_steps` or the last collection.
        steps: static.
        horizon: static; steps after which an episode is truncated.
        per_copy: whether each copy has physical parameters of its own.
    """
    axes = 0 if per_copy else None
    table = dict(physics)
    copies = front.over.shape[0]

    def step(front: Front, key: PRNGKeyArray) -> tuple[Front, tuple[Array, ...]]:
        act_key, step_key, reset_key = jax.random.split(key, 3)
        action, notes = decide(front.observation, act_key)
        after = jax.vmap(environment.step, (0, 0, 0, axes))(
            front.state, action, jax.random.split(step_key, copies), table
        )
        fresh = jax.vmap(environment.reset, (0, axes))(jax.random.split(reset_key, copies), table)
        valid = ~front.over
        state, observation = where_rows(valid, (after.state, after.observation), fresh)
        length = jnp.where(valid, front.length + 1, 0)
        reward = jnp.where(valid, after.reward, 0.0)
        returned = jnp.where(valid, front.returned + reward, 0.0)
        terminated = valid & after.terminated
        truncated = valid & ~terminated & (length >= horizon)
        over = terminated | truncated
        row = (
            front.observation,
            notes,
            action,
            reward,
            valid,
            terminated,
            truncated,
            jnp.where(over, returned, 0.0),
        )
        return Front(state, observation, over, length, returned), row

    key, last_key = jax.random.split(key)
    front, (observation, notes, *rest) = jax.lax.scan(step, front, jax.random.split(key, steps))
    _, last = decide(front.observation, last_key)
    observation, notes = jax.tree.map(
        lambda x, y: jnp.concatenate([x, y[None]]), (observation, notes), (front.observation, last)
    )
    return Steps(observation, notes, *rest), front
