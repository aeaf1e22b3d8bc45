"""How well episodes agree with an environment that is known: each observation with the one before and the action."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from fedrax.environments.base import NativeEnvironment


def inconsistency(
    environment: NativeEnvironment,
    observation: Float[Array, "T B o"],
    action: Float[Array, "T B a"],
    valid: Bool[Array, "T B"],
    change: Float[Array, " o"],
) -> Float[Array, ""]:
    """Mean square, over steps that another follows, of the next observation less what the step leads to.

    In units of ``change``. Of discrete actions, ``action`` are scores: what follows is the mean under their softmax.
    """
    physics = environment.physics()
    state = state_from(environment)

    def moved(observation: Array, action: Any) -> Array:
        after = environment.step(state(observation), action, jax.random.key(0), physics).observation
        assert not isinstance(after, dict)
        return after

    flat = observation[:-1].reshape(-1, observation.shape[-1])
    scores = action[:-1].reshape(-1, action.shape[-1])
    if hasattr(environment.spaces.action, "n"):
        each = jax.vmap(lambda o: jax.vmap(lambda a: moved(o, a))(jnp.arange(scores.shape[-1])))(flat)
        after = (jax.nn.softmax(scores)[..., None] * each).sum(1)
    else:
        after = jax.vmap(moved)(flat, scores)
    off = ((observation[1:] - after.reshape(observation[1:].shape)) / change) ** 2
    follows = valid[1:, :, None]
    return jnp.where(follows, off, 0.0).sum() / jnp.maximum(follows.sum() * off.shape[-1], 1)


def state_from(environment: NativeEnvironment) -> Callable[[Float[Array, " o"]], PyTree]:
    """The state that an observation shows, where the two are the same numbers (:func:`observes_states`)."""
    state, _ = jax.eval_shape(environment.reset, jax.random.key(0), environment.physics())
    leaves, structure = jax.tree.flatten(state)

    def made(observation: Array) -> PyTree:
        return jax.tree.unflatten(structure, [observation[i] for i in range(len(leaves))])

    return made


def observes_states(environment: NativeEnvironment) -> bool:
    """Whether an observation is the state's numbers, one after the other."""
    state, observation = environment.reset(jax.random.key(0), environment.physics())
    leaves = jax.tree.leaves(state)
    if isinstance(observation, dict) or observation.ndim != 1 or any(jnp.ndim(leaf) for leaf in leaves):
        return False
    return len(leaves) == observation.shape[0] and bool(jnp.array_equal(jnp.stack(leaves), observation))
