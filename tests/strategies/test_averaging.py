"""Federated averaging and its relatives, on agents whose objectives and optimum are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.aggregators.base import aggregators
from fedrax.compatibility import check_strategy
from fedrax.config import resolve
from fedrax.environments.base import Box, Episodes, Spaces
from fedrax.errors import FedraxError
from fedrax.learners.base import Agent, Batch, Learner, UpdateContext, learners
from fedrax.message import arrived, travelling
from fedrax.runtime.make import make_runtime
from fedrax.strategies.base import Tools, strategies
from fedrax.strategies.moon import Contrast, cosine
from fedrax.strategies.return_weights import poor_first
from fedrax.trees import tree_bytes

AGENTS, STEPS = 3, 20
SPACES = Spaces(Box((2,), (-1.0,) * 2, (1.0,) * 2), Box((1,), (-1.0,), (1.0,)))
CURVATURE = np.array([[1.0, 0.1], [3.0, 1.0], [0.3, 2.0]])
CENTRE = np.array([[2.0, -1.0], [-1.0, 3.0], [4.0, 1.0]])
OPTIMUM = (CURVATURE * CENTRE).sum(0) / CURVATURE.sum(0)
NOTHING = Episodes(
    jnp.zeros((1, 1, 2)), jnp.zeros((1, 1, 1)), jnp.zeros((1, 1)), jnp.zeros((1, 1), bool), jnp.zeros(1, bool)
)
"""The experience of agents whose objectives are known."""


class Quadratic(Learner):
    """Full gradient descent on ``sum_j a_j (x_j - b_j)^2 / 2``; a and b are the agent's memory."""

    name = "quadratic"

    def init_params(self, key, spaces):
        return jnp.zeros(2)

    def act(self, params, observation, key):
        raise NotImplementedError

    def learn(self, agent, experience, objective, update_context):
        curvature, centre = agent.memory
        params, optimizer, notes = agent.params, agent.optimizer, objective.start(agent.params)
        batch = Batch(jnp.zeros((1, 2)), jnp.zeros((1, 1)), jnp.ones(1, bool), None, None, ())
        for _ in range(STEPS):
            gradient = jax.grad(
                lambda x: (curvature * (x - centre) ** 2).sum() / 2 + jnp.asarray(objective.penalty(x, batch))
            )(params)
            gradient, notes = objective.correct(gradient, params, notes)
            params, optimizer = self.apply(params, optimizer, gradient)
        return Agent(params, optimizer, agent.memory, objective.keep(agent.private, notes)), {}


def tools(ids=None):
    mean = aggregators.build("mean", {})
    return Tools(
        lambda vectors, weights, samples: mean(vectors, weights, key=jax.random.key(0)),
        lambda vectors, weights: vectors.mean(0),
        jax.random.key(0),
        jnp.arange(AGENTS) if ids is None else ids,
    )


def federation(strategy, learner):
    """The server, and the fresh agents one by one."""
    agents = []
    for index in range(AGENTS):
        agent = learner.init(jax.random.key(0), SPACES)
        agent = dataclasses.replace(agent, memory=(jnp.asarray(CURVATURE[index]), jnp.asarray(CENTRE[index])))
        agents.append(dataclasses.replace(agent, private=strategy.private(learner, agent)))
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *agents)
    return strategy.init(learner, SPACES, stacked, jax.random.key(0)), agents


def worked(strategy, learner, agent, downlink, index):
    """The agent after its local update of a round."""
    agent = strategy.absorb(agent, downlink, jnp.asarray(index))
    context = strategy.context(agent, downlink, jnp.asarray(index))
    update_context = UpdateContext(jax.random.key(0), jnp.asarray(0.0), context=context)
    return strategy.work(learner, agent, NOTHING, update_context)[0]


def rounds(strategy, learner, count, ids=None):
    """The global parameters after so many rounds."""
    server, agents = federation(strategy, learner)

    @jax.jit
    def one(server, agents, ids):
        downlink = strategy.broadcast(server, jax.random.key(0))
        messages = []
        for index in range(AGENTS):
            agent = worked(strategy, learner, agents[index], downlink, index)
            messages.append(strategy.emit(learner, agent, jax.random.key(0)))
            agents[index] = agent
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *messages)
        server, _ = strategy.combine(learner, server, downlink, stacked, jnp.ones(AGENTS), tools())
        return server, agents

    for _ in range(count):
        server, agents = one(server, agents, ids)
    return np.asarray(server.params)


