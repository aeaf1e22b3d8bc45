"""Policies evaluated in native environments, inside a compiled program."""

from __future__ import annotations

import jax
from jaxtyping import Array, PRNGKeyArray, PyTree

from fedrax.environments.actions import TransformActions
from fedrax.environments.base import NativeEnvironment
from fedrax.environments.goal_sets import GOAL_COUNT
from fedrax.environments.native_collector import episode_returns
from fedrax.environments.native_goals import goals_by_episode
from fedrax.federation import Federation
from fedrax.runtime.mapping import AGENTS

ENVIRONMENTS = "environments"
"""Name of the axis of the environments that one policy is evaluated in."""


class NativeEvaluation:
    """Episodes of at most ``horizon`` steps, of the likeliest actions where ``greedy``."""

    def __init__(
        self,
        environment: NativeEnvironment | TransformActions,
        federation: Federation,
        *,
        greedy: bool,
        horizon: int,
    ) -> None:
        self.environment, self.federation = environment, federation
        self.greedy, self.horizon = greedy, horizon

    def table(
        self,
        params: PyTree,
        physics: dict[str, Array] | None,
        key: PRNGKeyArray,
        table: Array | None,
        *,
        episodes: int,
        personal: bool,
        axis_names: tuple[str, ...] = (),
    ) -> dict[str, Array]:
        """Named arrays ``[P, C, episodes]``; ``table[P, C]`` says whose of ``physics``, None the default.

        Where ``personal``, ``params`` are those of ``P`` policies, ``[P, ...]``.
        """
        names = (*axis_names, *([AGENTS] if personal else []), *([] if table is None else [ENVIRONMENTS]))

        def one(params: PyTree, physics: dict[str, Array] | None) -> dict[str, Array]:
            return self.episodes(params, physics, key, episodes=episodes, axis_names=names)

        def row(params: PyTree, columns: Array | None) -> dict[str, Array]:
            if columns is None:
                return jax.tree.map(lambda x: x[None], one(params, None))
            theirs = jax.tree.map(lambda x: x[columns], physics)
            return jax.vmap(one, (None, 0), axis_name=ENVIRONMENTS)(params, theirs)

        if personal:
            return jax.vmap(row, (0, None if table is None else 0), axis_name=AGENTS)(params, table)
        return jax.tree.map(lambda x: x[None], row(params, None if table is None else table[0]))

    def episodes(
        self,
        params: PyTree,
        physics: dict[str, Array] | None,
        key: PRNGKeyArray,
        *,
        episodes: int,
        axis_names: tuple[str, ...],
    ) -> dict[str, Array]:
        """Named arrays ``[episodes]`` of one policy in one environment."""
        learner, greedy = self.federation.learner, self.greedy
        acting = learner.acting(params)
        table = self.environment.physics() if physics is None else physics
        at_goals = GOAL_COUNT in table
        return episode_returns(
            self.environment,
            goals_by_episode(table, episodes) if at_goals else table,
            lambda observation, k: learner.act(acting, observation, None if greedy else k),
            key,
            episodes=episodes,
            horizon=self.horizon,
            per_copy=at_goals,
            axis_names=axis_names,
        )
