"""Short episodes of a run's agents, and what a server sees of the updates they make."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from fedrax.audit.setting import Setting
from fedrax.audit.sight import check_finite, seen_of
from fedrax.environments.base import Episodes, NativeEnvironment, Observation
from fedrax.environments.native_collector import collect_episodes
from fedrax.learners.base import EpisodeLearner, Learner
from fedrax.seeds import derive


class Sent(NamedTuple):
    """A round that an attacker looks at."""

    episodes: Episodes
    """Of agent 0, what the attacker is after; ``[T, B]``."""
    row: Float[Array, " d"]
    """What the server sees of its update, or the sum."""


def collected(
    setting: Setting, key: PRNGKeyArray, *, agents: int, episodes: int, steps: int, own_physics: bool = True
) -> Episodes:
    """Episodes of the broadcast policy, leaves ``[agents, T, B, ...]``, cut after ``steps`` steps.

    In the agents' own environments, or in the registered one.
    """
    runtime = setting.runtime
    assert runtime is not None
    physics = runtime.drawn(runtime.agents_draws, 0) if own_physics else None
    defaults = runtime.environment.physics()
    table = (
        {name: jnp.full(agents, value) for name, value in defaults.items()}
        if physics is None
        else jax.tree.map(lambda x: x[:agents], physics)
    )
    keys = jax.random.split(derive(key, "episodes"), agents)
    learner = setting.federation.learner
    return _collected(learner, runtime.environment, setting.downlink.params, table, keys, episodes, steps)


@eqx.filter_jit
def _collected(
    learner: Learner,
    environment: NativeEnvironment,
    params: PyTree,
    physics: dict[str, Array],
    keys: Array,
    episodes: int,
    steps: int,
) -> Episodes:
    acting = learner.acting(params)

    def act(observation: Observation, key: PRNGKeyArray) -> Array:
        return learner.act(acting, observation, key)

    def one(inputs: tuple[dict[str, Array], PRNGKeyArray]) -> Episodes:
        own, key = inputs
        return collect_episodes(environment, own, act, key, count=episodes, max_count=episodes, horizon=steps)

    return jax.lax.map(one, (physics, keys))


def sent_of(setting: Setting, everyone: Episodes, key: PRNGKeyArray) -> Sent:
    """What becomes of gradients of these episodes, leaves ``[m, T, B, ...]``, of all participants.

    Raises:
        FedraxError: a gradient is not finite.
    """
    federation = setting.federation
    learner = federation.learner.clipping_episodes(federation.protection.clips_episodes)
    assert isinstance(learner, EpisodeLearner)
    updates = _gradients(learner, setting.downlink.params, everyone)
    check_finite(updates)
    count = jnp.asarray(everyone.valid.shape[-1])
    rows = seen_of(federation, setting.fresh, updates, count, derive(key, "send"), setting.whole_round)
    return Sent(jax.tree.map(lambda x: x[0], everyone), rows[0])


@eqx.filter_jit
def _gradients(learner: EpisodeLearner, params: Any, everyone: Episodes) -> PyTree:
    return jax.vmap(lambda episodes: learner.gradient(params, episodes))(everyone)


def part_of(everyone: Episodes, chosen: slice, steps: int) -> Episodes:
    """Some of the episodes, leaves ``[m, T, B, ...]``, as if cut after so many steps."""
    cut = jax.tree.map(lambda x: x[:, :steps, chosen] if x.ndim > 2 else x[:, chosen], everyone)
    return eqx.tree_at(lambda e: e.terminated, cut, cut.terminated & (everyone.valid.sum(1)[:, chosen] <= steps))
