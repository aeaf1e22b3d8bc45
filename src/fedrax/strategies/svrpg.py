"""SVRPG: stochastic variance-reduced policy gradient (Papini et al., 2018), federated as in FedPG-BR's baseline."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from fedrax.registry import option
from fedrax.strategies.base import strategies
from fedrax.strategies.variance_reduced import MODES, VarianceReduced


@strategies.register("svrpg")
class SVRPG(VarianceReduced):
    """A fixed batch, the plain mean of all gradients, and a fixed number of variance-reduced server steps."""

    batch: int = option(16, "B: trajectories of each agent in a round", unit="trajectories", minimum=1)
    steps: int = option(3, "N: server steps planned in a round", unit="steps", minimum=1)

    @classmethod
    def implies(cls, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """An undefended mean, and what the mode stands for."""
        implied = {
            component_kind: dict(values)
            for component_kind, values in MODES.get(settings.get("mode", "reference"), {}).items()
        }
        implied["aggregator"] = {"kind": "mean"}
        return implied

    @property
    def max_episodes(self) -> int:
        """B."""
        return self.batch

    def draw_episodes(self, key: PRNGKeyArray) -> Array:
        """B."""
        return jnp.asarray(self.batch)

    def draw_steps(self, episodes: Array, key: PRNGKeyArray) -> Array:
        """N."""
        return jnp.asarray(self.steps)
