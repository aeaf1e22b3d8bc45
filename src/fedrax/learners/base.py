"""What a learner is: what ONE agent learns from its own experience, blind to the federation."""

from __future__ import annotations

import abc
from typing import ClassVar, Literal

import equinox as eqx
import jax
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from fedrax.environments.base import Episodes, Spaces
from fedrax.learners.networks import Policy
from fedrax.registry import Registry, option


class Agent(eqx.Module):
    """One agent's state. In a federation every leaf has a leading axis ``[agents]``."""

    params: PyTree
    """The networks the agent acts with and learns."""
    optimizer: PyTree
    """The optimiser's state (moments and counts)."""
    memory: PyTree = ()
    """Experience kept between rounds (a replay buffer); on-policy learners keep none."""
    private: PyTree = ()
    """What the strategy keeps on the agent: gradients, control variates, earlier models, peers' encoders."""


class Objective(eqx.Module):
    """What a strategy adds to local learning; this one adds nothing."""

    def penalty(self, params: PyTree, experience: Episodes) -> Float[Array, ""] | float:
        """A term of the loss."""
        return 0.0

    def correct(self, gradient: PyTree, params: PyTree) -> PyTree:
        """A change of the gradient before the optimiser sees it."""
        return gradient


class Learner(eqx.Module):
    """Pure functions of one agent; the runtime maps them over the agents' axis."""

    name: ClassVar[str]

    optimizer: Literal["adam", "sgd"] = option(
        "adam", "optimiser of this learner's updates, at agents and at the server"
    )
    learning_rate: float = option(1e-3, "step size", minimum=0)
    max_gradient_norm: float | None = option(
        None,
        "gradients longer than this are scaled down to it before the optimiser",
        unit="Euclidean norm",
        minimum=0,
    )

    def transformation(self) -> optax.GradientTransformation:
        """The optimiser, as agents and servers use it."""
        step = {"adam": optax.adam, "sgd": optax.sgd}[self.optimizer](self.learning_rate)
        if self.max_gradient_norm is None:
            return step
        return optax.chain(optax.clip_by_global_norm(self.max_gradient_norm), step)

    def check(self, spaces: Spaces) -> None:
        """Raises :class:`FedraxError` where the learner does not fit the environment's spaces."""

    def init(self, key: PRNGKeyArray, spaces: Spaces) -> Agent:
        """A fresh agent."""
        params = self.init_params(key, spaces)
        return Agent(params, self.transformation().init(params))

    @abc.abstractmethod
    def init_params(self, key: PRNGKeyArray, spaces: Spaces) -> Policy:
        """Fresh parameters."""

    @abc.abstractmethod
    def act(self, params: Policy, observation: Array, key: PRNGKeyArray | None) -> Array:
        """Actions for a batch of observations ``[B, *o]``: sampled with ``key``, greedy without."""

    @abc.abstractmethod
    def log_prob(self, params: Policy, episodes: Episodes) -> Float[Array, "T B"]:
        """Log-probability of each action taken."""

    @abc.abstractmethod
    def loss(self, params: Policy, episodes: Episodes, *, ratio: Float[Array, "T B"] | float = 1.0) -> Float[Array, ""]:
        """The loss that agents and servers both differentiate; ``ratio`` weights each step (importance sampling)."""

    def gradient(self, params: Policy, episodes: Episodes, *, ratio: Float[Array, "T B"] | float = 1.0) -> PyTree:
        """The gradient of :meth:`loss`."""
        return jax.grad(lambda p: self.loss(p, episodes, ratio=ratio))(params)

    def apply(self, params: PyTree, optimizer: PyTree, gradient: PyTree) -> tuple[PyTree, PyTree]:
        """One optimiser step: new parameters and optimiser state."""
        updates, optimizer = self.transformation().update(gradient, optimizer, params)
        return optax.apply_updates(params, updates), optimizer

    def learn(self, agent: Agent, episodes: Episodes, objective: Objective) -> tuple[Agent, dict[str, Array]]:
        """One local update from the experience of one collection; returns metrics as scalars."""

        def total(params: Policy) -> Array:
            return self.loss(params, episodes) + objective.penalty(params, episodes)

        loss, gradient = jax.value_and_grad(total)(agent.params)
        gradient = objective.correct(gradient, agent.params)
        params, optimizer = self.apply(agent.params, agent.optimizer, gradient)
        return Agent(params, optimizer, agent.memory, agent.private), {"loss": loss}


learners: Registry[Learner] = Registry("learner", "fedrax.learners")