@pytest.mark.training
@pytest.mark.parametrize(("optimizer", "rate", "count"), [("sgd", 0.03, 150), ("adam", 0.003, 800)])
def test_scaffold_removes_the_drift_that_averaging_has(optimizer, rate, count):
    learner = Quadratic(optimizer=optimizer, learning_rate=rate)
    drift = np.abs(rounds(strategies.build("fedavg", {}), learner, count) - OPTIMUM).max()
    corrected = np.abs(rounds(strategies.build("scaffold", {}), learner, count) - OPTIMUM).max()
    assert drift > 0.2
    assert corrected < drift / 20


def test_control_variates_are_the_papers_second_option_under_gradient_descent():
    learner, strategy = Quadratic(optimizer="sgd", learning_rate=0.05), strategies.build("scaffold", {})
    server, agents = federation(strategy, learner)
    rng = np.random.default_rng(0)
    server = dataclasses.replace(server, control=jnp.asarray(rng.normal(size=2), jnp.float32))
    own = jnp.asarray(rng.normal(size=2), jnp.float32)
    agent = dataclasses.replace(agents[0], private=dataclasses.replace(agents[0].private, own=own))
    downlink = strategy.broadcast(server, jax.random.key(0))
    after = worked(strategy, learner, agent, downlink, 0)
    expected = own - server.control + (downlink.networks.params - after.params) / (STEPS * 0.05)
    report = strategy.emit(learner, after, jax.random.key(0))
    np.testing.assert_allclose(own + report.update["control"], expected, rtol=1e-4, atol=1e-5)


def test_fedprox_moves_less_and_pulls_towards_what_was_received():
    learner = Quadratic(optimizer="sgd", learning_rate=0.03)
    moved = {}
    for proximal in (0.0, 1.0, 100.0):
        strategy = strategies.build("fedprox", {"proximal": proximal})
        moved[proximal] = np.abs(rounds(strategy, Quadratic(optimizer="sgd", learning_rate=0.01), 1)).max()
    assert moved[0.0] > moved[1.0] > moved[100.0] > 0
    strategy = strategies.build("fedprox", {"proximal": 3.0})
    _, agents = federation(strategy, learner)
    objective = strategy.objective(learner, agents[0], ())
    batch = Batch(jnp.zeros((1, 2)), jnp.zeros((1, 1)), jnp.ones(1, bool), None, None, ())
    gradient = jax.grad(lambda x: objective.penalty(x, batch))(jnp.array([1.0, -2.0]))
    np.testing.assert_allclose(gradient, [3.0, -6.0])


def row(tree, index):
    return jax.tree.map(lambda x: x[index], tree)


def equal(x, y):
    jax.tree.map(np.testing.assert_array_equal, x, y)


def close(x, y):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), x, y)


@pytest.mark.training
def test_averaging_some_parts_leaves_the_others_with_their_agents():
    learner = learners.build("td3", {"actor_layers": (4,), "feature_layers": (4,), "head_layers": (4,)})
    strategy = strategies.build("fedavg", {"average": ("head", "actor"), "actor_every": 2})
    agents = jax.vmap(lambda key: learner.init(key, SPACES))(jax.random.split(jax.random.key(0), AGENTS))
    agents = dataclasses.replace(agents, private=jax.vmap(lambda agent: strategy.private(learner, agent))(agents))
    server = strategy.init(learner, SPACES, agents, jax.random.key(0))
    for number in range(4):
        downlink = strategy.broadcast(server, jax.random.key(0))
        messages = []
        for index in range(AGENTS):
            own = row(agents, index)
            agent = strategy.absorb(own, downlink, jnp.asarray(index))
            equal(agent.params.features, own.params.features)
            equal(agent.params.head, server.params.head)
            equal(agent.params.actor, server.params.actor if number % 2 == 0 else own.params.actor)
            learned = dataclasses.replace(agent, params=jax.tree.map(lambda x, i=index: x + i, agent.params))
            messages.append(strategy.emit(learner, learned, jax.random.key(0)))
            agents = jax.tree.map(lambda x, y, i=index: x.at[i].set(y), agents, learned)
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *messages)
        before = server
        stacked = arrived(stacked, strategy.period, jnp.asarray(number + 1))
        server, _ = strategy.combine(learner, server, downlink, stacked, jnp.ones(AGENTS), tools())
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y + 1, rtol=1e-5), server.params.head, before.params.head
        )
        expected = jax.tree.map(lambda x: x.mean(0), agents.params.actor) if number % 2 else before.params.actor
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), server.params.actor, expected)


