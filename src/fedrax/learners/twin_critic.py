"""The networks of off-policy actor-critic learners: an actor, and two critics in named parts."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from fedrax.environments.actions import middle_and_reach
from fedrax.environments.base import Box, Observation
from fedrax.learners.critics.base import NOTHING, Critic, Sight
from fedrax.learners.mlp import MLP, MLPMaker
from fedrax.learners.moments import Normaliser
from fedrax.learners.networks import flat_size


class TwinCritic(eqx.Module):
    """Networks by part as strategies share them: features and heads of both critics, and the actor, deterministic."""

    features: tuple[MLP, MLP]
    """From observation and action to what each critic makes of them."""
    head: tuple[Any, Any]
    """From there to the value (:meth:`fedrax.learners.critics.base.Critic.head`)."""
    actor: MLP
    centre: tuple[float, ...] = eqx.field(static=True)
    """Middle of each action component's range."""
    reach: tuple[float, ...] = eqx.field(static=True)
    """Half the range."""
    scaled: bool = eqx.field(static=True)
    """Whether critics see an action as a share of its range, -1 to 1, rather than in the environment's units."""
    normaliser: Normaliser | tuple[()] = ()
    """By which all networks see observations; () where they see them as they are."""
    attends: bool = eqx.field(static=True, default=False)
    """Whether heads look at peers (:attr:`fedrax.learners.critics.base.Critic.attends`)."""

    def seen(self, observation: Observation) -> Observation:
        """Observations, leaves ``[..., *o]``, as the networks see them."""
        return self.normaliser(observation) if isinstance(self.normaliser, Normaliser) else observation

    def act(self, observation: Observation) -> Float[Array, "... a"]:
        """The actor's actions, within bounds."""
        return jnp.asarray(self.centre) + jnp.asarray(self.reach) * jnp.tanh(self.actor(self.seen(observation)))

    def clip(self, action: Float[Array, "... a"]) -> Float[Array, "... a"]:
        """The action moved into its bounds."""
        centre, reach = jnp.asarray(self.centre), jnp.asarray(self.reach)
        return jnp.clip(action, centre - reach, centre + reach)

    def represent(
        self, observation: Observation, action: Float[Array, "... a"]
    ) -> tuple[Float[Array, "... f"], Float[Array, "... f"]]:
        """Each critic's features."""
        first, second = self.features
        inputs = self.inputs(observation, action)
        return first(*inputs), second(*inputs)

    def values(
        self, observation: Observation, action: Float[Array, "... a"], sight: Sight = NOTHING
    ) -> tuple[Float[Array, ...], Float[Array, ...]]:
        """Both critics' values."""
        inputs = self.inputs(observation, action)
        first, second = (self.outputs(which, inputs, sight)[..., 0] for which in (0, 1))
        return first, second

    def outputs(self, which: int, inputs: tuple[Any, ...], sight: Sight) -> Float[Array, "... v"]:
        """All that one of the critics' heads returns; ``inputs`` are what features are given."""
        own = self.features[which](*inputs)
        return self.head[which](own, sight.view(which, *inputs)) if self.attends else self.head[which](own)

    def attention(self, inputs: tuple[Any, ...], sight: Sight) -> Float[Array, "2 t ..."]:
        """How much the head of each critic takes of each token, where they attend."""
        each = [
            self.head[which].attend(self.features[which](*inputs), sight.view(which, *inputs))[1] for which in (0, 1)
        ]
        return jnp.stack(each)

    def inputs(self, observation: Observation, action: Float[Array, "... a"]) -> tuple[Any, ...]:
        """What features are given."""
        return self.seen(observation), self._seen(action)

    def judge(
        self, first: Float[Array, "... f"], second: Float[Array, "... f"]
    ) -> tuple[Float[Array, ...], Float[Array, ...]]:
        """The heads' values of each critic's features."""
        return self.head[0](first)[..., 0], self.head[1](second)[..., 0]

    def value(
        self, observation: Observation, action: Float[Array, "... a"], sight: Sight = NOTHING
    ) -> Float[Array, ...]:
        """The first critic's value."""
        return self.outputs(0, self.inputs(observation, action), sight)[..., 0]

    def _seen(self, action: Float[Array, "... a"]) -> Float[Array, "... a"]:
        """An action as the critics see it."""
        return self.shares(action) if self.scaled else action

    def shares(self, action: Float[Array, "... a"]) -> Float[Array, "... a"]:
        """Actions as shares of their range, -1 to 1."""
        # A component that cannot move is 0.
        return (action - jnp.asarray(self.centre)) / jnp.asarray([reach or 1.0 for reach in self.reach])


def make_twin_critic(
    key: PRNGKeyArray,
    make: MLPMaker,
    critic: Critic,
    *,
    actor: tuple[int, ...],
    features: tuple[int, ...],
    head: tuple[int, ...],
    scaled: bool,
    normalised: bool,
    outputs: int | None = None,
) -> TwinCritic:
    """Fresh networks with hidden layers of these widths; ``features`` has at least one.

    ``outputs`` are the actor's, unset one for each component of an action. Critics of discrete actions see observations
    alone, and have a value for each action.
    """
    action = make.spaces.action
    seen, values = (flat_size(action), 1) if isinstance(action, Box) else (0, action.n)
    centre, reach = middle_and_reach(action) if isinstance(action, Box) else (np.zeros(0), np.zeros(0))
    first, second, third, fourth, actor_key = jax.random.split(key, 5)
    # FedFormer's reference has rlkit's critics and garage's actor.
    acting = dataclasses.replace(make, initialisation="xavier") if make.initialisation == "rlkit" else make
    made = critic.features(first, make, seen, features), critic.features(second, make, seen, features)
    return TwinCritic(
        features=made,
        head=(
            critic.head(third, make, outputs_of(made[0]), head, values),
            critic.head(fourth, make, outputs_of(made[0]), head, values),
        ),
        actor=acting.seeing(actor_key, 0, (*actor, outputs or seen), activate_last=False),
        centre=tuple(centre.tolist()),
        reach=tuple(reach.tolist()),
        scaled=scaled,
        normaliser=Normaliser.fresh(make.spaces.observation) if normalised else (),
        attends=critic.attends,
    )


def outputs_of(network: MLP) -> int:
    """Numbers that a network returns."""
    last = network.layers[-1]
    return int(last.weight.shape[0 if last.by_output else 1])
