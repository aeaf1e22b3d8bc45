"""Distillation of critics' heads: formulas, the distribution of pseudo-representations, what leaves an agent."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.aggregators.base import aggregators
from fedrax.compatibility import check_strategy
from fedrax.environments.base import Box, Spaces
from fedrax.errors import FedraxError
from fedrax.learners.base import learners
from fedrax.learners.off_policy import as_batch
from fedrax.learners.replay import Transitions
from fedrax.strategies.base import Tools, strategies
from fedrax.strategies.distillation import FromTeacher, Moments, Samples, drawn, moments, pseudo
from fedrax.trees import tree_bytes

AGENTS = 3
SPACES = Spaces(Box((2,), (-1.0,) * 2, (1.0,) * 2), Box((1,), (-1.0,), (1.0,)))
LEARNER = learners.build(
    "td3",
    {
        "actor_layers": (8,),
        "feature_layers": (16,),
        "head_layers": (8,),
        "batch_size": 32,
        "learning_starts": 32,
        "buffer_size": 64,
    },
)


def filled_agents():
    """Agents with networks and replays of their own."""

    def one(key):
        agent = LEARNER.init(key, SPACES)
        keys = jax.random.split(key, 4)
        observation = jax.random.normal(keys[0], (64, 2))
        transitions = Transitions(
            observation, jax.random.uniform(keys[1], (64, 1)), observation[:, 0], observation, jnp.zeros(64)
        )
        replay = agent.memory.replay.add(transitions, jnp.ones(64, bool))
        return dataclasses.replace(agent, memory=dataclasses.replace(agent.memory, replay=replay))

    return jax.vmap(one)(jax.random.split(jax.random.key(0), AGENTS))


def tools(rule="mean"):
    aggregator = aggregators.build(rule, {"tolerated": 1} if rule != "mean" else {})
    return Tools(
        lambda vectors, weights, samples: aggregator(vectors, weights, key=jax.random.key(0)),
        lambda vectors, weights: vectors.mean(0),
        jax.random.key(4),
        jnp.arange(AGENTS),
    )


def started(strategy):
    """The server, and the agents after the first broadcast."""
    agents = filled_agents()
    agents = dataclasses.replace(agents, private=jax.vmap(lambda agent: strategy.private(LEARNER, agent))(agents))
    server = strategy.init(LEARNER, SPACES, agents, jax.random.key(0))
    downlink = strategy.broadcast(server, jax.random.key(0))
    agents = jax.vmap(lambda agent, index: strategy.absorb(agent, downlink, index))(agents, jnp.arange(AGENTS))
    return server, downlink, agents


def emitted(strategy, agents):
    keys = jax.random.split(jax.random.key(2), AGENTS)
    return jax.vmap(lambda agent, key: strategy.emit(LEARNER, agent, key))(agents, keys)


def shifted(agents, part, by):
    """The agents with one part of their networks moved by ``by`` times the agent's number."""
    numbers = jnp.arange(AGENTS, dtype=jnp.float32)

    def move(x):
        return x + by * numbers.reshape(-1, *[1] * (x.ndim - 1))

    moved = jax.tree.map(move, getattr(agents.params, part))
    return dataclasses.replace(agents, params=dataclasses.replace(agents.params, **{part: moved}))


def test_pseudo_representations_have_the_batchs_moments():
    features = 5.0 + jax.random.normal(jax.random.key(0), (400, 3)) @ jnp.array(
        [[1.0, 0.5, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 0.4]]
    )
    draws = jnp.concatenate([pseudo(features, key) for key in jax.random.split(jax.random.key(1), 20)])
    np.testing.assert_allclose(draws.mean(0), features.mean(0), atol=0.06)
    np.testing.assert_allclose(np.cov(draws.T), np.cov(features.T), atol=0.08)
    assert pseudo(features - 5.0, jax.random.key(2)).min() == 0.0


