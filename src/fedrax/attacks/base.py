"""What a Byzantine agent may do: to its own environment, to its message, or by staying silent.

``act`` and ``poison`` are on the environment side and speak of one agent; ``corrupt`` and ``falsify`` are on the
message side and see every message, because attackers may collude and may know the aggregation rule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray, PyTree

from fedrax.environments.base import Spaces
from fedrax.message import Message, attackable
from fedrax.registry import Number, Registry, option
from fedrax.seeds import derive


class Knowledge(NamedTuple):
    """What colluding attackers know of the server."""

    aggregate: Callable[[Array], Array]
    """The server's rule: ``[n, d]`` vectors to the ``[d]`` it would use."""


class Attack(eqx.Module):
    """An attack by ``agents`` Byzantine agents; the default hooks do nothing.

    Messages are *updates*: a strategy that sends weights hands over their difference to what was broadcast, so one
    attack means the same thing for every strategy.
    """

    name: ClassVar[str]
    ignores_honest: ClassVar[bool] = False
    """Whether :meth:`corrupt` heeds neither honest agents' messages nor how many there are. Other attacks are refused
    where some rows are nobody's (``federation.sampling=poisson``)."""

    agents: int = option(0, "number of Byzantine agents (the first ids)", unit="agents", minimum=0)
    schedule: Literal["static", "intermittent", "rotating"] = option(
        "static",
        "who is Byzantine: the same agents always; the same agents, each in a round with `probability`; "
        "a set of `agents` drawn anew each round",
    )
    probability: Number = option(
        0.5,
        "chance that an intermittent attacker attacks in a round",
        unit="probability",
        minimum=0,
        maximum=1,
        argument=True,
    )

    @property
    def on_messages(self) -> bool:
        """Whether it changes messages, or withholds them."""
        return any(getattr(type(self), hook) is not getattr(Attack, hook) for hook in ("corrupt", "falsify", "answers"))

    @property
    def on_statistics(self) -> bool:
        """Whether it changes what agents report beside their updates."""
        return type(self).falsify is not Attack.falsify

    def byzantine(self, n: int, key: PRNGKeyArray) -> Bool[Array, " n"]:
        """Who attacks in the round that ``key`` belongs to, among ``n`` agents."""
        if self.schedule == "rotating":
            return jax.random.permutation(key, n) < self.agents
        fixed = jnp.arange(n) < self.agents
        if self.schedule == "intermittent":
            return fixed & jax.random.bernoulli(key, self.probability, (n,))
        return fixed

    def act(self, action: Array, spaces: Spaces, key: PRNGKeyArray) -> Array:
        """What a Byzantine agent does where its policy chose ``action``, ``[..., *action shape]``.

        Both are in the environment's units. What lies out of bounds is clipped before the environment gets it; the
        agent learns from what its policy would have had to emit for it.
        """
        return action

    def poison(self, rewards: Array, valid: Array, key: PRNGKeyArray) -> Array:
        """The rewards a Byzantine agent learns from: ``rewards`` and ``valid`` are ``[steps, episodes]``."""
        return rewards

    def corrupt(
        self, messages: PyTree, byzantine: Bool[Array, " n"], key: PRNGKeyArray, knowledge: Knowledge
    ) -> PyTree:
        """The messages as sent: leaves ``[n, ...]``; rows of honest agents must come back unchanged.

        ``messages`` are the arrays of real numbers in the messages' updates and individual parts, at least one.
        """
        return messages

    def falsify(self, statistics: PyTree, byzantine: Bool[Array, " n"], key: PRNGKeyArray) -> PyTree:
        """The statistics as sent: leaves ``[n, ...]``; rows of honest agents must come back unchanged."""
        return statistics

    def applied(
        self, messages: Message, byzantine: Bool[Array, " n"], key: PRNGKeyArray, knowledge: Knowledge
    ) -> Message:
        """The messages as sent, by :meth:`corrupt` and :meth:`falsify`; ``key`` is the round's."""
        if type(self).corrupt is not Attack.corrupt:
            real, others = attackable(messages)
            if jax.tree.leaves(real):
                real = self.corrupt(real, byzantine, derive(key, "corrupt"), knowledge)
            messages = eqx.combine(real, others)
        if type(self).falsify is not Attack.falsify:
            false = self.falsify(messages.statistics, byzantine, derive(key, "falsify"))
            messages = Message(messages.update, false, messages.individual)
        return messages

    def answers(self, byzantine: Bool[Array, " n"], key: PRNGKeyArray) -> Bool[Array, " n"]:
        """Which agents answer at all this round."""
        return jnp.ones_like(byzantine)


attacks: Registry[Attack] = Registry("attack", "fedrax.attacks")


def replace_rows(messages: PyTree, byzantine: Bool[Array, " n"], forged: PyTree) -> PyTree:
    """``messages`` with the rows of Byzantine agents taken from ``forged`` (same shapes)."""

    def one(honest: Any, fake: Any) -> Any:
        mask = byzantine.reshape(byzantine.shape + (1,) * (honest.ndim - 1))
        return jnp.where(mask, fake, honest)

    return jax.tree.map(one, messages, forged)


@attacks.register("none")
class NoAttack(Attack):
    """Everybody is honest."""
