"""Policy gradients from whole episodes: REINFORCE, GPOMDP and the FedPG-BR reference's whitened reward-to-go."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from fedrax.environments.actions import MEANING, Actions, Bounds
from fedrax.environments.base import Episodes, Observation, Spaces
from fedrax.learners.base import EpisodeLearner, learners
from fedrax.learners.distributions import Distribution
from fedrax.learners.encoders import TORSO, TorsoKind, check_torso
from fedrax.learners.networks import Activation, Initialisation, Policy
from fedrax.learners.policies import make_policy
from fedrax.learners.returns import Baseline, Estimator, step_weights
from fedrax.registry import Number, option


@learners.register("policy-gradient")
class PolicyGradient(EpisodeLearner):
    """Vanilla policy gradient on whole episodes, without a critic.

    The weights of the steps' scores (formulas: learners/returns.py) are by default GPOMDP's, less the mean of the
    batch's other episodes: an unbiased estimate of the gradient of the discounted return, up to the batch's number of
    steps where the sum is divided by that. Whitened reward-to-go, which the code behind FedPG-BR's figures has and
    its presets and reference mode keep, is biased: each episode's weights are standardised by themselves, so they
    tell its steps apart but not good episodes from bad ones. Where the reward of an action comes late in the
    episode, it learns to avoid that action; where rewards follow actions closely it is quick.
    """

    estimator: Estimator = option(
        "gpomdp",
        "weight of each step's score: discounted reward-to-go (gpomdp), the episode's discounted return (reinforce), "
        "or reward-to-go standardised within each episode (whitened: biased, and wrong where reward comes late)",
    )
    baseline: Baseline = option(
        "leave-one-out",
        "what is subtracted from the rewards (reinforce and gpomdp only): the mean of the batch's other episodes "
        "(leave-one-out, unbiased), of the whole batch per step (average) or over all steps (constant; the paper of "
        "FedPG-BR), or nothing",
    )
    normalisation: Literal["steps", "trajectories"] = option(
        "steps",
        "what the sum over all steps is divided by: the number of steps (reference) or of trajectories (paper)",
    )
    discount: Number = option(0.99, "gamma", minimum=0, maximum=1, argument=True)
    torso: TorsoKind = option("auto", TORSO)
    hidden: tuple[int, ...] = option((64, 64), "widths of the hidden layers", minimum=1)
    activation: Activation = option("tanh", "activation of the hidden layers")
    logits: Activation = option("linear", "activation on the logits of a discrete policy (the reference uses tanh)")
    gaussian: Literal["free", "bounded"] = option(
        "free",
        "continuous policy: one free deviation per component, or the reference's state-dependent one <= 0.1345",
    )
    action_bounds: Bounds = option("clip", MEANING)
    initialisation: Initialisation = option(
        "orthogonal", "distribution of the initial weights (the reference's is uniform)"
    )

    def check(self, spaces: Spaces) -> None:
        """Raises :class:`FedraxError` for convolutions on what is no image."""
        check_torso(self.torso, spaces.observation)

    @property
    def coupling(self) -> str | None:
        """Baselines over the batch, and its number of steps."""
        if self.normalisation == "steps":
            return "learner.normalisation=steps divides by the steps of all: set learner.normalisation=trajectories"
        if self.estimator != "whitened" and self.baseline != "none":
            return f"learner.baseline={self.baseline} is a mean over all: set learner.baseline=none"
        return None

    def actions(self, spaces: Spaces) -> Actions:
        """As ``action_bounds`` says."""
        return Actions(spaces.action, self.action_bounds)

    def init_params(self, key: PRNGKeyArray, spaces: Spaces) -> Policy:
        """A fresh policy network."""
        return make_policy(
            key,
            spaces,
            torso=self.torso,
            hidden=self.hidden,
            activation=self.activation,
            logits=self.logits,
            gaussian=self.gaussian,
            initialisation=self.initialisation,
        )

    def act(self, params: Policy, observation: Observation, key: PRNGKeyArray | None) -> Array:
        """Actions ``[B]`` or ``[B, a]`` for observations ``[B, *o]``."""
        distribution = params(observation)
        return distribution.mode() if key is None else distribution.sample(key)

    def distribution(self, params: Policy, episodes: Episodes) -> Distribution:
        """The policy at every step, ``[T, B, ...]``."""
        return params(episodes.observation)

    def weights(self, episodes: Episodes) -> Float[Array, "T B"]:
        """The weight of each step's score function."""
        return step_weights(
            episodes.reward,
            episodes.valid,
            estimator=self.estimator,
            discount=self.discount,
            baseline=self.baseline,
        )

    def loss(self, params: Policy, episodes: Episodes, *, ratio: Float[Array, "T B"] | float = 1.0) -> Float[Array, ""]:
        """``-(1/n) sum_i sum_t ratio_t A_t log pi(a_t | s_t)``, n steps or trajectories (``normalisation``)."""
        weights = jax.lax.stop_gradient(self.weights(episodes) * ratio)
        total = episodes.steps if self.normalisation == "steps" else episodes.count
        return -(weights * self.log_prob(params, episodes)).sum() / jnp.maximum(total, 1)

    def surrogate(self, params: Policy, episodes: Episodes, taken: Float[Array, "T B"]) -> Float[Array, ""]:
        """``-(1/n) sum_i sum_t A_t pi(a_t | s_t) / pi_0(a_t | s_t)`` (Schulman et al., 2015, equation 14)."""
        ratio = jnp.exp(self.log_prob(params, episodes) - taken)
        total = episodes.steps if self.normalisation == "steps" else episodes.count
        return -(self.weights(episodes) * ratio).sum() / jnp.maximum(total, 1)
