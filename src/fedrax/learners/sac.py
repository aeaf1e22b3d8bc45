"""Soft actor-critic (Haarnoja et al., 2018), and its version for discrete actions (Christodoulou, 2019).

The policy maximises its return and ``alpha`` times its entropy; alpha is learned so that entropy stays near a target.
"""

from __future__ import annotations

import abc
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from fedrax.environments.actions import Actions
from fedrax.environments.base import Box, Discrete, Observation, Spaces
from fedrax.errors import FedraxError
from fedrax.learners.base import Objective, learners
from fedrax.learners.critics.base import NOTHING, Sight
from fedrax.learners.networks import flat_size
from fedrax.learners.off_policy import ACTOR, CRITIC, OffPolicy, Training, as_batch
from fedrax.learners.replay import Transitions
from fedrax.learners.soft_networks import DiscreteTwinCritic, SoftTwinCritic
from fedrax.learners.twin_critic import TwinCritic
from fedrax.parts import put_parts, take_parts
from fedrax.registry import option

TEMPERATURE = ("temperature",)
ENTROPY_SHARE = 0.89
"""Of the uniform policy's entropy, the target for discrete actions (CleanRL's)."""


class SoftActorCritic(OffPolicy):
    """What both versions have in common: the temperature, and when each part is updated."""

    trained: ClassVar[dict[str, tuple[str, ...]]] = {"critic": CRITIC, "actor": ACTOR, "temperature": TEMPERATURE}

    temperature: float = option(1.0, "alpha, the weight of the policy's entropy; at first, where it is learned")
    learn_temperature: bool = option(True, "alpha is learned, so that the policy's entropy stays near target_entropy")
    temperature_rate: float | None = option(None, "step size of alpha's logarithm; none: learning_rate", minimum=0)
    target_entropy: float | None = option(
        None,
        "entropy that alpha is learned for, of actions as shares of their range; none: minus the number of an action's "
        f"components, or {ENTROPY_SHARE} times the uniform policy's entropy where actions are discrete",
        unit="nat",
    )
    actor_first: bool = option(
        False, "the actor's gradient is of the critics before their step, as in rlkit, not after it"
    )

    def check(self, spaces: Spaces) -> None:
        """Raises :class:`FedraxError` for a temperature that has no logarithm."""
        super().check(spaces)
        if self.temperature_rate is not None and self.learning_rate == 0:
            raise FedraxError("learner.temperature_rate is no factor of learner.learning_rate = 0; raise learning_rate")
        given = [name for name in ("target_entropy", "temperature_rate") if getattr(self, name) is not None]
        if not self.learn_temperature and given:
            raise FedraxError(
                f"learner.{given[0]} is for a temperature that is learned: set learner.learn_temperature=true, or "
                f"learner.{given[0]}=none"
            )
        if self.temperature <= 0:
            raise FedraxError(
                f"learner.temperature = {self.temperature:g} is not allowed: it must be more than 0; for a policy "
                "that hardly heeds its entropy, set learner.temperature=1e-6 learner.learn_temperature=false"
            )

    def actor_step(
        self,
        training: Training,
        batch: Transitions,
        noise: PyTree,
        objective: Objective,
        before: TwinCritic,
        sight: Sight = NOTHING,
    ) -> tuple[Training, dict[str, Array]]:
        """One step of the actor and one of the temperature, of the same actions; then all targets follow."""
        own: Any = training.params
        critics = before if self.actor_first else own

        def loss(actor: dict[str, PyTree]) -> tuple[Array, tuple[Array, Array]]:
            params: Any = put_parts(training.params, actor)
            gain, entropy = self.soft_value(params, critics, batch, noise, sight)
            return objective.penalty(params, as_batch(batch)) - gain.mean(), (gain.mean(), entropy.mean())

        gradient, (gain, entropy) = jax.grad(loss, has_aux=True)(take_parts(training.params, ACTOR))
        after = self.stepped(training, gradient, "actor", objective)
        report = {"actor_loss": -gain, "entropy": entropy, "temperature": own.alpha}
        if self.learn_temperature:
            # d/d log(alpha) of log(alpha) * (entropy - target), whose step length in Adam does not depend on alpha.
            slope = {"temperature": entropy - self.wanted_entropy(own)}
            # Step sizes are factors of an optimiser's steps.
            scale = 1.0 if self.temperature_rate is None else self.temperature_rate / self.learning_rate
            after = self.stepped(after, slope, "temperature", objective, scale=scale)
        return self.followed(after), report

    @abc.abstractmethod
    def soft_value(
        self, params: Any, critics: Any, batch: Transitions, noise: PyTree, sight: Sight
    ) -> tuple[Float[Array, " N"], Float[Array, " N"]]:
        """``min_i Q_i(s, a) - alpha log pi(a | s)`` of the policy's actions, and the policy's entropy, as estimates."""

    @abc.abstractmethod
    def wanted_entropy(self, params: Any) -> float:
        """``target_entropy``, or what stands for it, in nats."""