def test_bytes_count_the_actor_only_when_it_travels():
    learner = learners.build("td3", {})
    agent = learner.init(jax.random.key(0), SPACES)
    sizes = {}
    for every in (1, 4):
        strategy = strategies.build("fedavg", {"actor_every": every})
        kept = dataclasses.replace(agent, private=strategy.private(learner, agent))
        message = strategy.emit(learner, kept, jax.random.key(0))
        sizes[every] = [tree_bytes(travelling(message, strategy.period, turn)) for turn in range(1, 5)]
    actor = sum(x.nbytes for x in jax.tree.leaves(agent.params.actor))
    whole = sum(x.nbytes for x in jax.tree.leaves(agent.params))
    assert sizes == {1: [whole] * 4, 4: [whole - actor] * 3 + [whole]}


def test_the_contrast_is_the_papers():
    learner = learners.build("td3", {"actor_layers": (8,), "feature_layers": (8,), "head_layers": (8,)})
    strategy = strategies.build("moon", {"contrast": 2.0, "contrast_temperature": 0.5})
    own, received, previous = (learner.init_params(jax.random.key(seed), SPACES) for seed in range(3))
    keys = jax.random.split(jax.random.key(9), 2)
    batch = Batch(
        jax.random.normal(keys[0], (16, 2)), jax.random.normal(keys[1], (16, 1)), jnp.ones(16, bool), None, None, ()
    )
    expected = 0.0
    for z, new, old in zip(*(learner.representations(x, batch) for x in (own, received, previous)), strict=True):
        near, far = (np.exp(np.asarray(cosine(z, other)) / 0.5) for other in (new, old))
        expected += 2.0 * -np.log(near / (near + far)).mean()
    objective = Contrast(strategy, learner, received, previous)
    np.testing.assert_allclose(objective.penalty(own, batch), expected, rtol=1e-5)
    step = strategies.build("moon", {"contrast": 2.0, "contrast_temperature": 0.5, "previous": "step"})
    same = Contrast(step, learner, received, previous).penalty(own, batch)
    alone = Contrast(strategy, learner, received, own).penalty(own, batch)
    np.testing.assert_allclose(same, alone, rtol=1e-6)


def test_moon_remembers_the_model_before_the_broadcast():
    learner = learners.build("td3", {"actor_layers": (4,), "feature_layers": (4,), "head_layers": (4,)})
    strategy = strategies.build("moon", {})
    agents = jax.vmap(lambda key: learner.init(key, SPACES))(jax.random.split(jax.random.key(0), AGENTS))
    agents = dataclasses.replace(agents, private=jax.vmap(lambda agent: strategy.private(learner, agent))(agents))
    server = strategy.init(learner, SPACES, agents, jax.random.key(0))
    own = jax.tree.map(lambda x: x[2], agents)
    agent = strategy.absorb(own, strategy.broadcast(server, jax.random.key(0)), jnp.asarray(2))
    jax.tree.map(np.testing.assert_array_equal, agent.private.previous, own.params)
    jax.tree.map(np.testing.assert_array_equal, agent.private.received, server.params)


def test_the_worst_count_most_whatever_the_returns_zero_is():
    weights = poor_first(jnp.array([-300.0, -200.0, -100.0]), 1.0)
    assert weights[0] > weights[1] > weights[2] > 0
    np.testing.assert_allclose(weights, poor_first(jnp.array([700.0, 800.0, 900.0]), 1.0), rtol=1e-5)
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(poor_first(jnp.array([5.0, 5.0, jnp.nan]), 0.1), [1 / 3] * 3, rtol=1e-6)
    np.testing.assert_array_equal(poor_first(jnp.array([0.0, -1.0, 1.0]), 0.0), [0, 1, 0])
    unknown = poor_first(jnp.array([0.0, 1.0, jnp.nan]), 1.0)
    assert unknown[0] > unknown[2] > unknown[1]


@pytest.mark.parametrize(
    ("strategy", "settings", "learner", "message"),
    [
        (
            "fedavg",
            {"average": ("head",), "actor_every": 2},
            "td3",
            "has no actor; add it, or set strategy.",
        ),
        ("fedavg", {"actor_every": 2}, "policy-gradient", "needs a learner with a part 'actor'"),
        ("moon", {}, "policy-gradient", "needs a learner with representations"),
        ("moon", {"average": ("actor",)}, "td3", "compares whole networks"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(strategy, settings, learner, message):
    with pytest.raises(FedraxError) as error:
        check_strategy(learners.build(learner, {}), strategies.build(strategy, settings), local_updates=1)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_weights_by_return_reach_the_average():
    settings = ["strategy=fedavg", "strategy.return_temperature=1.0"]
    assert resolve("fedtd3/pendulum", settings).component("aggregator").name == "weighted-mean"
    assert resolve("fedtd3/pendulum", settings[:1]).component("aggregator").name == "mean"
    with pytest.raises(FedraxError, match="heeds no weights; set aggregator to one of geometric-median, weighted-mean"):
        make_runtime(resolve("fedtd3/pendulum", [*settings, "aggregator=mean"]))
