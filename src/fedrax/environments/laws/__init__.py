"""Named laws: how a published system draws several parameters of an agent's environment together.

A law is a class with options, and a function for each environment that it knows, native or not: adding one is one
decorated function in any file of this package.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import equinox as eqx

from fedrax.errors import FedraxError, unknown
from fedrax.registry import Registry, options_of

TABLE = "environment.heterogeneity"
"""The table that names a law and holds its options."""


class Law(eqx.Module):
    """A law of all of an environment's parameters; its options are those of the heterogeneity table."""

    name: ClassVar[str]
    environments: ClassVar[dict[str, Callable[[Any, int], dict[str, float]]]]
    """By environment id: from the law's options and an agent's number, from 0, to what it draws for this agent."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.environments = {}

    @classmethod
    def of(
        cls, environment: str
    ) -> Callable[[Callable[[Self, int], dict[str, float]]], Callable[[Self, int], dict[str, float]]]:
        """Decorator: makes a function the law's draws for the environment with this id."""

        def add(draw: Callable[[Self, int], dict[str, float]]) -> Callable[[Self, int], dict[str, float]]:
            cls.environments[environment] = draw
            return draw

        return add

    def check(self, environment: str) -> None:
        """Raises :class:`FedraxError` for options that the draws for this environment do not have."""

    @abc.abstractmethod
    def numbered(self, number: int) -> Self:
        """The law that makes a run's draw with this number; number 0 is the law itself."""


laws: Registry[Law] = Registry(TABLE, "fedrax.environments.laws")


def law_draws(
    table: Mapping[str, Any], environment: str, agents: int, number: int = 0
) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """What the table's law draws for every agent, and the rest of the table.

    A table without ``law`` draws nothing and is all rest. An agent's draws do not depend on how many agents there are.

    Args:
        table: the heterogeneity table.
        environment: the environment's id.
        agents: their number.
        number: of the draw.

    Raises:
        FedraxError: an unknown law, one that the environment does not have, or a wrong option.
    """
    if "law" not in table:
        return [{} for _ in range(agents)], dict(table)
    name = table["law"]
    if not isinstance(name, str) or name not in laws:
        raise unknown(f"{TABLE}.law", str(name), laws)
    known = laws[name]
    if environment not in known.environments:
        raise FedraxError(
            f"{TABLE}.law = {name!r} does not know environment {environment!r}; it has "
            f"{', '.join(sorted(known.environments))}: change environment.id, or give distributions instead"
        )
    options = {key: value for key, value in table.items() if key in options_of(known)}
    law = laws.build(name, options).numbered(number)
    law.check(environment)
    draw = known.environments[environment]
    rest = {key: value for key, value in table.items() if key != "law" and key not in options}
    return [draw(law, agent) for agent in range(agents)], rest


def law_keys(table: Mapping[str, Any], environment: str) -> list[str]:
    """The keys that a table for this environment may have beside its parameters: ``law``, and the law's options."""
    if "law" in table:
        return ["law", *options_of(laws[table["law"]])]
    return ["law"] if any(environment in laws[name].environments for name in laws) else []
