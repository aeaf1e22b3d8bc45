"""Native environments that start at goals of an agent's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from fedrax.environments.base import Observation, Physics
from fedrax.environments.goal_sets import GOAL_COUNT, GOAL_FIRST, NO_GOALS
from fedrax.environments.wrappers import NativeWrapper
from fedrax.seeds import derive


class GoalsOfOne(NativeWrapper):
    """``inner``, every episode of which starts as one of the goals numbered in its parameters says; from anywhere
    where these are none."""

    def physics(self) -> dict[str, float]:
        """The parameters of ``inner``, and those of the goals."""
        return {**self.inner.physics(), **NO_GOALS}

    def reset(self, key: PRNGKeyArray, physics: Physics) -> tuple[PyTree, Observation]:
        """At one of the goals, each as likely."""
        seed, first, count = (jnp.asarray(physics[name]).astype(jnp.int32) for name in NO_GOALS)
        place = jax.random.randint(derive(key, "goal"), (), 0, jnp.maximum(count, 1))
        goal = derive(jax.random.key(seed), "goal", first + place)
        return self.inner.reset(jnp.where(count > 0, goal, key), physics)


def goals_by_episode(physics: Mapping[str, Any], episodes: int) -> dict[str, Any]:
    """Parameters ``[episodes]`` each, of one environment's scalars: its goals one after the other, in equal shares."""
    spread = {name: jnp.broadcast_to(jnp.asarray(value), (episodes,)) for name, value in physics.items()}
    count = jnp.asarray(physics[GOAL_COUNT])
    place = jnp.arange(episodes) % jnp.maximum(count, 1).astype(jnp.int32)
    return {
        **spread,
        GOAL_FIRST: spread[GOAL_FIRST] + jnp.where(count > 0, place, 0),
        GOAL_COUNT: jnp.minimum(spread[GOAL_COUNT], 1),
    }
