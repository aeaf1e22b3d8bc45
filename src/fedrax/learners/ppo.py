"""Proximal policy optimisation, its KL-penalised forms, and mirror descent policy optimisation (MDPO).

Sources: Schulman et al. (2017) for ``clip`` and ``kl``; Tomar et al. (2020) for ``mdpo``.
"""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from fedrax.environments.actions import MEANING, Actions, Bounds
from fedrax.environments.base import Observation, Spaces, Steps, shapes
from fedrax.errors import FedraxError
from fedrax.learners.actor_critic import (
    ActorCritic,
    CriticTorso,
    Encoding,
    TorsoKind,
    grid_parts,
    make_actor_critic,
)
from fedrax.learners.advantages import generalised_advantages
from fedrax.learners.base import Agent, Batch, Learner, Objective, UpdateContext, flatten_steps, learners
from fedrax.learners.distributions import Distribution, kl_divergence
from fedrax.learners.encoders import GRID, TORSO, check_torso
from fedrax.learners.networks import Activation, by_input
from fedrax.registry import Number, option


class Rollout(NamedTuple):
    """A collection as the minibatches are cut from it; ``N`` steps, leaves ``[N, ...]``."""

    observation: Observation
    action: Array
    valid: Array
    log_prob: Array
    """Of the action, under the policy that took it."""
    taken_by: Distribution
    """That policy."""
    value: Array
    advantage: Array
    reference: PyTree


class Extras(NamedTuple):
    """What acting computes and learning needs again; leaves ``[..., B]``."""

    taken_by: Distribution
    value: Array


class Adaptive(eqx.Module):
    """What an agent remembers between updates."""

    kl_coefficient: Float[Array, ""]


