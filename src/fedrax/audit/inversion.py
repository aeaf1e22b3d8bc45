"""What a gradient of a policy says of the episodes that it comes from.

In closed form, of any policy whose first layer is dense: its weights' gradient is the sum over steps of observation
times the loss's derivative by the layer's output, and its bias's that of the derivatives alone. Their ratio is the
observation itself where the sum has one term, and else a mean over the steps, weighted by those derivatives.

By search: episodes whose gradient points where the one that was seen does (Geiping et al., 2020, equation 4; the idea
is Zhu et al.'s, 2019), and, where the environment is known, whose steps follow from each other: without, other episodes
fit as well.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PyTree

from fedrax.audit.dynamics import inconsistency
from fedrax.environments.base import NativeEnvironment
from fedrax.learners.distributions import Categorical, Distribution
from fedrax.learners.encoders import Flatten
from fedrax.learners.networks import Dense
from fedrax.privacy.clip import clipped

STEP = 0.05
"""Of Adam, in standard deviations of an observation's numbers."""
PRIOR = 0.1
"""Weight of the mean square of what steps are off the environment's, in deviations of its changes."""


def first_layer(policy: Any) -> Dense | None:
    """The layer that sees observations as they are, of a policy or its gradient; None where another comes before."""
    layers = getattr(policy, "layers", None) or getattr(policy, "trunk", None)
    encoder = getattr(policy, "encoder", None)
    if not layers or not isinstance(encoder, Flatten) or layers[0].bias is None:
        return None
    found: Dense = layers[0]
    return found


def weighted_observation(gradient: Any) -> Float[Array, " o"]:
    """The mean of a gradient's observations that its first layer shows, by the unit with the largest derivative.

    Exactly the observation where the gradient is of one step; NaN where the gradient is 0.
    """
    layer = first_layer(gradient)
    assert layer is not None
    assert layer.bias is not None
    unit = jnp.argmax(jnp.abs(layer.bias))
    weight = layer.weight.T if layer.by_output else layer.weight
    return weight[:, unit] / layer.bias[unit]


class Known(NamedTuple):
    """What the attacker knows of the episodes: how long they are and what they were rewarded with."""

    weights: Float[Array, "T B"]
    """Of the steps' scores, which follow from rewards."""
    valid: Bool[Array, "T B"]
    mean: Float[Array, " o"]
    """Of observations."""
    deviation: Float[Array, " o"]
    change: Float[Array, " o"]
    """Deviation of what a step changes."""


class Guess(NamedTuple):
    """Episodes as the search moves them."""

    observation: Float[Array, "T B o"]
    """In deviations from the mean."""
    action: Float[Array, "T B a"]
    """Logits of discrete actions; real ones as they are."""


@eqx.filter_jit
def searched(
    policy: Any,
    environment: NativeEnvironment | None,
    seen: PyTree,
    known: Known,
    starts: Guess,
    clip: float | None,
    iterations: int,
) -> tuple[Float[Array, "T B o"], Float[Array, "T B a"]]:
    """Observations, and actions (scores of each discrete one, or real), of the best of several searches by Adam.

    Args:
        policy: at which the gradient was taken.
        environment: whose steps the episodes take, and whose states are its observations; None: not known.
        seen: the gradient, or what became of it.
        known: see :class:`Known`.
        starts: where each search starts, leaves ``[searches, T, B, ...]``.
        clip: what each episode's gradient was clipped to.
        iterations: steps of Adam.
    """
    optimiser = optax.adam(optax.cosine_decay_schedule(STEP, iterations))

    def objective(guess: Guess) -> Array:
        observation = known.mean + known.deviation * guess.observation
        gradient = gradient_of(policy, observation, guess.action, known, clip)
        away = 1.0 - cosine(gradient, seen)
        if environment is None:
            return away
        return away + PRIOR * inconsistency(environment, observation, guess.action, known.valid, known.change)

    def search(start: Guess) -> tuple[Array, Guess]:
        def step(carry: tuple[Guess, Any], _: None) -> tuple[tuple[Guess, Any], None]:
            guess, state = carry
            updates, state = optimiser.update(jax.grad(objective)(guess), state)
            return (optax.apply_updates(guess, updates), state), None

        (guess, _), _ = jax.lax.scan(step, (start, optimiser.init(start)), None, iterations)
        return objective(guess), guess

    losses, guesses = jax.lax.map(search, starts)
    best = jnp.argmin(jnp.where(jnp.isfinite(losses), losses, jnp.inf))
    guess = jax.tree.map(lambda x: x[best], guesses)
    return known.mean + known.deviation * guess.observation, guess.action


def gradient_of(
    policy: Any, observation: Float[Array, "T B o"], action: Float[Array, "T B a"], known: Known, clip: float | None
) -> PyTree:
    """The sum over episodes of the (clipped) gradients of ``-sum_t A_t log pi(a_t | s_t)``.

    Of discrete actions the mean under the softmax of their scores, so that it can be differentiated by them.
    """

    def of_one(observation: Array, action: Array, weights: Array, valid: Array) -> PyTree:
        def loss(policy: Any) -> Array:
            return -jnp.where(valid, weights * _log_prob(policy(observation), action), 0.0).sum()

        gradient = jax.grad(loss)(policy)
        return gradient if clip is None else clipped(gradient, clip)

    each = jax.vmap(of_one, in_axes=1)(observation, action, known.weights, known.valid)
    return jax.tree.map(lambda x: x.sum(0), each)


def cosine(one: PyTree, other: PyTree) -> Float[Array, ""]:
    """Of the angle between two trees of arrays as vectors."""

    def inner(one: PyTree, other: PyTree) -> Array:
        products = jax.tree.map(lambda x, y: (x * y).sum(), one, other)
        return jnp.asarray(sum(jax.tree.leaves(products)))

    return inner(one, other) / jnp.sqrt(inner(one, one) * inner(other, other) + 1e-30)


def _log_prob(distribution: Distribution, action: Float[Array, "T a"]) -> Float[Array, " T"]:
    if isinstance(distribution, Categorical):
        return (jax.nn.softmax(action) * jax.nn.log_softmax(distribution.logits)).sum(-1)
    return distribution.log_prob(action)
