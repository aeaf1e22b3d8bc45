"""Whole episodes of ONE agent from a native environment, in pure JAX, to be mapped over agents and seeds.

All episodes step together, and the loop ends when the last of them is over, in every mapped copy. A
``while_loop`` whose condition differs between mapped copies would be turned into one that selects between the
old and the new buffers in each step, which costs far more than the step itself. So the condition is reduced
over the mapped axes, which the caller names (``jax.vmap(..., axis_name=...)``), and the buffers are written
in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from fedrax.environments.base import Episodes, NativeEnvironment, Observation
from fedrax.environments.success import LAST, SHARE, SUCCESS

Act = Callable[[Observation, PRNGKeyArray], Array]
"""``act(observation[B, *o], key) -> action[B, *a]``, closed over the parameters.

Parameters that are not mapped stay so: a policy that all agents share is evaluated by one large product.
"""


class _RolloutState(NamedTuple):
    """The state of one agent's ``B`` episodes after ``step`` steps."""

    step: Int[Array, ""]
    running: Bool[Array, ""]
    """Whether any episode of any mapped copy goes on; the same in all of them."""
    state: PyTree
    observation: Observation
    """Leaves ``[B, *o]``."""
    alive: Bool[Array, " B"]
    terminated: Bool[Array, " B"]
    length: Int[Array, " B"]


class _Rollout(NamedTuple):
    """What stepping needs and never changes."""

    environment: NativeEnvironment
    physics: dict[str, Any]
    act: Act
    key: PRNGKeyArray
    keys: PRNGKeyArray
    """Of each step, to act and to step the environment, ``[horizon, 2]``: hashed here all at once, because in a small
    batch hashing them one after the other costs as much as stepping."""
    horizon: int
    physics_axis: int | None
    """0 where each episode has physical parameters of its own."""
    axis_names: tuple[str, ...]

    def start(self, alive: Bool[Array, " B"]) -> _RolloutState:
        """Fresh episodes, of which those not ``alive`` are over before their first step."""
        keys = jax.random.split(jax.random.fold_in(self.key, 0), alive.shape[0])
        state, observation = jax.vmap(self.environment.reset, in_axes=(0, self.physics_axis))(keys, self.physics)
        no = jnp.zeros_like(alive)
        return _RolloutState(jnp.asarray(0), self._any(alive), state, observation, alive, no, no.astype(jnp.int32))

    def step(
        self, rollout_state: _RolloutState
    ) -> tuple[_RolloutState, Array, Float[Array, " B"], Bool[Array, " B"] | None]:
        """The next state, the actions that led there, rewards and successes (0, False for episodes that are over)."""
        act_key, step_key = self.keys[rollout_state.step]
        action = self.act(rollout_state.observation, act_key)
        keys = jax.random.split(step_key, rollout_state.alive.shape[0])
        step = jax.vmap(self.environment.step, in_axes=(0, 0, 0, self.physics_axis))
        after = step(rollout_state.state, action, keys, self.physics)
        # What is over stands still. Stepped on, it could overflow, and a masked loss still has a NaN gradient
        # where a masked value is not finite.
        state, observation = where_rows(
            rollout_state.alive, (after.state, after.observation), (rollout_state.state, rollout_state.observation)
        )
        alive = rollout_state.alive & ~after.terminated
        count = rollout_state.step + 1
        rollout_state = _RolloutState(
            count,
            (count < self.horizon) & self._any(alive),
            state,
            observation,
            alive,
            rollout_state.terminated | (rollout_state.alive & after.terminated),
            rollout_state.length + rollout_state.alive,
        )
        fresh = rollout_state.length == count
        success = None if after.success is None else fresh & after.success
        return rollout_state, action, jnp.where(fresh, after.reward, 0.0), success

    def _any(self, alive: Bool[Array, " B"]) -> Bool[Array, ""]:
        running = alive.any()
        return jax.lax.pmax(running.astype(jnp.int32), self.axis_names) > 0 if self.axis_names else running


def _rollout(
    environment: NativeEnvironment,
    physics: Mapping[str, Any],
    act: Act,
    key: PRNGKeyArray,
    horizon: int,
    axis_names: tuple[str, ...],
    per_copy: bool = False,
) -> _Rollout:
    steps = jnp.arange(1, horizon + 1)
    keys = jax.vmap(lambda step: jax.random.split(jax.random.fold_in(key, step)))(steps)
    return _Rollout(environment, dict(physics), act, key, keys, horizon, 0 if per_copy else None, axis_names)


