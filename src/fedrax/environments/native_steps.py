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

from fedrax.environments.base import NativeEnvironment, Observation, Steps
from fedrax.environments.native_collector import where_rows

Decide = Callable[[Observation, PRNGKeyArray], tuple[Array, PyTree]]
"""Actions for a batch of observations, and extras."""


class CollectorState(eqx.Module):
    """The state of one agent's ``B`` environments between two steps."""

    state: PyTree
    observation: Observation
    """Leaves ``[B, *o]``."""
    over: Bool[Array, " B"]
    """The episode has ended: the next step starts a new one."""
    length: Int[Array, " B"]
    """Steps of the episode so far."""
    returned: Float[Array, " B"]
    """Undiscounted return of the episode so far."""
    reached: Bool[Array, " B"]
    """The episode has reached its goal so far; False in environments that do not say."""


def start_steps(
    environment: NativeEnvironment, physics: Mapping[str, Any], key: PRNGKeyArray, *, num_envs: int, per_copy: bool
) -> CollectorState:
    """Fresh episodes in every copy; arguments as in :func:`collect_steps`."""
    keys = jax.random.split(key, num_envs)
    state, observation = jax.vmap(environment.reset, (0, 0 if per_copy else None))(keys, dict(physics))
    zero = jnp.zeros(num_envs)
    return CollectorState(state, observation, zero > 0, zero.astype(jnp.int32), zero, zero > 0)


def restarted(collector_state: CollectorState) -> CollectorState:
    """Every episode is over, whatever came of it: the next step starts a new one, from a finite observation."""
    observation, length, returned, reached = jax.tree.map(
        jnp.zeros_like,
        (collector_state.observation, collector_state.length, collector_state.returned, collector_state.reached),
    )
    over = jnp.ones_like(collector_state.over)
    return CollectorState(collector_state.state, observation, over, length, returned, reached)


def collect_steps(
    environment: NativeEnvironment,
    physics: Mapping[str, Any],
    decide: Decide,
    key: PRNGKeyArray,
    collector_state: CollectorState,
    *,
    steps: int,
    horizon: int,
    per_copy: bool = False,
) -> tuple[Steps, CollectorState]:
    """``T`` = ``steps`` steps of every copy from ``collector_state`` on, and their state after it.

    Args:
        environment: stepped in as many copies as ``collector_state`` has.
        physics: its parameters by name: scalars, or ``[B]`` each with ``per_copy``.
        decide: ``decide(observation[B, *o], key) -> (action[B, *a], extras[B, ...])``.
        key: determines every action, transition and reset.
        collector_state: from :func:`start_steps` or the last collection.
        steps: static.
        horizon: static; steps after which an episode is truncated.
        per_copy: whether each copy has physical parameters of its own.
    """
    axes = 0 if per_copy else None
    table = dict(physics)
    num_envs = collector_state.over.shape[0]

    def step(collector_state: CollectorState, key: PRNGKeyArray) -> tuple[CollectorState, tuple[Any, ...]]:
        act_key, step_key, reset_key = jax.random.split(key, 3)
        action, extras = decide(collector_state.observation, act_key)
        after = jax.vmap(environment.step, (0, 0, 0, axes))(
            collector_state.state, action, jax.random.split(step_key, num_envs), table
        )
        fresh = jax.vmap(environment.reset, (0, axes))(jax.random.split(reset_key, num_envs), table)
        valid = ~collector_state.over
        state, observation = where_rows(valid, (after.state, after.observation), fresh)
        length = jnp.where(valid, collector_state.length + 1, 0)
        reward = jnp.where(valid, after.reward, 0.0)
        returned = jnp.where(valid, collector_state.returned + reward, 0.0)
        terminated = valid & after.terminated
        truncated = valid & ~terminated & (length >= horizon)
        over = terminated | truncated
        success = jnp.zeros_like(over) if after.success is None else after.success
        reached = valid & (collector_state.reached | success)
        row = (
            collector_state.observation,
            extras,
            action,
            reward,
            valid,
            terminated,
            truncated,
            jnp.where(over, returned, 0.0),
            None if after.success is None else over & reached,
        )
        return CollectorState(state, observation, over, length, returned, reached), row

    key, last_key = jax.random.split(key)
    collector_state, (observation, extras, *rest) = jax.lax.scan(step, collector_state, jax.random.split(key, steps))
    _, last = decide(collector_state.observation, last_key)
    observation, extras = jax.tree.map(
        lambda x, y: jnp.concatenate([x, y[None]]), (observation, extras), (collector_state.observation, last)
    )
    return Steps(observation, extras, *rest), collector_state
