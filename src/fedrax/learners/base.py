"""What a learner is: what ONE agent learns from its own experience, blind to the federation."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from fedrax.environments.actions import Actions
from fedrax.environments.base import Episodes, Experience, Observation, Spaces
from fedrax.errors import FedraxError
from fedrax.learners.distributions import Distribution
from fedrax.learners.networks import Policy
from fedrax.privacy.clip import clipped
from fedrax.registry import Number, Registry, option


class Agent(eqx.Module):
    """One agent's state. In a federation every leaf has a leading axis ``[agents]``."""

    params: PyTree
    """The networks the agent acts with and learns."""
    optimizer: PyTree
    """The optimiser's state (moments and counts)."""
    memory: PyTree = ()
    """Experience kept between rounds (a replay buffer); on-policy learners keep none."""
    private: PyTree = ()
    """What the strategy keeps on the agent from round to round: gradients, control variates, earlier models."""
    residual: PyTree = ()
    """What compression has left out of the agent's updates so far, where it remembers (error feedback). Learners and
    strategies are given agents without it."""


class Batch(NamedTuple):
    """What a loss term may look at: ``N`` steps of one agent, of one minibatch where the learner has them."""

    observation: Observation
    """Leaves ``[N, *o]``."""
    action: Array
    """``[N]``, or vectors ``[N, a]`` as the learner emits them."""
    valid: Array
    """False for padding, bool ``[N]``."""
    distribution: Distribution | None
    """The current policy's, ``[N, ...]``; gradients flow through it. None where the policy has none."""
    log_ratio: Float[Array, " N"] | None
    """Log-probability of the action under the current policy, less that when it was taken."""
    reference: PyTree
    """The rows of what :meth:`Objective.prepare` returned."""


class Objective(eqx.Module):
    """What a strategy adds to local learning; this one adds nothing."""

    def prepare(self, learner: Learner, experience: Experience, own: Distribution) -> PyTree:
        """What :meth:`penalty` compares with, computed once per collection; leaves ``[N, ...]`` by step.

        ``own`` is the policy that acted, at every step, ``[N, ...]``.
        """
        return ()

    def penalty(self, params: PyTree, batch: Batch) -> Float[Array, ""] | float:
        """A term of the loss."""
        return 0.0

    def start(self, params: PyTree) -> PyTree:
        """What this objective notes in the course of an update."""
        return ()

    def correct(self, gradient: PyTree, params: PyTree, notes: PyTree) -> tuple[PyTree, PyTree]:
        """The gradient as the optimiser shall see it, and the notes; parts that this step does not train are None."""
        return gradient, notes

    def keep(self, private: PyTree, notes: PyTree) -> PyTree:
        """What the strategy keeps on the agent, after an update with these notes."""
        return private


class UpdateContext(NamedTuple):
    """One local update's randomness, how far the run is, and what it may look at beside the agent's own networks."""

    key: PRNGKeyArray
    progress: Float[Array, ""]
    """How much of the budget is used, 0 to 1."""
    context: PyTree = ()
    """What the strategy lets networks and losses look at (:meth:`Strategy.context`), the same in all updates of a
    round: frozen arrays, which no update changes or keeps."""


