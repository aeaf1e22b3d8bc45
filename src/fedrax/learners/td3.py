"""Twin delayed deep deterministic policy gradient (Fujimoto et al., 2018).

The details that differ between implementations (what noise is measured in, when targets move) follow the paper; options
bring those of the FedTD3 reference back.
"""

from __future__ import annotations

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from fedrax.environments.base import Observation, Spaces
from fedrax.errors import FedraxError
from fedrax.learners.base import Objective, learners
from fedrax.learners.critics.base import NOTHING, Sight
from fedrax.learners.off_policy import ACTOR, OffPolicy, Training, as_batch
from fedrax.learners.replay import Transitions
from fedrax.learners.twin_critic import TwinCritic
from fedrax.parts import put_parts, take_parts
from fedrax.registry import Number, option


@learners.register("td3")
class TD3(OffPolicy):
    """Actor and twin critics learn from a replay, the actor and all targets less often than the critics."""

    policy_delay: int = option(
        2, "critic updates between updates of the actor and of all targets", minimum=1, maximum=1000
    )
    exploration_noise: Number = option(
        0.1,
        "standard deviation of the noise on actions taken",
        unit="half an action's range",
        minimum=0,
        argument=True,
    )
    target_noise: Number = option(
        0.2,
        "standard deviation of the noise on target actions",
        unit="half an action's range",
        minimum=0,
        argument=True,
    )
    target_noise_clip: Number = option(
        0.5,
        "bound of the noise on target actions",
        unit="half an action's range",
        minimum=0,
        argument=True,
    )
    scale_target_noise: bool = option(
        True, "false: target_noise and its clip are in units of the action itself (the FedTD3 reference)"
    )
    action_penalty: float = option(
        0.0, "weight of the mean square of actions, as shares of their range, in the actor's loss", minimum=0
    )
    clip_values: bool = option(
        False, "target values are clipped to what a goal environment's rewards allow: their bounds / (1 - discount)"
    )
    value_bounds: tuple[float, float] | None = eqx.field(static=True, default=None)
    """The lowest and the highest value that rewards allow, where values are clipped."""

    def check(self, spaces: Spaces) -> None:
        """Raises :class:`FedraxError` for actions that are not real, or settings that do not fit together."""
        self.check_real_actions(spaces, "learner=ppo or learner=policy-gradient")
        super().check(spaces)
        if not self.clip_values:
            return
        self.check_goal(spaces, "clip_values", "false")
        assert spaces.goal is not None
        if self.discount == 1 or not all(map(math.isfinite, spaces.goal.bounds)):
            raise FedraxError(
                f"learner.clip_values needs rewards between two bounds and a discount below 1, and they are between "
                f"{spaces.goal.bounds[0]:g} and {spaces.goal.bounds[1]:g}, learner.discount = {self.discount:g}; set "
                "learner.clip_values=false"
            )

    @property
    def needs_goal_rule(self) -> bool:
        """For bounds of values, too."""
        return self.clip_values or super().needs_goal_rule

    def bind(self, spaces: Spaces, num_envs: int, horizon: int) -> TD3:
        """With the bounds of values too."""
        bound = super().bind(spaces, num_envs, horizon)
        assert isinstance(bound, TD3)
        if not self.clip_values or spaces.goal is None:
            return bound
        low, high = spaces.goal.bounds
        left = 1 - float(self.discount)
        bounds = min(low, 0.0) / left, max(high, 0.0) / left
        return dataclasses.replace(bound, value_bounds=bounds)

    def init_params(self, key: PRNGKeyArray, spaces: Spaces) -> TwinCritic:
        """Fresh networks."""
        return self.networks_of(key, spaces)

    def act(self, params: TwinCritic, observation: Observation, key: PRNGKeyArray | None) -> Array:
        """Actions ``[B, a]`` for observations ``[B, *o]``; with exploration noise where there is a key."""
        action = params.act(observation)
        if key is None:
            return action
        noise = self.exploration_noise * jnp.asarray(params.reach) * jax.random.normal(key, action.shape)
        return self.explored(params, params.clip(action + noise), key)

    def noise(self, key: PRNGKeyArray, batches: Transitions) -> Float[Array, "*N a"]:
        """Standard normal, for target actions."""
        return jax.random.normal(key, batches.action.shape)

    def targets(
        self, training: Training, batch: Transitions, noise: Float[Array, "*N a"], sight: Sight = NOTHING
    ) -> Float[Array, "*N"]:
        """``r + gamma min_i Q_i'(s', a')`` with a' the target actor's action, plus the noise scaled."""
        target = training.target
        scale = jnp.asarray(target.reach) if self.scale_target_noise else 1.0
        bounded = jnp.clip(self.target_noise * noise, -self.target_noise_clip, self.target_noise_clip)
        action = target.clip(target.act(batch.next_observation) + scale * bounded)
        first, second = target.values(batch.next_observation, action, sight.of_targets())
        target_value = batch.reward + self.discount * (1.0 - batch.terminated) * jnp.minimum(first, second)
        return target_value if self.value_bounds is None else jnp.clip(target_value, *self.value_bounds)

    def actor_step(
        self,
        training: Training,
        batch: Transitions,
        noise: PyTree,
        objective: Objective,
        before: TwinCritic,
        sight: Sight = NOTHING,
    ) -> tuple[Training, dict[str, Array]]:
        """One step of the actor up the first critic's value, then all targets follow."""

        def loss(actor: dict[str, PyTree]) -> tuple[Array, Array]:
            params = put_parts(training.params, actor)
            action = params.act(batch.observation)
            loss = -params.value(batch.observation, action, sight).mean()
            if self.action_penalty > 0:
                loss += self.action_penalty * (params.shares(action) ** 2).mean()
            return loss + objective.penalty(params, as_batch(batch)), loss

        gradient, value = jax.grad(loss, has_aux=True)(take_parts(training.params, ACTOR))
        return self.followed(self.stepped(training, gradient, "actor", objective)), {"actor_loss": value}
