"""FedPG-BR: fault-tolerant federated policy gradient (Fan et al., NeurIPS 2021)."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from fedrax.errors import FedraxError
from fedrax.learners.base import Learner
from fedrax.registry import option
from fedrax.strategies.base import strategies
from fedrax.strategies.variance_reduced import MODES, VarianceReduced


@strategies.register("fedpg-br")
class FedPGBR(VarianceReduced):
    """Filtered gradients, then SCSG: a geometrically distributed number of variance-reduced server steps."""

    batch_min: int = option(12, "B_min: the least trajectories of an agent in a round", unit="trajectories", minimum=1)
    batch_max: int = option(20, "B_max: the most trajectories of an agent in a round", unit="trajectories", minimum=1)
    steps: Literal["geometric-from-1", "geometric-from-0"] = option(
        "geometric-from-1",
        "distribution of N_t, success probability b/(B_t+b): on {1, 2, ...} with mean B_t/b + 1 (reference) or on "
        "{0, 1, ...} with mean B_t/b (paper)",
    )

    filter: Literal["fedpg-filter", "fedpg-trust"] = option(
        "fedpg-filter",
        "the aggregator where none is set: the published filter, or FLTrust among the gradients that it accepts, for "
        "which the server samples a gradient of its own",
    )

    @classmethod
    def implies(cls, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The filter, and what the mode stands for."""
        mode = settings.get("mode", "reference")
        implied = {component_kind: dict(values) for component_kind, values in MODES.get(mode, {}).items()}
        implied["aggregator"] = {"kind": settings.get("filter", "fedpg-filter")}
        steps = "geometric-from-0" if mode == "paper" else "geometric-from-1"
        implied["strategy"] = {**implied.get("strategy", {}), "steps": steps, "filter": "fedpg-filter"}
        return implied

    def check(self, learner: Learner) -> None:
        """B_min <= B_max, and the right learner."""
        super().check(learner)
        if self.batch_min > self.batch_max:
            raise FedraxError(
                f"strategy.batch_min = {self.batch_min} is above strategy.batch_max = {self.batch_max}; "
                "lower the one or raise the other"
            )

    @property
    def max_episodes(self) -> int:
        """B_max."""
        return self.batch_max

    def draw_episodes(self, key: PRNGKeyArray) -> Array:
        """B_t, uniform on B_min..B_max."""
        return jax.random.randint(key, (), self.batch_min, self.batch_max + 1)

    def draw_steps(self, episodes: Array, key: PRNGKeyArray) -> Array:
        """N_t by inversion of the geometric distribution."""
        failure = episodes / (episodes + self.minibatch)
        uniform = jax.random.uniform(key, minval=jnp.finfo(jnp.float32).tiny)
        failures = jnp.floor(jnp.log(uniform) / jnp.log(failure)).astype(jnp.int32)
        return failures + (self.steps == "geometric-from-1")