class Learner(eqx.Module):
    """Pure functions of one agent; the runtime maps them over the agents' axis."""

    name: ClassVar[str]
    provides: ClassVar[frozenset[str]] = frozenset()
    """What strategies may ask of it (:data:`fedrax.compatibility.CAPABILITIES`)."""
    body: ClassVar[tuple[str, ...]] = ()
    """The named parts that see observations first, and that agents with heads of their own have in common."""
    policy_parts: ClassVar[tuple[str, ...]] = ()
    """The named parts of the networks that act; empty where the networks have no named parts."""

    optimizer: Literal["adam", "sgd"] = option(
        "adam", "optimiser of this learner's updates, at agents and at the server"
    )
    learning_rate: Number = option(1e-3, "step size", minimum=0, argument=True)
    max_gradient_norm: Number | None = option(
        None,
        "gradients longer than this are scaled down to it before the optimiser",
        unit="Euclidean norm",
        minimum=0,
        argument=True,
    )
    initial: str | None = option(
        None, "networks to start from: a run's directory (its last policy) or a policy's file; none: fresh ones"
    )
    networks: PyTree = ()
    """The networks that :attr:`initial` stands for, where one agent starts from them; () where they are drawn."""

    def transformation(self) -> optax.GradientTransformation:
        """The optimiser, as agents and servers use it."""
        step = {"adam": optax.adam, "sgd": optax.sgd}[self.optimizer](self.learning_rate)
        if self.max_gradient_norm is None:
            return step
        return optax.chain(optax.clip_by_global_norm(self.max_gradient_norm), step)

    @property
    def gradient_steps(self) -> int:
        """Optimiser steps of one update."""
        return 1

    @property
    def normalises(self) -> bool:
        """Whether networks see observations by their running moments, which agents send."""
        return False

    @property
    def needs_goal_rule(self) -> bool:
        """Whether it must know by which rule a goal environment rewards."""
        return False

    def check(self, spaces: Spaces) -> None:
        """Raises :class:`FedraxError` where the learner does not fit the environment's spaces."""

    @property
    def steps(self) -> int | None:
        """Steps of each copy that one update uses (:class:`Steps`); None for whole episodes (:class:`Episodes`)."""
        return None

    @property
    def episodic(self) -> bool:
        """Whether one update uses whole episodes."""
        return self.steps is None

    def bind(self, spaces: Spaces, num_envs: int, horizon: int) -> Learner:
        """The learner for so many copies of each agent's environment, whose episodes are cut after ``horizon`` steps.

        Raises:
            FedraxError: settings that do not fit them.
        """
        return self

    def judged_by(self, critic: Any) -> Learner:
        """The learner with critics that this one makes (:mod:`fedrax.learners.critics`), if it has any."""
        return self

    def clipping_episodes(self, bound: float | None) -> Learner:
        """The learner whose gradients are means over episodes of gradients no longer than ``bound``; None: as it is."""
        if bound is None:
            return self
        raise FedraxError(f"learner {self.name!r} has no gradient of an episode to clip")

    @property
    def coupling(self) -> str | None:
        """What makes the gradient of a collection no mean over gradients of its episodes, in one line; None: nothing.

        Of learners that provide a gradient.
        """
        return None

    def actions(self, spaces: Spaces) -> Actions:
        """How what :meth:`act` returns becomes the environment's action: in its units, and clipped to its range.

        Raises:
            FedraxError: actions that cannot be honoured.
        """
        return Actions(spaces.action, normalised=False)

    def memory_bytes(self, spaces: Spaces) -> int:
        """Device memory that one agent's experience takes between updates."""
        return 0

    def init(self, key: PRNGKeyArray, spaces: Spaces) -> Agent:
        """A fresh agent."""
        params = self.first_params(key, spaces)
        return Agent(params, self.transformation().init(params))

    def first_params(self, key: PRNGKeyArray, spaces: Spaces) -> Any:
        """What an agent starts with: :attr:`networks`, or fresh parameters."""
        return self.networks if jax.tree.leaves(self.networks) else self.init_params(key, spaces)

    @abc.abstractmethod
    def init_params(self, key: PRNGKeyArray, spaces: Spaces) -> Any:
        """Fresh parameters."""

    def acting(self, params: Any) -> Any:
        """What :meth:`act` is given where it is called many times with the same parameters: the same policy."""
        return params

    @abc.abstractmethod
    def act(self, params: Any, observation: Observation, key: PRNGKeyArray | None) -> Array:
        """Actions for a batch of observations ``[B, *o]``: sampled with ``key``, greedy without.

        ``int32[B]``, or vectors ``[B, a]`` of real numbers that :meth:`actions` makes the environment's.
        """

    def decide(self, params: Any, observation: Observation, key: PRNGKeyArray) -> tuple[Array, PyTree]:
        """Actions as of :meth:`act`, and extras, ``[B, ...]``, which come back as :attr:`Steps.extras`."""
        return self.act(params, observation, key), ()

    def apply(
        self, params: PyTree, optimizer: PyTree, gradient: PyTree, *, scale: float | Array = 1.0
    ) -> tuple[PyTree, PyTree]:
        """One optimiser step, ``scale`` times as long: new parameters and optimiser state."""
        updates, optimizer = self.transformation().update(gradient, optimizer, params)
        updates = jax.tree.map(lambda x: scale * x, updates)
        return optax.apply_updates(params, updates), optimizer

    def outputs(self, params: PyTree, experience: Any) -> Distribution:
        """The policy at every step of a collection, leaves ``[N, ...]``; only learners with a stochastic policy."""
        raise NotImplementedError

    def representations(self, params: PyTree, batch: Batch) -> tuple[Float[Array, "N f"], ...]:
        """What each of the networks makes of its input, before its last layer; for strategies that compare them."""
        raise NotImplementedError

    @abc.abstractmethod
    def learn(
        self, agent: Agent, experience: Any, objective: Objective, update_context: UpdateContext
    ) -> tuple[Agent, dict[str, Array]]:
        """One local update from the experience of one collection; returns metrics as scalars."""


MANY_STEPS = 2000
"""Of so many steps of one agent the gradient keeps a processor busy, with or without those of other agents."""


