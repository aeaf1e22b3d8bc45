"""What an aggregation rule is: a pure function from agents' vectors to one vector, which checks its own bound."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from fedrax.errors import FedraxError
from fedrax.registry import Registry, option


class Aggregate(NamedTuple):
    """What a rule made of ``n`` vectors of dimension ``d``."""

    vector: Float[Array, " d"]
    accepted: Bool[Array, " n"]
    """Agents whose vector entered the result. Rules that select nobody accept everyone present."""
    valid: Bool[Array, ""]
    """False when no vector was acceptable; ``vector`` is then zero and the strategy must do without."""
    metrics: dict[str, Array]
    """Scalars for the log, such as which of a filter's rules fired."""


class ServerGradient(NamedTuple):
    """What a server knows of the loss at the broadcast policy, from trajectories of its own."""

    vector: Float[Array, " d"]
    """Its own estimate of the gradient."""
    decrease: Callable[[Float[Array, "n d"]], Float[Array, " n"]]
    """Estimates ``L(theta) - L(theta - u)`` for each row u, on the same trajectories."""


class Aggregator(eqx.Module):
    """A rule ``[n, d] -> [d]`` that tolerates a stated number of Byzantine agents."""

    name: ClassVar[str]
    needs_server_gradient: ClassVar[bool] = False
    """Whether the rule compares the agents' vectors with a gradient that the server estimates itself: the strategy's
    server must own an environment, and each round calls :meth:`informed` first."""
    uses_weights: ClassVar[bool] = False
    """Whether positive weights count by their size; for other rules an agent is present or absent."""
    rejects: ClassVar[bool] = False
    """Whether it may leave out the vectors of agents that are present: only of such a rule has a filter's precision
    and recall a meaning."""

    tolerated: int | None = option(
        None,
        "how many Byzantine agents the rule must withstand; unset, as many as attack.agents says",
        unit="agents",
        minimum=0,
    )

    @abc.abstractmethod
    def __call__(
        self,
        vectors: Float[Array, "n d"],
        weights: Float[Array, " n"],
        *,
        samples: float | Array = 1.0,
        key: PRNGKeyArray,
    ) -> Aggregate:
        """Combines the agents' vectors.

        Args:
            vectors: one row per agent; rows of absent agents hold anything finite.
            weights: non-negative; 0 marks an absent agent (dropped out or excluded), whom no rule may let count.
            samples: trajectories each vector is the mean of (a filter's radius depends on it).
            key: for rules that draw.
        """

    def informed(self, server: ServerGradient) -> Aggregator:
        """The rule with the server's own gradient of this round; the rule itself where it needs none."""
        return self

    @abc.abstractmethod
    def check(self, agents: int) -> None:
        """Raises :class:`FedraxError` unless the rule tolerates ``self.f`` Byzantine among ``agents``."""

    @property
    def f(self) -> int:
        """The tolerated number of Byzantine agents."""
        return self.tolerated or 0

    def demand(self, agents: int, least: int, bound: str) -> None:
        """Raises the error of a broken bound: ``least`` agents are needed where there are ``agents``."""
        if agents < least:
            raise FedraxError(
                f"aggregator {self.name!r} needs {bound} agents to tolerate {self.f} Byzantine: "
                f"at least {least}, but a round has {agents}; raise federation.agents or lower attack.agents"
            )


class PreAggregator(eqx.Module):
    """A step before the rule that mixes vectors so that honest ones look more alike."""

    name: ClassVar[str]

    @abc.abstractmethod
    def __call__(
        self, vectors: Float[Array, "n d"], weights: Float[Array, " n"], tolerated: int, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, "m d"], Float[Array, " m"], Int[Array, " n"]]:
        """The mixed vectors, their weights (0 = empty row), and for every agent the row it went into."""

    def rows(self, agents: int) -> int:
        """How many vectors the rule gets for ``agents`` agents."""
        return agents


aggregators: Registry[Aggregator] = Registry("aggregator", "fedrax.aggregators")
preaggregators: Registry[PreAggregator] = Registry("preaggregator", "fedrax.aggregators")


@preaggregators.register("none")
class NoMixing(PreAggregator):
    """Hands the vectors on unchanged."""

    def __call__(
        self, vectors: Float[Array, "n d"], weights: Float[Array, " n"], tolerated: int, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, "m d"], Float[Array, " m"], Int[Array, " n"]]:
        """The input, each agent in its own row."""
        return vectors, weights, jnp.arange(vectors.shape[0])


def check_verdict(name: str, verdict: object, shape: tuple[int, ...]) -> None:
    """Refuses what is not an :class:`Aggregate` of vectors of ``shape``, ``[n, d]``: indexing would hide a short one.

    Raises:
        FedraxError: names the rule, what it returned and what it must.
    """
    rows, width = shape
    if not isinstance(verdict, Aggregate):
        raise FedraxError(f"aggregator {name!r} returned a {type(verdict).__name__}; it must return an Aggregate")
    for part, expected in (("vector", (width,)), ("accepted", (rows,)), ("valid", ())):
        found = jnp.shape(getattr(verdict, part))
        if found != expected:
            raise FedraxError(f"aggregator {name!r} returned {part} of shape {found}; it must be {expected}")
