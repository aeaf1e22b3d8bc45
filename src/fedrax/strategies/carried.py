"""What belongs to networks that are averaged: their targets, and their optimiser's moments.

A broadcast replaces an agent's networks. Targets that stay where they are judge networks that they no longer follow,
and moments are of steps from elsewhere: the TD3+HER reference keeps both, and its agents fall back after each round.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from fedrax.errors import FedraxError
from fedrax.learners.base import Agent, Learner
from fedrax.message import is_real
from fedrax.registry import option
from fedrax.strategies.base import Strategy
from fedrax.strategies.sharing import put_shared, take_shared


class Carried(eqx.Module):
    """What is averaged beside networks; () in place of what is not."""

    target: PyTree
    """The averaged parts of the targets; in a message, less those of the networks that were received."""
    moments: PyTree
    """The optimiser's real arrays."""


class Carrying(Strategy):
    """A strategy that averages networks, and says what becomes of what belongs to them."""

    average: tuple[str, ...] = option((), "parts of the networks to average (the others stay with each agent); []: all")
    target_step: float = option(
        0.0,
        "how far an agent's targets move towards the averaged networks when it receives them; 1: they become them "
        "(the TD3+HER reference: 0.005)",
        minimum=0,
        maximum=1,
    )
    average_targets: bool = option(
        False, "targets are averaged as the networks are, and move all the way (whatever strategy.server_learning_rate)"
    )
    moments: Literal["keep", "reset", "average"] = option(
        "keep", "an agent's optimiser moments when it receives averaged networks"
    )

    def check(self, learner: Learner) -> None:
        """Raises :class:`FedraxError` for targets that the learner has not, or for options that exclude each other."""
        named = "target_step" if self.target_step > 0 else "average_targets" if self.average_targets else ""
        if named and "targets" not in learner.provides:
            raise FedraxError(f"strategy.{named} needs a learner with target networks, not {learner.name!r}")
        if self.target_step > 0 and self.average_targets:
            raise FedraxError("strategy.average_targets says where targets are; set strategy.target_step=0")
        if self.moments == "average" and self.average:
            raise FedraxError(
                "strategy.moments = 'average' needs networks that are averaged whole; remove strategy.average, or set "
                "strategy.moments=reset"
            )

    @property
    def sends_moments(self) -> bool:
        """Where they are averaged."""
        return self.moments == "average"

    @property
    def carries(self) -> bool:
        """Whether anything is averaged beside networks."""
        return self.average_targets or self.moments == "average"

    def carried_first(self, agent: Agent) -> Carried | tuple[()]:
        """Before the first round, of the agents, who start alike; () where nothing is averaged beside networks."""
        if not self.carries:
            return ()
        return Carried(
            take_shared(agent.memory.target, self.average) if self.average_targets else (),
            _real(agent.optimizer) if self.moments == "average" else (),
        )

    def carried_sent(self, agent: Agent, received: PyTree) -> Carried | tuple[()]:
        """What an agent sends of it, with the averaged parts as it received them."""
        own = self.carried_first(agent)
        if not isinstance(own, Carried) or not self.average_targets:
            return own
        return Carried(jax.tree.map(jnp.subtract, own.target, received), own.moments)

    def carried_absorbed(self, agent: Agent, carried: Carried | tuple[()]) -> Agent:
        """An agent that has just received averaged networks."""
        optimizer = agent.optimizer
        if self.moments == "reset":
            optimizer = jax.tree.map(jnp.zeros_like, optimizer)
        if isinstance(carried, Carried) and self.moments == "average":
            optimizer = eqx.combine(_second_moments_not_negative(carried.moments), optimizer)
        memory = agent.memory
        if self.target_step > 0 or self.average_targets:
            target = take_shared(memory.target, self.average)
            if isinstance(carried, Carried) and self.average_targets:
                target = carried.target
            else:
                networks = take_shared(agent.params, self.average)
                target = jax.tree.map(lambda x, y: x + self.target_step * (y - x), target, networks)
            memory = dataclasses.replace(memory, target=put_shared(memory.target, target, self.average))
        return Agent(agent.params, optimizer, memory, agent.private)


def joined(networks: PyTree, carried: Carried | tuple[()]) -> PyTree:
    """An update of networks, and of what belongs to them where that is averaged."""
    return {"networks": networks, "carried": carried} if isinstance(carried, Carried) else networks


def apart(update: PyTree) -> tuple[Any, Carried | tuple[()]]:
    """The networks of an update, and what belongs to them."""
    if isinstance(update, dict) and isinstance(update.get("carried"), Carried):
        return update["networks"], update["carried"]
    return update, ()


def averaged(networks: PyTree, carried: Carried | tuple[()]) -> Carried | tuple[()]:
    """What a server broadcasts of it: of the aggregate, and the averaged parts as they were broadcast before."""
    if not isinstance(carried, Carried):
        return ()
    target = jax.tree.map(jnp.add, networks, carried.target) if jax.tree.leaves(carried.target) else carried.target
    return Carried(target, carried.moments)


def _real(optimizer: PyTree) -> PyTree:
    """The real arrays of an optimiser's state, None in place of counts."""
    return eqx.filter(optimizer, is_real)


def _second_moments_not_negative(moments: PyTree) -> PyTree:
    """Moments as an optimiser can take a root of, whatever a rule or an attacker made of them."""

    def bounded(path: tuple[Any, ...], x: Any) -> Any:
        second = any(getattr(key, "name", None) == "nu" for key in path)
        return jnp.maximum(x, 0.0) if second else x

    return jax.tree_util.tree_map_with_path(bounded, moments)