class EpisodeLearner(Learner):
    """A learner whose loss, over whole episodes, agents and servers both differentiate."""

    provides: ClassVar[frozenset[str]] = frozenset({"gradient", "distribution"})
    longest_gradient: float | None = eqx.field(static=True, default=None)
    """What the gradient of each episode is clipped to."""

    def clipping_episodes(self, bound: float | None) -> EpisodeLearner:
        """With gradients of episodes clipped."""
        return self if bound is None else dataclasses.replace(self, longest_gradient=bound)

    @abc.abstractmethod
    def distribution(self, params: Policy, episodes: Episodes) -> Distribution:
        """The policy at every step, ``[T, B, ...]``."""

    def outputs(self, params: Policy, experience: Episodes) -> Distribution:
        """The policy at every step, ``[T * B, ...]``."""
        return flatten_steps(self.distribution(params, experience))

    def log_prob(self, params: Policy, episodes: Episodes) -> Float[Array, "T B"]:
        """Log-probability of each action taken, 0 on padding."""
        return jnp.where(episodes.valid, self.distribution(params, episodes).log_prob(episodes.action), 0.0)

    @abc.abstractmethod
    def loss(self, params: Policy, episodes: Episodes, *, ratio: Float[Array, "T B"] | float = 1.0) -> Float[Array, ""]:
        """The loss; ``ratio`` weights each step (importance sampling)."""

    def gradient(self, params: Policy, episodes: Episodes, *, ratio: Float[Array, "T B"] | float = 1.0) -> PyTree:
        """The gradient of :meth:`loss`; with :attr:`longest_gradient`, the mean over episodes of the clipped ones.

        The two are the same where nothing is clipped and no episode's loss depends on another (:attr:`coupling`).
        """

        numbers, rest = eqx.partition(self, eqx.is_array)

        def of(numbers: EpisodeLearner, params: Policy, episodes: Episodes, ratio: Array | float) -> PyTree:
            learner = eqx.combine(numbers, rest)
            return jax.grad(lambda p: learner.loss(p, episodes, ratio=ratio))(params)

        bound, processor = self.longest_gradient, jax.default_backend() == "cpu"
        ratios = jnp.broadcast_to(jnp.asarray(ratio), episodes.valid.shape)
        if bound is None:
            if not processor or episodes.valid.size < MANY_STEPS:
                return of(numbers, params, episodes, ratio)
            # Of agents one after the other, as of episodes below. Nothing traced may be in the function itself, as
            # settings are that runs of one program differ in.
            return jax.custom_batching.sequential_vmap(of)(numbers, params, episodes, ratios)

        def of_one(inputs: tuple[Episodes, Array]) -> PyTree:
            # With an axis of one episode, as losses are of batches.
            episode, ratio = jax.tree.map(lambda x: jnp.expand_dims(x, min(1, x.ndim)), inputs)
            return clipped(of(numbers, params, episode, ratio), bound)

        inputs = jax.tree.map(lambda x: jnp.moveaxis(x, min(1, x.ndim - 1), 0), (episodes, ratios))
        # One after the other, what networks make of an episode fits a processor's cache; side by side it is slower than
        # without a bound.
        each = jax.lax.map(of_one, inputs) if processor else jax.vmap(of_one)(inputs)
        return jax.tree.map(lambda x: x.sum(0) / jnp.maximum(episodes.count, 1), each)

    @abc.abstractmethod
    def surrogate(self, params: Policy, episodes: Episodes, taken: Float[Array, "T B"]) -> Float[Array, ""]:
        """An estimate of the objective's negative at ``params`` from episodes of another policy.

        ``taken`` are that policy's log-probabilities, ``[T, B]``. At that policy itself the gradient is that of
        :meth:`loss`.
        """

    def learn(
        self, agent: Agent, experience: Episodes, objective: Objective, update_context: UpdateContext
    ) -> tuple[Agent, dict[str, Array]]:
        """One gradient step."""
        own = self.outputs(agent.params, experience)
        reference = objective.prepare(self, experience, own)
        taken = jax.lax.stop_gradient(self.log_prob(agent.params, experience))

        def total(params: Policy) -> Array:
            batch = Batch(
                flatten_steps(experience.observation),
                flatten_steps(experience.action),
                experience.valid.ravel(),
                self.outputs(params, experience),
                (self.log_prob(params, experience) - taken).ravel(),
                reference,
            )
            return self.loss(params, experience) + objective.penalty(params, batch)

        loss, gradient = jax.value_and_grad(total)(agent.params)
        gradient, notes = objective.correct(gradient, agent.params, objective.start(agent.params))
        params, optimizer = self.apply(agent.params, agent.optimizer, gradient)
        return Agent(params, optimizer, agent.memory, objective.keep(agent.private, notes)), {"loss": loss}


def flatten_steps(tree: PyTree) -> Any:
    """Leaves ``[T, B, ...]`` as ``[T * B, ...]``."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)


learners: Registry[Learner] = Registry("learner", "fedrax.learners")
