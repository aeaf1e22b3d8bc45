"""The policy-gradient learner against exact gradients, and on problems whose solution is known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.environments.base import Box, Discrete, Episodes, Spaces
from fedrax.learners.base import MANY_STEPS, Objective, UpdateContext, learners
from fedrax.learners.distributions import Categorical, Gaussian

DISCRETE = Spaces(Box((2,), (-1.0, -1.0), (1.0, 1.0)), Discrete(3))
CONTINUOUS = Spaces(Box((2,), (-1.0, -1.0), (1.0, 1.0)), Box((2,), (-1.0, -1.0), (1.0, 1.0)))


def batch(key, spaces, steps=5, episodes=4):
    """Random episodes of differing length."""
    keys = jax.random.split(key, 4)
    lengths = jax.random.randint(keys[0], (episodes,), 1, steps + 1)
    action = (
        jax.random.randint(keys[1], (steps, episodes), 0, 3)
        if isinstance(spaces.action, Discrete)
        else jax.random.normal(keys[1], (steps, episodes, 2))
    )
    return Episodes(
        observation=jax.random.normal(keys[2], (steps, episodes, 2)),
        action=action,
        reward=jax.random.normal(keys[3], (steps, episodes)),
        valid=jnp.arange(steps)[:, None] < lengths,
        terminated=jnp.ones(episodes, bool),
    )


def test_categorical_sampling_follows_its_probabilities():
    logits = jnp.log(jnp.asarray([0.2, 0.5, 0.3]))
    samples = Categorical(jnp.tile(logits, (20_000, 1))).sample(jax.random.key(0))
    np.testing.assert_allclose(np.bincount(samples, minlength=3) / 20_000, [0.2, 0.5, 0.3], atol=0.02)


def test_categorical_known_values():
    distribution = Categorical(jnp.log(jnp.asarray([0.25, 0.75])))
    assert distribution.log_prob(jnp.asarray(1)) == pytest.approx(np.log(0.75), abs=1e-6)
    assert distribution.entropy() == pytest.approx(-(0.25 * np.log(0.25) + 0.75 * np.log(0.75)), abs=1e-6)
    assert int(distribution.mode()) == 1


def test_gaussian_known_values():
    distribution = Gaussian(jnp.asarray([0.0, 1.0]), jnp.asarray([1.0, 2.0]))
    expected = -0.5 * np.log(2 * np.pi) + (-0.5 * np.log(2 * np.pi) - np.log(2.0) - 0.5)
    assert distribution.log_prob(jnp.asarray([0.0, 3.0])) == pytest.approx(expected, abs=1e-6)
    assert distribution.entropy() == pytest.approx(np.log(2 * np.pi * np.e) + np.log(2.0), abs=1e-5)
    floored = Gaussian(jnp.zeros(1), jnp.full(1, 1e-6), floor=-1e5)
    assert floored.log_prob(jnp.ones(1)) == -1e5


def test_reference_policies_are_bounded():
    """Spec: two-action probabilities stay below 0.881; the reference's Gaussian deviation below 0.1345."""
    learner = learners.build("policy-gradient", {"logits": "tanh", "gaussian": "bounded", "initialisation": "uniform"})
    policy = learner.init_params(jax.random.key(0), DISCRETE)
    extreme = jax.tree.map(lambda x: x * 100, policy)
    observation = jax.random.normal(jax.random.key(1), (50, 2))
    assert jax.nn.softmax(extreme(observation).logits).max() <= np.exp(2) / (np.exp(2) + 2) + 1e-6
    continuous = learner.init_params(jax.random.key(0), CONTINUOUS)
    deviation = jax.tree.map(lambda x: x * 100, continuous)(observation).deviation
    assert deviation.max() <= np.tanh(np.exp(-2)) + 1e-6
    assert np.abs(continuous(observation).mean).max() <= 1.0