def test_moments_are_the_leading_part_of_the_covariance_and_the_rest_in_trace():
    scales = jnp.array([3.0, 2.0, 0.1, 0.1, 0.1, 0.1])
    features = 1.0 + scales * jax.random.normal(jax.random.key(0), (200, 6))
    covariance = np.cov(np.asarray(features).T)
    mean, factor, rest = moments(features, 2, jax.random.key(1))
    np.testing.assert_allclose(mean, features.mean(0), rtol=1e-5)
    values, vectors = np.linalg.eigh(covariance)
    leading = vectors[:, -2:] @ np.diag(values[-2:]) @ vectors[:, -2:].T
    np.testing.assert_allclose(factor.T @ factor, leading, atol=1e-3)
    np.testing.assert_allclose(rest**2 * 4, values[:-2].sum(), rtol=1e-3)
    whole = moments(features, 6, jax.random.key(1))[1]
    np.testing.assert_allclose(whole.T @ whole, covariance, atol=1e-4)
    still = moments(jnp.ones((8, 4)), 2, jax.random.key(1))
    assert all(np.isfinite(part).all() for part in still)


def test_draws_from_moments_follow_them_and_are_valued_by_the_agents_own_heads():
    head = LEARNER.init_params(jax.random.key(3), SPACES).head
    mean = tuple(4.0 + jax.random.normal(jax.random.key(k), (16,)) for k in range(2))
    factor = tuple(0.3 * jax.random.normal(jax.random.key(k), (5, 16)) for k in range(2))
    samples = drawn(Moments(mean, factor, (jnp.asarray(0.1),) * 2), head, 20_000, jax.random.key(0))
    for index in range(2):
        features = np.asarray(samples.features[index])
        np.testing.assert_allclose(features.mean(0), mean[index], atol=0.05)
        expected = np.asarray(factor[index].T @ factor[index]) + 0.01 * np.eye(16)
        np.testing.assert_allclose(np.cov(features.T), expected, atol=0.06)
        np.testing.assert_allclose(samples.values[index], head[index](samples.features[index])[:, 0], rtol=1e-5)


def test_the_teacher_is_distilled_from_all_heads():
    """Heads that differ by a constant: the best single head is theirs with the mean constant."""
    strategy = strategies.build(
        "distillation",
        {"version": "representations", "epochs": 60, "distillation_decay": 0.0, "distillation_rate": 1e-2},
    )
    head = LEARNER.init_params(jax.random.key(3), SPACES).head
    features = jax.random.normal(jax.random.key(1), (AGENTS, 512, 16))
    constants = jnp.array([-1.0, 0.5, 3.5])
    values = head[0](features)[..., 0] + constants[:, None], head[1](features)[..., 0] - constants[:, None]
    data = Samples((features, features), values)
    optimizer = strategy.transformation().init(head)
    distilled, _ = strategy.distilled(head, optimizer, data, jnp.ones(AGENTS, bool), jax.random.key(0))
    probe = jax.random.normal(jax.random.key(2), (200, 16))
    for index, sign in ((0, 1.0), (1, -1.0)):
        shift = (distilled[index](probe) - head[index](probe)).mean()
        np.testing.assert_allclose(shift, sign * 1.0, atol=0.3)
    one, _ = strategy.distilled(head, optimizer, data, jnp.array([False, False, True]), jax.random.key(0))
    np.testing.assert_allclose((one[0](probe) - head[0](probe)).mean(), 3.5, atol=0.6)


@pytest.mark.training
@pytest.mark.parametrize("version", ["representations", "gaussian", "sccd", "statistics"])
def test_a_round_averages_heads_and_actors_and_keeps_representations(version):
    strategy = strategies.build("distillation", {"version": version, "rank": 4, "epochs": 2, "actor_every": 1})
    strategy.check(LEARNER)
    server, downlink, agents = started(strategy)
    assert not np.array_equal(
        agents.params.features[0].layers[0].weight[0], agents.params.features[0].layers[0].weight[1]
    )
    learned = shifted(shifted(agents, "head", 0.1), "actor", 0.2)
    messages = emitted(strategy, learned)
    after, _ = strategy.combine(LEARNER, server, downlink, messages, jnp.ones(AGENTS), tools())
    mean = jax.tree.map(lambda x: x.mean(0), learned.params.actor)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), after.params.actor, mean)
    averaged = jax.tree.map(lambda x: x.mean(0), learned.params.head)
    distance = max(
        float(jnp.abs(x - y).max())
        for x, y in zip(jax.tree.leaves(after.params.head), jax.tree.leaves(averaged), strict=True)
    )
    teaches = max(
        float(jnp.abs(x - y).max())
        for x, y in zip(jax.tree.leaves(after.teacher), jax.tree.leaves(averaged), strict=True)
    )
    assert teaches > 1e-4, "the teacher is distilled beyond the average"
    if version in ("sccd", "statistics"):
        assert distance < 1e-5, "agents start from the averaged heads"
        assert strategy.round_gradient_steps(LEARNER) == 20
    else:
        jax.tree.map(np.testing.assert_array_equal, after.params.head, after.teacher)
        assert strategy.round_gradient_steps(LEARNER) == 0


