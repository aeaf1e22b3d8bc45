"""Networks that a server averages: its state and an agent's, which parts are averaged, and when the actor is."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from fedrax.errors import FedraxError
from fedrax.learners.base import Learner
from fedrax.parts import NORMALISER, check_parts, put_parts, take_parts
from fedrax.strategies.return_weights import Returns
from fedrax.strategies.statistics import normaliser_of

Names = tuple[str, ...]


class Server(eqx.Module):
    """The global networks; their parts that are not averaged are as they were first drawn."""

    params: PyTree
    round: Int[Array, ""]
    returns: Float[Array, " agents"]
    """Each agent's last known mean training return; NaN before its first episode ended."""
    carried: PyTree = ()
    """What belongs to the averaged networks (:mod:`fedrax.strategies.carried`), as it is broadcast."""

    @staticmethod
    def first(params: PyTree, carried: PyTree = ()) -> Server:
        """Before the first round; ``params`` of all agents, ``[agents, ...]``, who start alike."""
        agents = jax.tree.leaves(params)[0].shape[0]
        return Server(jax.tree.map(lambda x: x[0], params), jnp.asarray(0), jnp.full(agents, jnp.nan), carried)


class Broadcast(eqx.Module):
    """What goes out: the averaged parts, and whether the actor is among them this time (bool)."""

    params: PyTree
    actor_due: Array
    episodes: int = eqx.field(static=True)
    moments: PyTree = ()
    """Of all agents' observations; () where networks see them as they are."""
    carried: PyTree = ()
    """What belongs to the networks, as averaged; () where nothing is."""


class Kept(eqx.Module):
    """What an agent keeps: the averaged parts as last received, and its returns of this round."""

    received: PyTree
    returns: Returns


def check_actor(average: Names, actor_every: int, learner: Learner, *, carries: bool = False) -> None:
    """Raises :class:`FedraxError` for an actor that is averaged now and then, and is no part or not averaged."""
    if actor_every > 1 and average and "actor" not in average:
        raise FedraxError(
            f"strategy.actor_every = {actor_every}, but strategy.average = {list(average)} has no actor; add it, or "
            "set strategy.actor_every=1"
        )
    if actor_every > 1 and carries:
        raise FedraxError(
            f"strategy.actor_every = {actor_every} is not allowed where targets or moments are averaged, which belong "
            "to all parts; set strategy.actor_every=1"
        )
    if actor_every > 1 and "actor" not in learner.policy_parts:
        raise FedraxError(f"strategy.actor_every needs a learner with a part 'actor', not {learner.name!r}")


def take_shared(params: PyTree, average: Names) -> PyTree:
    """The averaged parts: a table of them, or the networks whole where ``average`` is empty.

    What observations are normalised by is merged, not averaged (:mod:`fedrax.strategies.statistics`).

    Raises:
        FedraxError: a part that the networks do not have.
    """
    if not average:
        return params if normaliser_of(params) is None else put_parts(params, {NORMALISER: None})
    check_parts("strategy.average", average, params)
    return take_parts(params, average)


def put_shared(params: PyTree, shared: PyTree, average: Names) -> PyTree:
    """The networks with these averaged parts."""
    if average:
        return put_parts(params, shared)
    return shared if normaliser_of(params) is None else put_parts(shared, take_parts(params, [NORMALISER]))


def replaced(before: PyTree, downlink: Broadcast, actor_every: int) -> PyTree:
    """The averaged parts ``before``, replaced by those received: the actor only where it is due."""
    received = downlink.params
    if actor_every == 1:
        return received
    old, new = _actor(before), _actor(received)
    actor = jax.tree.map(lambda x, y: jnp.where(downlink.actor_due, x, y), new, old)
    return received | {"actor": actor} if isinstance(received, dict) else put_parts(received, {"actor": actor})


def _actor(shared: Any) -> PyTree:
    return shared["actor"] if isinstance(shared, dict) else shared.actor
