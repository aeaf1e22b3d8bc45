"""How agents' environments differ: a table of distributions over named physical parameters.

The table is data, ``{parameter: value}``, where a value is

- a number: the same for every agent;
- a list with one number per agent;
- ``{distribution = "uniform", low = 0.3, high = 0.7}``;
- ``{distribution = "normal", mean = 9.8, std = 0.5}``, clipped to ``low`` and ``high`` where they are given.

``distribution = NAME`` beside the parameters draws several of them together, as a published system does: a joint
distribution (:mod:`fedrax.environments.distributions`). Its options stand in the same table, and the table's own
parameters replace what it draws.
"""

from __future__ import annotations

import abc
import sys
from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
import pydantic

from fedrax.environments.distributions import TABLE, joint_draws, joint_keys
from fedrax.errors import FedraxError, nearest, shown, unknown
from fedrax.seeds import host_seeds


class Distribution(pydantic.BaseModel, abc.ABC):
    """The distribution of one parameter over agents."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @abc.abstractmethod
    def sample(self, generator: np.random.Generator, agents: int) -> np.ndarray:
        """One value per agent, ``float64[agents]``; more agents do not change the earlier ones' values."""


class Uniform(Distribution):
    """Uniform on ``[low, high)``."""

    distribution: Literal["uniform"]
    low: float
    high: float

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_order(self.low, self.high)
        return self

    def sample(self, generator: np.random.Generator, agents: int) -> np.ndarray:
        """Independent draws."""
        return generator.uniform(self.low, self.high, agents)


class Normal(Distribution):
    """Normal; draws outside ``low`` and ``high`` are moved to the nearer of them."""

    distribution: Literal["normal"]
    mean: float
    std: float = pydantic.Field(ge=0)
    low: float | None = None
    high: float | None = None

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_order(self.low, self.high)
        return self

    def sample(self, generator: np.random.Generator, agents: int) -> np.ndarray:
        """Independent draws."""
        return np.clip(generator.normal(self.mean, self.std, agents), self.low, self.high)


DISTRIBUTIONS: dict[str, type[Distribution]] = {"uniform": Uniform, "normal": Normal}


def draw(
    table: Mapping[str, Any],
    defaults: Mapping[str, float],
    agents: int,
    seed: int,
    environment: str = "",
    number: int = 0,
) -> list[dict[str, float]]:
    """Every agent's parameters: ``defaults`` with the values that ``table`` gives.

    Values are floats, but those of a parameter whose default is a whole number stay what the table says: a constructor
    may want an int.

    Each parameter has a random stream of its own, from ``seed`` and its name: adding a parameter to the table
    changes no other's values, and adding agents changes no earlier agent's. A joint distribution has streams of its
    own.

    Args:
        table: the heterogeneity table.
        defaults: of all parameters that may be in the table.
        agents: their number.
        seed: of the run.
        environment: its id, by which a joint distribution knows it.
        number: of the draw; as if the seed were so much higher.

    Raises:
        FedraxError: an unknown parameter or joint distribution, a joint distribution of other parameters, a list of the
            wrong length, or a value of none of the forms above.
    """
    columns: dict[str, list[Any]] = {name: [value] * agents for name, value in defaults.items()}
    drawn, table_of_parameters = joint_draws(table, environment, agents, number)
    strange = sorted({name for values in drawn for name in values} - columns.keys())
    if strange:
        raise FedraxError(
            f"{TABLE}.distribution = {table['distribution']!r} draws {', '.join(strange)}, which "
            f"environment {environment!r} does not have, only {', '.join(sorted(columns))}; use another, or single ones"
        )
    for agent, values in enumerate(drawn):
        for name, value in values.items():
            columns[name][agent] = value
    for name, value in table_of_parameters.items():
        if name not in defaults:
            known = [*defaults, *joint_keys(table, environment)]
            raise unknown(
                "physical parameter in environment.heterogeneity:", name, known, f"fedrax describe {environment}"
            )
        generator = np.random.default_rng(int(host_seeds((), seed + number, "heterogeneity", name)))
        columns[name] = _column(f"environment.heterogeneity.{name}", value, agents, generator)
    whole = {name for name, value in defaults.items() if isinstance(value, int)}
    return [
        {name: column[agent] if name in whole else float(column[agent]) for name, column in columns.items()}
        for agent in range(agents)
    ]


def drawn_names(table: Mapping[str, Any], environment: str) -> set[str]:
    """The parameters that the table, or its joint distribution for this environment, gives values to.

    Raises:
        FedraxError: as :func:`fedrax.environments.distributions.joint_draws`.
    """
    (drawn,), table_of_parameters = joint_draws(table, environment, 1)
    return {*drawn, *table_of_parameters}


def _column(key: str, value: Any, agents: int, generator: np.random.Generator) -> list[int | float]:
    """One parameter's values by agent."""
    if isinstance(value, Mapping):
        try:
            drawn = _parse(key, value).sample(generator, agents)
        except OverflowError:  # The width of an interval is infinite where its bounds need not be.
            drawn = np.array([np.inf])
        if not np.isfinite(drawn).all():
            raise FedraxError(f"{key} = {shown(value)} is not allowed: its draws are not finite; give smaller numbers")
        return drawn.tolist()
    if isinstance(value, (list, tuple)):
        if len(value) != agents:
            raise FedraxError(f"{key} lists {len(value)} values for {agents} agents; give one per agent")
        values = list(value)
    else:
        values = [value] * agents
    for number in values:
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not abs(number) <= sys.float_info.max:
            raise FedraxError(
                f"{key} = {shown(value)} is not allowed: give a finite number, a list of one per agent, "
                f"or a table with distribution = {' or '.join(repr(name) for name in DISTRIBUTIONS)}"
            )
    return values


def _parse(key: str, table: Mapping[str, Any]) -> Distribution:
    name = table.get("distribution")
    if not isinstance(name, str) or name not in DISTRIBUTIONS:
        raise unknown(f"{key}.distribution", str(name), DISTRIBUTIONS)
    kind = DISTRIBUTIONS[name]
    try:
        return kind.model_validate(table)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        part = ".".join([key, *map(str, first["loc"])])
        if first["type"] == "extra_forbidden":
            fields = kind.model_fields
            hint = nearest(str(first["loc"][-1]), fields)
            raise FedraxError(f"unknown key {part}{hint}; {name!r} has {', '.join(fields)}") from None
        if first["type"] == "missing":
            raise FedraxError(f"{part} is missing: {name!r} needs it") from None
        message = first["msg"].removeprefix("Value error, ")
        raise FedraxError(
            f"{part} = {shown(first['input'])} is not allowed: {message[0].lower()}{message[1:]}"
        ) from None


def _check_order(low: float | None, high: float | None) -> None:
    if low is not None and high is not None and low > high:
        raise ValueError(f"low = {low:g} is above high = {high:g}")