@learners.register("sac")
class SAC(SoftActorCritic):
    """Twin critics and an actor of tanh-squashed Gaussian actions, with a learned temperature."""

    deviation_bounds: tuple[float, float] = option(
        (-20.0, 2.0), "interval that the logarithm of the actor's standard deviation is clipped to"
    )

    def check(self, spaces: Spaces) -> None:
        """Raises :class:`FedraxError` for actions that are not real, or settings that do not fit together."""
        self.check_real_actions(spaces, "learner=sac-discrete, learner=ppo or learner=policy-gradient")
        super().check(spaces)
        low, high = self.deviation_bounds
        if low >= high:
            raise FedraxError(
                f"learner.deviation_bounds = {list(self.deviation_bounds)} is not allowed: the first must be less than "
                "the second"
            )

    def init_params(self, key: PRNGKeyArray, spaces: Spaces) -> SoftTwinCritic:
        """Fresh networks."""
        assert isinstance(spaces.action, Box)
        made = self.networks_of(key, spaces, 2 * flat_size(spaces.action))
        temperature = jnp.log(jnp.asarray(self.temperature))
        return SoftTwinCritic(**vars(made), temperature=temperature, deviation_bounds=self.deviation_bounds)

    def act(self, params: SoftTwinCritic, observation: Observation, key: PRNGKeyArray | None) -> Array:
        """Actions ``[B, a]`` for observations ``[B, *o]``: drawn where there is a key."""
        if key is None:
            return params.act(observation)
        policy = params.policy(observation)
        return self.explored(params, params.units(jnp.tanh(policy.sample(key))), key)

    def noise(self, key: PRNGKeyArray, batches: Transitions) -> dict[str, Float[Array, "*N a"]]:
        """Standard normal, for the actions in the states and in those that follow."""
        names = ("now", "next")
        keys = jax.random.split(key)
        return {name: jax.random.normal(k, batches.action.shape) for name, k in zip(names, keys, strict=True)}

    def targets(self, training: Training, batch: Transitions, noise: Any, sight: Sight = NOTHING) -> Float[Array, "*N"]:
        """``r + gamma (min_i Q_i'(s', a') - alpha log pi(a' | s'))`` with a' an action of the policy."""
        params: Any = training.params
        action, log_prob = params.drawn(batch.next_observation, noise["next"])
        first, second = training.target.values(batch.next_observation, action, sight.of_targets())
        value = jnp.minimum(first, second) - params.alpha * log_prob
        return batch.reward + self.discount * (1.0 - batch.terminated) * value

    def soft_value(
        self, params: Any, critics: Any, batch: Transitions, noise: Any, sight: Sight
    ) -> tuple[Float[Array, " N"], Float[Array, " N"]]:
        """Of one action in each state."""
        action, log_prob = params.drawn(batch.observation, noise["now"])
        least = jnp.minimum(*critics.values(batch.observation, action, sight))
        return least - params.alpha * log_prob, -log_prob

    def wanted_entropy(self, params: Any) -> float:
        """By default, minus the number of an action's components."""
        return -float(len(params.reach)) if self.target_entropy is None else self.target_entropy


