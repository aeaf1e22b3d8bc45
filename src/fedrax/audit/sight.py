"""What leaves an agent of an update, and what of a round's messages a server sees.

Both are asked of the federation itself, whose strategy stands aside, so that whatever comes between an agent and a rule
is attacked as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from fedrax.aggregators.base import Aggregate
from fedrax.environments.faults import NOTHING
from fedrax.errors import FedraxError
from fedrax.federation import Cohort, Federation, Sending
from fedrax.learners.base import Agent
from fedrax.message import Message, is_real
from fedrax.runtime.native import AgentInputs, NativeRuntime
from fedrax.strategies.base import Strategy
from fedrax.trees import ravel_rows


def check_finite(tree: PyTree, what: str = "messages") -> None:
    """Refuses what a training that has diverged leaves, before anything is concluded from it.

    A server leaves messages out that are not finite (:meth:`Federation.exchange`), so updates are checked as agents
    make them.

    Raises:
        FedraxError: a number in it is not finite.
    """
    if not all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(tree)):
        raise FedraxError(
            f"{what} hold numbers that are not finite, as after a training that has diverged, and reveal nothing; "
            "audit a run that has not"
        )


def marked(report: dict[str, Any], update: PyTree) -> PyTree:
    """An update, all NaN where the report says that its round was lost: its agent was put back, and it says nothing."""
    lost = report["fault"][..., 0] != NOTHING
    return jax.tree.map(lambda x: jnp.where(lost, jnp.nan, x) if is_real(x) else x, update)


def play(runtime: NativeRuntime, inputs: AgentInputs, key: PRNGKeyArray, **named: Any) -> tuple[Agent, PyTree, PyTree]:
    """One agent's part of a round: the agent, its environment and its update before protection, :func:`marked`.

    Args:
        runtime: whose round it is.
        inputs: the agent, with no attack.
        key: the round's.
        named: what every agent of the round is told, as :meth:`NativeRuntime._agent_round` takes it.
    """
    agent, running, _, report = runtime._agent_round(inputs, key=key, **named)
    federation = runtime.federation
    return agent, running, marked(report, federation.strategy.emit(federation.learner, agent, key).update)


class Asked(NamedTuple):
    """Of a broadcast, what protection depends on."""

    episodes: Array


def sent(federation: Federation, agent: Agent, update: PyTree, sending: Sending, key: PRNGKeyArray) -> Message:
    """What of an update leaves the agent: protected by the federation's own means, and nothing beside it.

    Args:
        federation: whose strategy is asked for nothing.
        agent: any, for what the federation keeps on agents.
        update: as a strategy makes it.
        sending: what the message depends on besides.
        key: the agent's own of the round.
    """

    def emit(*_: object) -> Message:
        return Message(update)

    stand_in = dataclasses.replace(federation, strategy=_with_method(federation.strategy, "emit", emit))
    return stand_in.emit(agent, key, sending)[1]


def seen(
    federation: Federation, messages: Message, episodes: int | Array, key: PRNGKeyArray, round: int
) -> Float[Array, "rows d"]:
    """What a server gets of a round's messages, or, where it may know a sum alone, everybody whom it tells.

    It is what :meth:`Federation.exchange` hands to the strategy, whatever lies in between: every participant's update,
    or one row, the sum and its noise (:attr:`Protection.sums`).

    Args:
        federation: without simulated attacks.
        messages: of all participants, leaves ``[m, ...]``, as of :func:`sent`.
        episodes: that each was asked for.
        key: the round's.
        round: its number; arrays that do not travel in it are zeros.
    """
    m = jax.tree.leaves(messages)[0].shape[0]

    def combine(*arguments: Any) -> tuple[Array, Aggregate]:
        rows = ravel_rows(arguments[4].update)
        return rows, Aggregate(jnp.zeros(rows.shape[1]), jnp.ones(m, bool), jnp.asarray(True), {})

    watched = dataclasses.replace(federation, strategy=_with_method(federation.strategy, "combine", combine))
    cohort = Cohort(jnp.arange(m), jnp.zeros(m, bool), jnp.ones(m, bool))
    protection, asked = federation.protection, Asked(jnp.asarray(episodes))
    rows, _ = watched.exchange((), asked, cohort, messages, key, jnp.asarray(round), clip=protection.first_clip)
    if not protection.sums:
        return jnp.asarray(rows)
    return jnp.asarray(rows)[:1] * (m if protection.unit is None else protection.expected)


def _with_method(strategy: Strategy, name: str, method: Callable[..., Any]) -> Strategy:
    """The strategy with another method in place of its own, as if of a class derived from it."""
    kind = type(type(strategy).__name__, (type(strategy),), {name: method, "__module__": type(strategy).__module__})
    derived: Strategy = object.__new__(kind)
    for field in dataclasses.fields(strategy):
        object.__setattr__(derived, field.name, getattr(strategy, field.name))
    return derived


@eqx.filter_jit
def seen_of(
    federation: Federation, agent: Agent, updates: PyTree, episodes: Array, key: PRNGKeyArray, round: int
) -> Float[Array, "rows d"]:
    """What a server gets of updates of all participants, leaves ``[m, ...]``, that go the whole way to it."""
    keys = jax.random.split(key, jax.tree.leaves(updates)[0].shape[0])
    sending = federation.sending(Asked(episodes), jnp.asarray(round), key, federation.protection.first_clip)
    messages = jax.vmap(lambda update, own: sent(federation, agent, update, sending, own))(updates, keys)
    return seen(federation, messages, episodes, key, round)