@learners.register("ppo")
class PPO(Learner):
    """Actor and critic learn from fixed numbers of steps, several epochs of minibatches each."""

    provides: ClassVar[frozenset[str]] = frozenset({"distribution", "representations"})
    body: ClassVar[tuple[str, ...]] = ("torso",)
    policy_parts: ClassVar[tuple[str, ...]] = ("torso", "actor")

    learning_rate: Number = option(2.5e-4, "step size, before annealing", minimum=0, argument=True)
    max_gradient_norm: Number | None = option(
        0.5,
        "gradients longer than this are scaled down to it",
        unit="Euclidean norm",
        minimum=0,
        argument=True,
    )
    adam_epsilon: Number = option(1e-5, "added to Adam's denominator", minimum=0, argument=True)
    anneal_learning_rate: bool = option(True, "lower the step size linearly to 0 over the budget")
    num_steps: int = option(128, "steps of each copy of the environment per update", unit="steps", minimum=1)
    num_minibatches: int = option(4, "minibatches an epoch is split into", minimum=1)
    update_epochs: int = option(4, "passes over the steps of an update", minimum=1)
    discount: Number = option(0.99, "gamma", minimum=0, maximum=1, argument=True)
    gae_lambda: Number = option(0.95, "lambda of generalised advantage estimation", minimum=0, maximum=1, argument=True)
    normalise_advantages: bool = option(True, "standardise the advantages of each minibatch")
    objective: Literal["none", "clip", "kl", "mdpo"] = option(
        "clip",
        "the surrogate: plain ratio, clipped ratio, or ratio with kl_coefficient times KL(old || new) (kl) "
        "or KL(new || old) (mdpo)",
    )
    clip_coefficient: Number = option(
        0.2, "half-width of the interval ratios and values are clipped to", minimum=0, argument=True
    )
    clip_value_loss: bool = option(
        False, "also clip how far a value may move, which needs rewards scaled to fit clip_coefficient"
    )
    kl_coefficient: Number = option(
        1.0, "weight of the KL divergence (kl and mdpo)", unit="1/nat", minimum=0, argument=True
    )
    kl_target: Number | None = option(
        None,
        "adapt the weight: halve it where the update's mean KL is below two thirds of this, double it above "
        "three halves of it; none: fixed",
        unit="nat",
        minimum=0,
        argument=True,
    )
    kl_estimator: Literal["exact", "sampled"] = option(
        "exact", "over all actions (closed form for Gaussians), or the reference's estimate from the actions taken"
    )
    target_kl: Number | None = option(
        None,
        "no further epoch once the last minibatch's KL(old || new) exceeds this",
        unit="nat",
        minimum=0,
        argument=True,
    )
    entropy_coefficient: Number = option(0.01, "weight of the policy's entropy", unit="1/nat", minimum=0, argument=True)
    value_coefficient: Number = option(0.5, "weight of the value loss", minimum=0, argument=True)
    action_bounds: Bounds = option("clip", MEANING)
    initial_deviation: float = option(
        0.5,
        "standard deviation that real actions start with, where -1 to 1 stands for the range",
        minimum=1e-6,
    )
    torso: TorsoKind = option("auto", TORSO + ", and one made for MiniGrid's 7x7 views (grid) there")
    hidden: tuple[int, ...] = option(
        (64, 64), "widths of the torso's dense layers; the grid torso has one, the last", minimum=1
    )
    activation: Activation = option("tanh", "activation of the torso")
    critic_torso: CriticTorso = option(
        "separate",
        "the critic's own (separate), or the actor's (shared), which computes half as much, but where returns far from "
        "1 drown the policy's gradient",
    )
    encoding: Encoding = option(
        "one-hot", "a grid's cells: one-hot object, colour and state, or their raw integers (reference)"
    )
    grid_pooling: bool = option(
        True,
        "keep the largest of each 2x2 block after a grid's first convolution: a fifth of the operations "
        "(false: the reference's network)",
    )

    @property
    def steps(self) -> int:
        """``num_steps``."""
        return self.num_steps

    @property
    def gradient_steps(self) -> int:
        """Epochs times minibatches (``target_kl`` may end an update earlier)."""
        return self.update_epochs * self.num_minibatches

    def transformation(self) -> optax.GradientTransformation:
        """Adam with the larger epsilon that PPO is used with, after gradient clipping."""
        if self.optimizer == "sgd":
            return super().transformation()
        step = optax.adam(self.learning_rate, eps=self.adam_epsilon)
        if self.max_gradient_norm is None:
            return step
        return optax.chain(optax.clip_by_global_norm(self.max_gradient_norm), step)

    def check(self, spaces: Spaces) -> None:
        """Raises :class:`FedraxError` for a grid torso without a grid, or an unusable width."""
        if not self.hidden:
            raise FedraxError("learner.hidden = [] is not allowed: give at least one width")
        seen = spaces.observation
        if self.torso == "grid" and grid_parts(seen) is None:
            raise FedraxError(
                f"learner.torso = 'grid' needs observations of shape {GRID}, with or without a mission, not "
                f"{shapes(seen)}; set learner.torso=mlp"
            )
        check_torso(self.torso, spaces.observation)

    def actions(self, spaces: Spaces) -> Actions:
        """As ``action_bounds`` says."""
        return Actions(spaces.action, self.action_bounds)

    def bind(self, spaces: Spaces, num_envs: int, horizon: int) -> PPO:
        """Raises :class:`FedraxError` where the steps do not split into minibatches."""
        batch = self.num_steps * num_envs
        if batch % self.num_minibatches:
            raise FedraxError(
                f"learner.num_minibatches = {self.num_minibatches} does not divide the {batch} steps of an update "
                f"(learner.num_steps = {self.num_steps} times environment.num_envs = {num_envs}); choose a divisor"
            )
        return self

    def init(self, key: PRNGKeyArray, spaces: Spaces) -> Agent:
        """A fresh agent."""
        agent = super().init(key, spaces)
        return Agent(agent.params, agent.optimizer, Adaptive(jnp.asarray(self.kl_coefficient)), agent.private)

    def init_params(self, key: PRNGKeyArray, spaces: Spaces) -> ActorCritic:
        """Fresh networks."""
        return make_actor_critic(
            key,
            spaces,
            torso=self.torso,
            hidden=self.hidden,
            activation=self.activation,
            encoding=self.encoding,
            pooling=self.grid_pooling,
            critic_torso=self.critic_torso,
            deviation=self.initial_deviation,
        )

    def acting(self, params: ActorCritic) -> ActorCritic:
        """The networks, stored for few rows at a time."""
        return by_input(params)

    def act(self, params: ActorCritic, observation: Observation, key: PRNGKeyArray | None) -> Array:
        """Actions ``[B, *a]`` for observations ``[B, *o]``."""
        distribution = params(observation)
        return distribution.mode() if key is None else distribution.sample(key)

    def decide(self, params: ActorCritic, observation: Observation, key: PRNGKeyArray) -> tuple[Array, Extras]:
        """Actions ``[B, *a]``, with the policy they are drawn from and the values."""
        distribution, value = params.both(observation)
        return distribution.sample(key), Extras(distribution, value)

    def outputs(self, params: ActorCritic, experience: Steps) -> Distribution:
        """The policy at every step, ``[T * B, ...]``."""
        return params(flatten_steps(experience.acted_on))

    def representations(self, params: ActorCritic, batch: Batch) -> tuple[Float[Array, "N f"], ...]:
        """The torso's features."""
        return (params.torso(batch.observation),)

    def learn(
        self, agent: Agent, experience: Steps, objective: Objective, update_context: UpdateContext
    ) -> tuple[Agent, dict[str, Array]]:
        """``update_epochs`` passes over the collection in random minibatches."""
        rollout = self._rollout(experience, objective)
        count = rollout.value.shape[0]
        scale = 1.0 - update_context.progress if self.anneal_learning_rate else 1.0
        coefficient = agent.memory.kl_coefficient

        def minibatch(
            carry: tuple[PyTree, PyTree, PyTree, Array], indices: Array
        ) -> tuple[tuple[PyTree, PyTree, PyTree, Array], dict[str, Array]]:
            params, optimizer, notes, stopped = carry
            rows = jax.tree.map(lambda x: x[indices], rollout)

            def loss(params: ActorCritic) -> tuple[Array, dict[str, Array]]:
                return self._loss(params, rows, coefficient, objective)

            gradient, metrics = jax.grad(loss, has_aux=True)(params)
            gradient, noted = objective.correct(gradient, params, notes)
            stepped = (*self.apply(params, optimizer, gradient, scale=scale), noted)
            if self.target_kl is not None:
                before = (params, optimizer, notes)
                stepped = jax.tree.map(lambda new, old: jnp.where(stopped, old, new), stepped, before)
            return (*stepped, stopped), metrics

        def epoch(
            carry: tuple[PyTree, PyTree, PyTree, Array], key: PRNGKeyArray
        ) -> tuple[tuple[PyTree, PyTree, PyTree, Array], dict[str, Array]]:
            order = jax.random.permutation(key, count).reshape(self.num_minibatches, -1)
            (*trained, stopped), metrics = jax.lax.scan(minibatch, carry, order)
            if self.target_kl is not None:
                stopped |= metrics["approx_kl"][-1] > self.target_kl
            return (*trained, stopped), metrics

        start = (agent.params, agent.optimizer, objective.start(agent.params), jnp.asarray(False))
        keys = jax.random.split(update_context.key, self.update_epochs)
        (params, optimizer, notes, _), metrics = jax.lax.scan(epoch, start, keys)
        report = jax.tree.map(jnp.mean, metrics)
        memory = Adaptive(self._adapted(coefficient, metrics["kl"][-1].mean()))
        report["kl_coefficient"] = memory.kl_coefficient
        report["explained_variance"] = _explained(rollout.value, rollout.value + rollout.advantage, rollout.valid)
        return Agent(params, optimizer, memory, objective.keep(agent.private, notes)), report

    def _rollout(self, experience: Steps, objective: Objective) -> Rollout:
        """Values, advantages and the acting policy's outputs, all as computed when acting."""
        distribution, values = experience.extras
        advantage = generalised_advantages(experience, values, discount=self.discount, gae_lambda=self.gae_lambda)
        taken_by = jax.tree.map(lambda x: x[:-1], distribution)
        own = flatten_steps(taken_by)
        return Rollout(
            observation=flatten_steps(experience.acted_on),
            action=flatten_steps(experience.action),
            valid=flatten_steps(experience.valid),
            log_prob=flatten_steps(taken_by.log_prob(experience.action)),
            taken_by=own,
            value=flatten_steps(values[:-1]),
            advantage=flatten_steps(advantage),
            reference=objective.prepare(self, experience, own),
        )

    def _loss(
        self, params: ActorCritic, rows: Rollout, coefficient: Array, objective: Objective
    ) -> tuple[Array, dict[str, Array]]:
        """The loss of one minibatch, and its terms as metrics."""
        distribution, value = params.both(rows.observation)
        log_ratio = distribution.log_prob(rows.action) - rows.log_prob
        ratio = jnp.exp(log_ratio)
        share = rows.valid / jnp.maximum(rows.valid.sum(), 1)

        def mean(x: Array) -> Array:
            return (share * x).sum()

        advantage = rows.advantage
        if self.normalise_advantages:
            centred = advantage - mean(advantage)
            advantage = centred / (jnp.sqrt(mean(centred**2)) + 1e-8)
        gain = ratio * advantage
        if self.objective == "clip":
            narrow = jnp.clip(ratio, 1 - self.clip_coefficient, 1 + self.clip_coefficient)
            gain = jnp.minimum(gain, narrow * advantage)
        kl = mean(self._divergence(distribution, rows.taken_by, log_ratio))
        policy_loss = -mean(gain)
        value_loss = self._value_loss(value, rows, mean)
        entropy = mean(distribution.entropy())
        batch = Batch(rows.observation, rows.action, rows.valid, distribution, log_ratio, rows.reference)
        penalty = jnp.asarray(objective.penalty(params, batch))
        total = policy_loss - self.entropy_coefficient * entropy + self.value_coefficient * value_loss + penalty
        if self.objective in ("kl", "mdpo"):
            total = total + coefficient * kl
        metrics = {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "kl": kl,
            "penalty": penalty,
            "approx_kl": mean(ratio - 1 - log_ratio),
            "clip_fraction": mean(jnp.abs(ratio - 1) > self.clip_coefficient),
        }
        return total, metrics

    def _divergence(self, new: Distribution, old: Distribution, log_ratio: Array) -> Array:
        """Of each step, in the direction the objective names.

        The reference's estimate ``exp(x) - 1 - x`` from the actions taken is one of KL(p || q), with
        ``x = log q - log p``, where they come from p.
        """
        mdpo = self.objective == "mdpo"
        if self.kl_estimator == "exact":
            return kl_divergence(new, old) if mdpo else kl_divergence(old, new)
        x = -log_ratio if mdpo else log_ratio
        return jnp.exp(x) - 1 - x

    def _value_loss(self, value: Array, rows: Rollout, mean: object) -> Array:
        target = rows.value + rows.advantage
        error = (value - target) ** 2
        if self.clip_value_loss:
            near = rows.value + jnp.clip(value - rows.value, -self.clip_coefficient, self.clip_coefficient)
            error = jnp.maximum(error, (near - target) ** 2)
        assert callable(mean)
        return 0.5 * mean(error)

    def _adapted(self, coefficient: Array, kl: Array) -> Array:
        """The weight of the KL divergence for the next update (Schulman et al., 2017, section 4)."""
        if self.kl_target is None:
            return coefficient
        factor = jnp.where(kl < self.kl_target / 1.5, 0.5, jnp.where(kl > self.kl_target * 1.5, 2.0, 1.0))
        return jnp.clip(coefficient * factor, 1e-6, 1e6)


def _explained(value: Array, target: Array, valid: Array) -> Array:
    """The share of the targets' variance that the values explain; NaN where there is none."""
    spread = jnp.var(target, where=valid)
    return jnp.where(spread > 0, 1 - jnp.var(target - value, where=valid) / spread, jnp.nan)
