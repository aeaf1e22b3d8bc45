"""Joint distributions: how a published system draws several parameters of an agent's environment together.

A joint distribution is a class with options, and a function for each environment that it knows, native or not: adding
one is one decorated function in any file of this package.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import equinox as eqx

from fedrax.errors import FedraxError, unknown
from fedrax.registry import Registry, options_of

TABLE = "environment.heterogeneity"
"""The table that names a joint distribution (``distribution``) and holds its options."""


class JointDistribution(eqx.Module):
    """A distribution of several of an environment's parameters; its options are those of the heterogeneity table."""

    name: ClassVar[str]
    environments: ClassVar[dict[str, Callable[[Any, int], dict[str, float]]]]
    """By environment id: from the options and an agent's number, from 0, to what it draws for this agent."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.environments = {}

    @classmethod
    def of(
        cls, environment: str
    ) -> Callable[[Callable[[Self, int], dict[str, float]]], Callable[[Self, int], dict[str, float]]]:
        """Decorator: makes a function the draws for the environment with this id."""

        def add(draw: Callable[[Self, int], dict[str, float]]) -> Callable[[Self, int], dict[str, float]]:
            cls.environments[environment] = draw
            return draw

        return add

    def check(self, environment: str) -> None:
        """Raises :class:`FedraxError` for options that the draws for this environment do not have."""

    @abc.abstractmethod
    def numbered(self, number: int) -> Self:
        """The distribution of a run's draw with this number; number 0 is the distribution itself."""


joint_distributions: Registry[JointDistribution] = Registry(TABLE, "fedrax.environments.distributions")


def joint_draws(
    table: Mapping[str, Any], environment: str, agents: int, number: int = 0
) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """What the table's joint distribution draws for every agent, and the rest of the table.

    A table without ``distribution`` draws nothing and is all rest. An agent's draws do not depend on how many agents
    there are.

    Args:
        table: the heterogeneity table.
        environment: the environment's id.
        agents: their number.
        number: of the draw.

    Raises:
        FedraxError: an unknown distribution, one that the environment does not have, or a wrong option.
    """
    if "distribution" not in table:
        return [{} for _ in range(agents)], dict(table)
    name = table["distribution"]
    if not isinstance(name, str) or name not in joint_distributions:
        raise unknown(f"{TABLE}.distribution", str(name), joint_distributions, "fedrax list")
    known = joint_distributions[name]
    if environment not in known.environments:
        raise FedraxError(
            f"{TABLE}.distribution = {name!r} does not know environment {environment!r}; it has "
            f"{', '.join(sorted(known.environments))}: change environment.id, or give single ones"
        )
    options = {key: value for key, value in table.items() if key in options_of(known)}
    joint = joint_distributions.build(name, options).numbered(number)
    joint.check(environment)
    draw = known.environments[environment]
    rest = {key: value for key, value in table.items() if key != "distribution" and key not in options}
    return [draw(joint, agent) for agent in range(agents)], rest


def joint_keys(table: Mapping[str, Any], environment: str) -> list[str]:
    """The keys that a table for this environment may have beside its parameters: ``distribution``, and its options."""
    if "distribution" in table:
        return ["distribution", *options_of(joint_distributions[table["distribution"]])]
    return (
        ["distribution"]
        if any(environment in joint_distributions[name].environments for name in joint_distributions)
        else []
    )