@learners.register("sac-discrete")
class DiscreteSAC(SoftActorCritic):
    """Twin critics that value every discrete action, and a categorical actor; expectations over actions are exact."""

    provides: ClassVar[frozenset[str]] = frozenset({"peers", "representations", "targets"})

    def check(self, spaces: Spaces) -> None:
        """Raises :class:`FedraxError` for actions that are not discrete, or settings that do not fit together."""
        if not isinstance(spaces.action, Discrete):
            raise FedraxError("learner 'sac-discrete' needs discrete actions; for real ones set learner=sac")
        super().check(spaces)

    def actions(self, spaces: Spaces) -> Actions:
        """As they are."""
        return Actions(spaces.action)

    def init_params(self, key: PRNGKeyArray, spaces: Spaces) -> DiscreteTwinCritic:
        """Fresh networks."""
        assert isinstance(spaces.action, Discrete)
        made = self.networks_of(key, spaces, spaces.action.n)
        return DiscreteTwinCritic(**vars(made), temperature=jnp.log(jnp.asarray(self.temperature)))

    def act(self, params: DiscreteTwinCritic, observation: Observation, key: PRNGKeyArray | None) -> Array:
        """Actions ``int32[B]`` for observations ``[B, *o]``: drawn where there is a key."""
        policy = params.policy(observation)
        if key is None:
            return policy.mode()
        action = policy.sample(key)
        if self.random_actions == 0:
            return action
        chance_key, uniform_key = jax.random.split(jax.random.fold_in(key, 1))
        uniform = jax.random.randint(uniform_key, action.shape, 0, policy.logits.shape[-1])
        return jnp.where(jax.random.bernoulli(chance_key, self.random_actions, action.shape), uniform, action)

    def noise(self, key: PRNGKeyArray, batches: Transitions) -> dict[str, Array]:
        """None: expectations need no draws."""
        return {}

    def targets(self, training: Training, batch: Transitions, noise: Any, sight: Sight = NOTHING) -> Float[Array, "*N"]:
        """``r + gamma sum_a pi(a | s') (min_i Q_i'(s', a) - alpha log pi(a | s'))``."""
        params: Any = training.params
        target: Any = training.target
        value, _ = expected(params, target, batch.next_observation, sight.of_targets())
        return batch.reward + self.discount * (1.0 - batch.terminated) * value

    def soft_value(
        self, params: Any, critics: Any, batch: Transitions, noise: Any, sight: Sight
    ) -> tuple[Float[Array, " N"], Float[Array, " N"]]:
        """Exact."""
        return expected(params, critics, batch.observation, sight)

    def wanted_entropy(self, params: Any) -> float:
        """By default a share of the uniform policy's."""
        actions = params.actor.layers[-1].bias.shape[-1]
        return ENTROPY_SHARE * math.log(actions) if self.target_entropy is None else self.target_entropy


def expected(
    params: DiscreteTwinCritic, critics: DiscreteTwinCritic, observation: Observation, sight: Sight
) -> tuple[Float[Array, "*N"], Float[Array, "*N"]]:
    """``sum_a pi(a | s) (min_i Q_i(s, a) - alpha log pi(a | s))``, and the policy's entropy."""
    log_probs = jax.nn.log_softmax(params.policy(observation).logits)
    least = jnp.minimum(*critics.all_values(observation, sight))
    share = jnp.exp(log_probs)
    entropy = -(share * log_probs).sum(-1)
    return (share * least).sum(-1) + params.alpha * entropy, entropy