def collect_episodes(
    environment: NativeEnvironment,
    physics: Mapping[str, Any],
    act: Act,
    key: PRNGKeyArray,
    *,
    count: Int[Array, ""] | int,
    max_count: int,
    horizon: int,
    per_copy: bool = False,
    axis_names: tuple[str, ...] = (),
) -> Episodes:
    """``count`` episodes of at most ``horizon`` steps, padded to T = ``horizon`` and B = ``max_count``.

    Padding is finite: an episode that is over repeats its last observation while others go on; the rest is 0.

    Args:
        environment: stepped in ``max_count`` copies.
        physics: its parameters by name: scalars, or ``[B]`` each with ``per_copy``.
        act: see :data:`Act`.
        key: determines every reset, action and transition.
        count: int32, at most ``max_count``, and may be traced; episodes from index ``count`` on are padding.
        max_count: static.
        horizon: static; steps after which an episode is truncated.
        per_copy: whether each episode has physical parameters of its own.
        axis_names: every ``jax.vmap`` axis that ``key``, ``count``, ``physics`` or the parameters are mapped
            over. One left out changes no result, but makes collection several times slower.
    """
    rollout = _rollout(environment, physics, act, key, horizon, axis_names, per_copy)
    start = rollout.start(jnp.arange(max_count) < count)
    _, action, reward, success = jax.eval_shape(rollout.step, start)
    buffers = jax.tree.map(lambda x: jnp.zeros((horizon, *x.shape), x.dtype), (start.observation, action, reward))
    none = None if success is None else jnp.zeros(max_count, bool)

    def body(carry: tuple[_RolloutState, PyTree, Array | None]) -> tuple[_RolloutState, PyTree, Array | None]:
        rollout_state, buffers, reached = carry
        after, action, reward, success = rollout.step(rollout_state)
        row = (rollout_state.observation, action, reward)
        buffers = jax.tree.map(lambda b, x: b.at[rollout_state.step].set(x), buffers, row)
        return after, buffers, None if reached is None or success is None else reached | success

    end, buffers, reached = jax.lax.while_loop(lambda carry: carry[0].running, body, (start, buffers, none))
    observation, action, reward = buffers
    valid = jnp.arange(horizon)[:, None] < end.length
    return Episodes(observation, action, reward, valid, end.terminated, reached)


def episode_returns(
    environment: NativeEnvironment,
    physics: Mapping[str, Any],
    act: Act,
    key: PRNGKeyArray,
    *,
    episodes: int,
    horizon: int,
    per_copy: bool = False,
    axis_names: tuple[str, ...] = (),
) -> dict[str, Array]:
    """``episodes`` episodes as named arrays ``[episodes]``, nothing of which is stored.

    ``return`` is undiscounted, ``length`` in steps; success as in :mod:`fedrax.environments.success` where the
    environment has one.

    ``act`` decides what is evaluated (greedy evaluation ignores its key); arguments are those of
    :func:`collect_episodes`.
    """
    rollout = _rollout(environment, physics, act, key, horizon, axis_names, per_copy)

    def body(carry: tuple[_RolloutState, _Sums]) -> tuple[_RolloutState, _Sums]:
        before, sums = carry
        rollout_state, _, reward, success = rollout.step(before)
        counted: tuple[Array, ...] = ()
        if success is not None:
            ever, last, steps = sums.success
            counted = (ever | success, jnp.where(before.alive, success, last), steps + success)
        return rollout_state, _Sums(sums.returns + reward, counted)

    start = rollout.start(jnp.ones(episodes, bool))
    no = jnp.zeros(episodes, bool)
    known = jax.eval_shape(rollout.step, start)[-1] is not None
    nothing = _Sums(jnp.zeros(episodes, jnp.float32), (no, no, no.astype(jnp.int32)) if known else ())
    # Steps of so few episodes cost less than the loop around them. What is over stands still in the second step, but
    # for the horizon, which only an even one has behind it.
    twice = (lambda carry: body(body(carry))) if horizon % 2 == 0 else body
    end, sums = jax.lax.while_loop(lambda carry: carry[0].running, twice, (start, nothing))
    measured: dict[str, Array] = {"return": sums.returns, "length": end.length}
    if known:
        ever, last, steps = sums.success
        share = steps / jnp.maximum(end.length, 1)
        measured |= {SUCCESS: ever.astype(jnp.float32), LAST: last.astype(jnp.float32), SHARE: share}
    return measured


class _Sums(NamedTuple):
    """Of episodes so far, ``[episodes]``."""

    returns: Array
    success: tuple[Array, ...]
    """In any step, in the last one, and in how many; () in environments without."""


def where_rows(alive: Bool[Array, " B"], new: PyTree, old: PyTree) -> PyTree:
    """``new`` for episodes that are alive, ``old`` for the others; leaves ``[B, ...]``."""
    return jax.tree.map(lambda n, o: jnp.where(alive.reshape(alive.shape + (1,) * (n.ndim - 1)), n, o), new, old)
