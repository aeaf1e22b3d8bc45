"""What training needs of a runtime: states by seed, rounds forward, and rows of metrics."""

from __future__ import annotations

import abc
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from fedrax.config import Config
from fedrax.environments.base import Episodes
from fedrax.federation import Federation, State, Tally
from fedrax.trees import tree_bytes


class Simulation(abc.ABC):
    """A federation in this process, several seeds at once. States have a leading axis ``[seeds]``."""

    def __init__(self, config: Config, federation: Federation) -> None:
        self.config = config
        self.federation = federation
        self.training_horizon: int
        self.evaluation_horizon: int

    @abc.abstractmethod
    def init(self) -> State:
        """The states before the first round."""

    @abc.abstractmethod
    def compile(self, state: State) -> None:
        """Compiles everything :meth:`advance` runs, so that compiling and training are timed apart."""

    @abc.abstractmethod
    def advance(self, state: State, first: int) -> Iterator[tuple[State, dict[str, np.ndarray]]]:
        """Runs ``checkpoint.every`` rounds from round ``first`` on.

        Yields the states and metrics ``[seeds, rounds, ...]`` as often as it has them; only the last state yielded
        is to be kept. Metric ``active`` is False for rounds past a seed's budget, whose state does not change.
        """

    @abc.abstractmethod
    def evaluate(self, params: PyTree, *, episodes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Greedy returns and lengths ``[episodes]`` of one policy, on the initial states that ``seed`` stands for."""

    def close(self) -> None:  # noqa: B027  (a runtime without environments to free needs none)
        """Frees environments."""

    def active(self, tally: Tally) -> Array:
        """Whether a seed has budget left for another round; bool."""
        budget = self.config.budget
        left = jnp.asarray(True)
        if budget.rounds is not None:
            left &= tally.rounds < budget.rounds
        if budget.trajectories is not None:
            # At most, not less than: the reference stops once its count exceeds the budget.
            left &= tally.trajectories <= budget.trajectories
        if budget.steps is not None:
            left &= tally.steps < budget.steps
        return left

    def fraction_done(self, rounds: int, trajectories: float, steps: float) -> float:
        """How much of the budget is used, 0 to 1, by whichever limit is nearest."""
        budget = self.config.budget
        pairs = ((rounds, budget.rounds), (trajectories, budget.trajectories), (steps, budget.steps))
        return min(1.0, max(used / limit for used, limit in pairs if limit is not None))

    def message_bytes(self, state: State) -> tuple[int, int]:
        """Bytes of one agent's message up and of one broadcast down."""
        strategy = self.federation.strategy
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), state)
        agent = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), one.agents)
        down = jax.eval_shape(strategy.broadcast, one.server, jax.random.key(0))
        return tree_bytes(jax.eval_shape(strategy.emit, agent)), tree_bytes(down)


def agent_report(episodes: Episodes) -> dict[str, Array]:
    """One agent's experience of a round in numbers."""
    return {"episodes": episodes.count, "steps": episodes.steps, "return_sum": episodes.returns.sum()}


def tally_round(tally: Tally, *, agent_episodes: Array, counted: Array, steps: Array, participants: int) -> Tally:
    """The tally after a round.

    Trajectories per agent follow the reference: everything sampled, divided by the number of nodes that sample
    (agents, and the server where there is more than one agent), rounded.
    """
    nodes = participants + 1 if participants > 1 else 1
    spent = jnp.round((agent_episodes + counted) / nodes).astype(jnp.int32)
    return Tally(tally.rounds + 1, tally.trajectories + spent, tally.steps + steps)
