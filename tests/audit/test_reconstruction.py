"""Episodes from gradients: what is exact, what a search finds, and how errors are measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.audit.base import Effort
from fedrax.audit.dynamics import observes_states, state_from
from fedrax.audit.inversion import (
    Known,
    cosine,
    first_layer,
    gradient_of,
    weighted_observation,
)
from fedrax.audit.reconstruction import Population, Reconstruction
from fedrax.environments.base import Box, Discrete, Episodes, Spaces
from fedrax.environments.native import native_environments
from fedrax.learners.policy_gradient import PolicyGradient

from audited import CARTPOLE, TRAJECTORY, setting_of

KEY = jax.random.key(0)


def made(hidden, actions, steps, episodes=1, observation=4):
    """A learner, a policy with other numbers than zeros everywhere, and random episodes."""
    learner = PolicyGradient(hidden=hidden, baseline="none", normalisation="trajectories")
    spaces = Spaces(Box((observation,), (-1.0,) * observation, (1.0,) * observation), Discrete(actions))
    policy = learner.init_params(KEY, spaces)
    policy = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), policy)
    draws = np.random.default_rng(steps)
    valid = np.ones((steps, episodes), bool)
    return (
        learner,
        policy,
        Episodes(
            jnp.asarray(draws.normal(size=(steps, episodes, observation)), jnp.float32),
            jnp.asarray(draws.integers(0, actions, (steps, episodes)), jnp.int32),
            jnp.asarray(draws.normal(size=(steps, episodes)), jnp.float32),
            jnp.asarray(valid),
            jnp.zeros(episodes, bool),
        ),
    )


@pytest.mark.parametrize("hidden", [(), (8,), (8, 8)])
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_one_step_is_recovered_exactly(hidden, scale):
    """Whatever the gradient is scaled with, as clipping does."""
    learner, policy, episodes = made(hidden, actions=3, steps=1)
    gradient = jax.tree.map(lambda x: scale * x, learner.gradient(policy, episodes))
    np.testing.assert_allclose(weighted_observation(gradient), episodes.observation[0, 0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("actions", [2, 3])
def test_of_an_episode_a_linear_softmax_shows_score_weighted_sums_and_no_more(actions):
    """Column j of the weights' gradient is sum_t d_tj s_t, with d_t = -A_t (e_a - pi(s_t)); the columns add up to 0."""
    learner, policy, episodes = made((), actions, steps=5)
    gradient = first_layer(learner.gradient(policy, episodes))
    states, taken = np.asarray(episodes.observation[:, 0]), np.asarray(episodes.action[:, 0])
    layer = first_layer(policy)
    logits = states @ np.asarray(layer.weight) + np.asarray(layer.bias)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    scores = -np.asarray(learner.weights(episodes)) * (np.eye(actions)[taken] - probabilities)
    np.testing.assert_allclose(gradient.weight, states.T @ scores, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradient.bias, scores.sum(0), rtol=1e-4, atol=1e-5)
    assert np.linalg.matrix_rank(np.asarray(gradient.weight), tol=1e-4) == actions - 1
    unit = np.abs(scores.sum(0)).argmax()
    expected = scores[:, unit] @ states / scores[:, unit].sum()
    found = weighted_observation(learner.gradient(policy, episodes))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.training
def test_candidates_have_the_gradient_that_agents_send():
    """At the true episodes, with actions that are certain, the search's objective is 0."""
    learner, policy, episodes = made((8,), actions=3, steps=6, episodes=3)
    one = jnp.ones(4)
    known = Known(learner.weights(episodes), episodes.valid, 0 * one, one, one)
    certain = 50.0 * jax.nn.one_hot(episodes.action, 3)
    for bound in (None, 0.3):
        sent = learner.clipping_episodes(bound).gradient(policy, episodes)
        candidate = gradient_of(policy, episodes.observation, certain, known, bound)
        assert float(cosine(candidate, sent)) == pytest.approx(1, abs=1e-5)
        other = gradient_of(policy, episodes.observation[::-1], certain, known, bound)
        assert float(cosine(other, sent)) < 0.99


def test_states_that_are_observed_are_known():
    cartpole = native_environments.build("CartPole-v1", {})
    assert observes_states(cartpole)
    assert tuple(map(float, state_from(cartpole)(jnp.arange(4.0)))) == (0, 1, 2, 3)
    assert not observes_states(native_environments.build("Pendulum-v1", {}))


def test_errors_are_over_those_of_a_guess_without_the_message():
    _, _, episodes = made((), 2, steps=6, episodes=4)
    _, _, others = made((), 2, steps=7, episodes=4)
    population, true, valid = Population(others), np.asarray(episodes.observation), np.asarray(episodes.valid)
    assert population.error_of(episodes, true, valid) == pytest.approx(0, abs=1e-5)
    assert population.error_of(episodes, true[::-1, ::-1], valid) == pytest.approx(0, abs=1e-5)
    assert 0 < population.error_of(episodes, true + 0.1 * population.deviation, valid) < 0.3
    mean = np.broadcast_to(population.mean, true.shape)
    assert population.error_of(episodes, mean, valid) >= 1
    assert Population(episodes).error_of(episodes, mean, valid) == 1.0
    assert population.error_of(episodes, np.full(true.shape, np.nan), valid) == 1.0
    # Its square has no number of 32 bits.
    assert population.error_of(episodes, np.full_like(true, 1e30), valid) > 1e20
    rows, columns = population.assigned(episodes, np.full(true.shape, np.nan), valid)
    assert sorted(rows) == sorted(columns) == list(range(valid.sum()))


@pytest.mark.training
def test_without_protection_episodes_are_found_and_noise_hides_them():
    plain = Reconstruction().answers(setting_of("learner.hidden=[16,16]"), Effort(), KEY)
    assert plain["one_step_error"] < 1e-3
    assert plain["state_error_1"] < 0.6
    noisy = setting_of("learner.hidden=[16,16]", *TRAJECTORY, "privacy.noise=8")
    hidden = Reconstruction().answers(noisy, Effort(), KEY)
    assert hidden["one_step_error"] > 1
    assert hidden["state_error_1"] > 0.9


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["environment.native=false", "environment.backend=gymnasium"], "not in JAX"),
        (["strategy=fedavg", "strategy.batch=4"], "no gradients of episodes"),
    ],
)
def test_where_it_does_not_apply_it_says_why(overrides, words):
    source = [x for x in CARTPOLE if not (x.startswith("strategy") and overrides[0].startswith("strategy"))]
    assert words in Reconstruction().inapplicable(setting_of(*overrides, source=source))
