"""Goals of an agent's own: each agent trains on a few initial states, and is tested on others that nobody trains on.

As in FedFormer (Hebert et al., AAMAS 2023) on Meta-World, where an initial state is a task's goal and the places of its
objects. A goal here is the seed of a reset, so that every environment has them: Meta-World's goals, a maze of MiniGrid,
the start and the goal of a point robot. Goals are numbered, and agent k of a run has those from ``k * (g + h)`` on: the
first ``g`` to train on, the ``h`` after them held out. No two agents share one, whatever their number.

An agent's goals are three of its environment's parameters, and recorded as such.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from fedrax.errors import FedraxError
from fedrax.seeds import host_seeds

GOAL_SEED, GOAL_FIRST, GOAL_COUNT = NAMES = ("goal_seed", "goal_first", "goal_count")
"""Parameters: what all goals of a run are drawn from, the number of an agent's first one, and how many it has."""
NO_GOALS = dict.fromkeys(NAMES, 0)
"""Of an environment that starts anywhere."""
LARGEST = 2**24
"""Numbers below are exact in float32, in which native environments have their parameters."""


@dataclasses.dataclass(frozen=True)
class GoalSet:
    """The goals numbered from ``first`` on, ``count`` of them."""

    seed: int
    first: int
    count: int

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> GoalSet | None:
        """An agent's, by its parameters; None where it starts anywhere."""
        seed, first, count = (int(parameters.get(name, 0)) for name in NAMES)
        return cls(seed, first, count) if count else None

    def reset_seed(self, place: int) -> int:
        """Of a host environment's reset at the goal at this place in the set; modulo their number."""
        return int(host_seeds((), self.seed, "goal", self.first + place % self.count))


class GoalCycle:
    """The goals of a copy's episodes: all of a set in random order, then all of them again in another."""

    def __init__(self, goals: GoalSet) -> None:
        self.goals = goals
        self.reseed(0)

    def reseed(self, seed: int) -> None:
        """Starts anew, in orders drawn from the seed."""
        self._generator = np.random.default_rng(seed)
        self._left: list[int] = []

    def __next__(self) -> int:
        """The seed of the next episode's reset."""
        if not self._left:
            self._left = self._generator.permutation(self.goals.count).tolist()
        return self.goals.reset_seed(self._left.pop())


def goals_of(agent: int, *, goals: int, held_out: int, seed: int, number: int = 0) -> dict[str, int]:
    """The parameters of an agent's goals, of a run's seed and a number of the draw.

    Raises:
        FedraxError: more goals than can be told apart.
    """
    each = goals + held_out
    if (agent + 1) * each > LARGEST:
        raise FedraxError(
            f"environment.goals = {goals} and environment.held_out_goals = {held_out} are too many: those of "
            f"all agents together must be at most {LARGEST}"
        )
    drawn = int(host_seeds((), seed + number, "goals")) % LARGEST
    return dict(zip(NAMES, (drawn, agent * each, goals), strict=True))


def held_out_of(parameters: Any, held_out: int) -> Any:
    """Parameters, numbers or arrays, with the goals held out in place of those trained on, if there are such."""
    if not held_out:
        return parameters
    first = parameters[GOAL_FIRST] + parameters[GOAL_COUNT]
    return {**parameters, GOAL_FIRST: first, GOAL_COUNT: held_out + 0 * parameters[GOAL_COUNT]}


def single_goals(parameters: Mapping[str, Any], episodes: int) -> list[Mapping[str, Any]]:
    """The parameters of each of so many episodes of a test: a set's goals one after the other, in equal shares."""
    goals = GoalSet.of(parameters)
    if goals is None:
        return [parameters] * episodes
    return [
        {**parameters, GOAL_FIRST: goals.first + episode % goals.count, GOAL_COUNT: 1} for episode in range(episodes)
    ]