@pytest.mark.training
@pytest.mark.parametrize("spaces", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
@pytest.mark.parametrize("normalisation", ["steps", "trajectories"])
def test_gradient_is_the_weighted_sum_of_scores(spaces, normalisation):
    learner = learners.build("policy-gradient", {"normalisation": normalisation, "hidden": (4,)})
    policy = learner.init_params(jax.random.key(0), spaces)
    episodes = batch(jax.random.key(1), spaces)
    weights = learner.weights(episodes)
    total = jax.tree.map(jnp.zeros_like, policy)
    for t, e in zip(*np.nonzero(episodes.valid), strict=True):

        def log_prob(p, t=t, e=e):
            return p(episodes.observation[t, e]).log_prob(episodes.action[t, e])

        total = jax.tree.map(lambda s, g, w=weights[t, e]: s - w * g, total, jax.grad(log_prob)(policy))
    count = episodes.valid.sum() if normalisation == "steps" else 4
    expected = jax.tree.map(lambda x: x / count, total)
    got = learner.gradient(policy, episodes)
    for g, e in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(g, e, atol=2e-6)


@pytest.mark.training
def test_padding_changes_nothing():
    learner = learners.build("policy-gradient", {"hidden": (4,)})
    policy = learner.init_params(jax.random.key(0), DISCRETE)
    episodes = batch(jax.random.key(1), DISCRETE)
    padded = jax.tree.map(lambda x: jnp.concatenate([x, jnp.full_like(x[:2], 3)]) if x.ndim > 1 else x, episodes)
    padded = Episodes(
        padded.observation,
        padded.action % 3,
        padded.reward,
        jnp.concatenate([episodes.valid, jnp.zeros((2, 4), bool)]),
        padded.terminated,
    )
    for a, b in zip(
        jax.tree.leaves(learner.gradient(policy, episodes)),
        jax.tree.leaves(learner.gradient(policy, padded)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("estimator", ["reinforce", "gpomdp"])
def test_a_bandit_is_solved(estimator):
    """One step, reward 1 for action 2 and 0 otherwise: the probability of action 2 goes to 1."""
    learner = learners.build(
        "policy-gradient",
        {
            "estimator": estimator,
            "baseline": "average",
            "normalisation": "trajectories",
            "learning_rate": 0.05,
        },
    )
    agent = learner.init(jax.random.key(0), DISCRETE)
    observation = jnp.zeros((1, 64, 2))

    @jax.jit
    def update(agent, key):
        action = learner.act(agent.params, observation[0], key)[None]
        episodes = Episodes(
            observation,
            action,
            (action == 2).astype(jnp.float32),
            jnp.ones((1, 64), bool),
            jnp.ones(64, bool),
        )
        return learner.learn(agent, episodes, Objective(), UpdateContext(key, jnp.asarray(0.0)))[0]

    for key in jax.random.split(jax.random.key(1), 60):
        agent = update(agent, key)
    assert jax.nn.softmax(agent.params(jnp.zeros(2)).logits)[2] > 0.95


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_with_a_bound_the_gradient_is_the_mean_of_every_episodes_clipped_one(device, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: device)
    learner = learners.build("policy-gradient", {"normalisation": "trajectories", "baseline": "none"})
    policy, episodes = learner.init_params(jax.random.key(0), DISCRETE), batch(jax.random.key(1), DISCRETE)

    def alone(episode):
        return jax.tree.map(lambda x: x[..., [episode]] if x.ndim < 3 else x[:, [episode]], episodes)

    gradients = [learner.gradient(policy, alone(episode)) for episode in range(4)]
    bound, rows = 2.0, [np.concatenate([np.ravel(x) for x in jax.tree.leaves(each)]) for each in gradients]
    norms = np.linalg.norm(rows, axis=1)
    assert min(norms) < bound < max(norms)
    expected = np.mean([row * min(1.0, bound / norm) for row, norm in zip(rows, norms, strict=True)], axis=0)
    gradient = learner.clipping_episodes(bound).gradient(policy, episodes)
    np.testing.assert_allclose(np.concatenate([np.ravel(x) for x in jax.tree.leaves(gradient)]), expected, atol=1e-5)


@pytest.mark.parametrize(("device", "loops"), [("cpu", True), ("gpu", False)])
def test_gradients_of_long_batches_are_those_of_each_agent_alone(device, loops, monkeypatch):
    """Under the maps of agents and seeds, with policies of their own and one that all share."""
    monkeypatch.setattr(jax, "default_backend", lambda: device)
    learner = learners.build("policy-gradient", {"normalisation": "trajectories", "baseline": "none"})
    draw = jax.vmap(jax.vmap(lambda key: batch(key, DISCRETE, steps=MANY_STEPS // 4)))
    episodes = draw(jax.random.split(jax.random.key(1), (2, 3)))
    own = jax.vmap(lambda key: learner.init_params(key, DISCRETE))(jax.random.split(jax.random.key(0), 3))
    shared = jax.tree.map(lambda x: x[0], own)
    for policies, axis in ((own, 0), (shared, None)):
        over_agents = jax.vmap(learner.gradient, (axis, 0))
        mapped = jax.jit(jax.vmap(over_agents, (None, 0)))
        # That of the returns over time is there in any case.
        assert (mapped.lower(policies, episodes).as_text().count("stablehlo.while") > 1) == loops
        measured = mapped(policies, episodes)
        for seed, agent in np.ndindex(2, 3):
            policy = policies if axis is None else jax.tree.map(lambda x, agent=agent: x[agent], policies)
            expected = learner.gradient(policy, jax.tree.map(lambda x, at=(seed, agent): x[at], episodes))
            jax.tree.map(
                lambda x, y, at=(seed, agent): np.testing.assert_allclose(x[at], y, rtol=1e-4, atol=1e-5),
                measured,
                expected,
            )


def test_gradients_of_long_batches_know_settings_that_are_traced():
    """As those are that runs of one program differ in."""
    learner = learners.build("policy-gradient", {"discount": 0.9})
    policy = learner.init_params(jax.random.key(0), DISCRETE)
    episodes = jax.vmap(lambda key: batch(key, DISCRETE, steps=MANY_STEPS // 4))(jax.random.split(jax.random.key(1), 2))

    @jax.jit
    def mapped(discount):
        return jax.vmap(dataclasses.replace(learner, discount=discount).gradient, (None, 0))(policy, episodes)

    first = jax.tree.map(lambda x: x[0], episodes)
    for discount in (0.9, 0.5):
        expected = dataclasses.replace(learner, discount=discount).gradient(policy, first)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x[0], y, rtol=1e-4, atol=1e-6), mapped(discount), expected)
