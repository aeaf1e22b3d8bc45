"""What the ``[search]`` table of a sweep's file may say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fedrax.config import Config
from fedrax.errors import FedraxError, shown, unknown
from fedrax.records.summary import KEYS as ALWAYS
from fedrax.records.summary import MEASURED
from fedrax.registry import LARGEST
from fedrax.sweeps.space import Space, read_space

METHODS = ("random", "halving", "optuna")
DIRECTIONS = ("maximise", "minimise")
BUDGETS = ("rounds", "trajectories", "steps", "steps_per_agent")
KEYS = {
    "random": (),
    "halving": ("budget", "least", "reduction"),
    "optuna": ("sampler",),
}
COMMON = ("method", "trials", "objective", "direction", "seed", "space")
OBJECTIVES = tuple(key for key in (*ALWAYS, *MEASURED) if key != "seeds")
MOST_TRIALS = 10_000


@dataclasses.dataclass(frozen=True)
class Search:
    """A search, checked."""

    method: str
    space: Space
    trials: int
    objective: str
    """A number of a run's summary."""
    direction: str
    seed: int
    sampler: str
    """Of Optuna."""
    budget: str | None
    """Which limit of the budget grows from one stage of halving to the next; unset, the only one there is."""
    least: int
    """The limit of the first stage."""
    reduction: int
    """One trial in so many goes on, with a limit so many times as large."""

    @property
    def sign(self) -> int:
        """1 where more is better."""
        return 1 if self.direction == "maximise" else -1


def read_search(table: Any) -> Search:
    """The search of a file.

    Raises:
        FedraxError: a key or a value that is not allowed, in one line.
    """
    if not isinstance(table, Mapping):
        raise FedraxError(f"search = {shown(table)} is not allowed: it is a table")
    method = _one_of(table, "method", METHODS, "random")
    allowed = (*COMMON, *KEYS[method])
    for key in table:
        if key not in allowed:
            raise unknown(f"key of search.method = {method!r}", key, allowed)
    space = table.get("space", {})
    objective, sampler = table.get("objective", "final_return"), table.get("sampler", "TPESampler")
    for key, text in (("objective", objective), ("sampler", sampler)):
        if not isinstance(text, str) or not text:
            raise FedraxError(f"search.{key} = {shown(text)} is not allowed: give a name")
    if objective not in OBJECTIVES:
        raise unknown("search.objective (a number of a run's summary)", objective, OBJECTIVES)
    if method == "halving" and "least" not in table:
        raise FedraxError("search.method = 'halving' needs search.least, the budget of a trial in the first stage")
    return Search(
        method=method,
        space=read_space(space if isinstance(space, Mapping) else {}),
        trials=_whole(table, "trials", 16, 1, MOST_TRIALS),
        objective=objective,
        direction=_one_of(table, "direction", DIRECTIONS, "maximise"),
        seed=_whole(table, "seed", 0, 0, LARGEST - MOST_TRIALS),  # Optuna is given the number of trials more.
        sampler=sampler,
        budget=_one_of(table, "budget", BUDGETS, None),
        least=_whole(table, "least", 1, 1, LARGEST),
        reduction=_whole(table, "reduction", 3, 2, LARGEST),
    )


def limits(search: Search, config: Config) -> tuple[str, list[int]]:
    """The key of the budget that halving raises, and its value in every stage: the last one is the configuration's.

    Raises:
        FedraxError: the configuration has no such limit, has several, or less than the first stage's.
    """
    given = {name: limit for name in BUDGETS if (limit := getattr(config.budget, name)) is not None}
    name = search.budget or next(iter(given))
    if set(given) != {name}:
        has = ", ".join(f"{key} = {limit}" for key, limit in given.items())
        raise FedraxError(
            f"halving raises budget.{name}, and the budget has {has}: give it one limit, and set the others to none"
        )
    most = given[name]
    if search.least > most:
        raise FedraxError(f"search.least = {search.least} is more than budget.{name} = {most}: give less")
    stages = [search.least]
    while stages[-1] * search.reduction < most:
        stages.append(stages[-1] * search.reduction)
    return f"budget.{name}", stages if stages[-1] == most else [*stages, most]


def _one_of(table: Mapping[str, Any], key: str, allowed: tuple[str, ...], default: Any) -> Any:
    value = table.get(key, default)
    if value is not default and value not in allowed:
        raise unknown(f"search.{key}", str(value), allowed)
    return value


def _whole(table: Mapping[str, Any], key: str, default: int, least: int, most: int | None = None) -> int:
    value = table.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least or (most is not None and value > most):
        rule = f"from {least}" + (f" to {most}" if most is not None else "")
        raise FedraxError(f"search.{key} = {shown(value)} is not allowed: give a whole number {rule}")
    return value