@pytest.mark.training
def test_what_the_rule_rejects_is_not_distilled():
    strategy = strategies.build("distillation", {"version": "gaussian", "actor_every": 1})
    server, downlink, agents = started(strategy)
    messages = emitted(strategy, agents)
    change = jax.tree.map(lambda x: x.at[2].add(100.0), messages.update)
    values = tuple(x.at[2].set(1e4) for x in messages.individual.values)
    poisoned = dataclasses.replace(messages, update=change, individual=messages.individual._replace(values=values))
    after, verdict = strategy.combine(LEARNER, server, downlink, poisoned, jnp.ones(AGENTS), tools("krum"))
    assert not verdict.accepted[2]
    assert all(float(jnp.abs(x).max()) < 5 for x in jax.tree.leaves(after.teacher))


@pytest.mark.training
def test_the_local_step_is_the_papers():
    strategy = strategies.build("distillation", {"local_share": 0.25, "local_steps": 1})
    teacher, own = (LEARNER.init_params(jax.random.key(k), SPACES) for k in (5, 6))
    agent = jax.tree.map(lambda x: x[0], filled_agents())
    batch = agent.memory.replay.sample(jax.random.key(0), (32,))
    first, second = own.values(batch.observation, batch.action)
    one, two = teacher.values(batch.observation, batch.action)
    expected = 0.75 * (jnp.mean((first - one) ** 2) + jnp.mean((second - two) ** 2)) / 2
    penalty = FromTeacher((one, two), 1 - strategy.local_share).penalty(own, as_batch(batch))
    np.testing.assert_allclose(penalty, expected, rtol=1e-5)


@pytest.mark.training
def test_agents_move_towards_the_teacher_before_they_collect():
    strategy = strategies.build("distillation", {"local_share": 0.0, "local_steps": 200})
    _, _, agents = started(strategy)
    agent = jax.tree.map(lambda x: x[0], agents)
    teacher = jax.tree.map(lambda x: x + 0.1, agent.params.head)
    batch = agent.memory.replay.sample(jax.random.key(0), (64,))

    taught = dataclasses.replace(agent.params, head=teacher)
    wanted = jnp.stack(taught.values(batch.observation, batch.action))

    def distance(params):
        return float(jnp.abs(jnp.stack(params.values(batch.observation, batch.action)) - wanted).mean())

    after = strategy.begin(LEARNER, agent, teacher, jax.random.key(1))
    assert distance(after.params) < 0.6 * distance(agent.params)
    jax.tree.map(np.testing.assert_array_equal, after.params.actor, agent.params.actor)
    empty = dataclasses.replace(agent.memory.replay, size=jnp.asarray(3, jnp.int32))
    idle = dataclasses.replace(agent, memory=dataclasses.replace(agent.memory, replay=empty))
    unchanged = strategy.begin(LEARNER, idle, teacher, jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, unchanged.params, agent.params)


@pytest.mark.training
def test_statistics_are_fewer_bytes_and_no_sample():
    sizes = {}
    for version in ("representations", "gaussian", "statistics"):
        strategy = strategies.build("distillation", {"version": version, "rank": 4})
        _, _, agents = started(strategy)
        message = jax.tree.map(lambda x: x[0], emitted(strategy, agents))
        sizes[version] = tree_bytes(message)
    samples = 4 * 2 * 32 * (16 + 1)
    statistics = 4 * 2 * (16 + 4 * 16 + 1)
    assert sizes["representations"] == sizes["gaussian"]
    assert sizes["gaussian"] - sizes["statistics"] == samples - statistics


@pytest.mark.parametrize(
    ("settings", "learner", "message"),
    [
        ({"average": ("actor",)}, LEARNER, "leave 'features' with the agents"),
        ({"average": ("features", "head", "actor")}, LEARNER, "leave 'features' with the agents"),
        ({"version": "statistics", "rank": 17}, LEARNER, "at most 16"),
        ({}, learners.build("ppo", {}), "needs a learner with critics"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(settings, learner, message):
    with pytest.raises(FedraxError) as error:
        check_strategy(learner, strategies.build("distillation", settings), local_updates=1)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
