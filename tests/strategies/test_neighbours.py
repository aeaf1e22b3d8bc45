"""Neighbours and gossip: pooled policies against their definitions, and who hears whom in a round."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from fedrax.aggregators.base import Aggregate
from fedrax.config import resolve
from fedrax.environments.base import Box, Discrete, Spaces, Steps
from fedrax.errors import FedraxError
from fedrax.learners.base import Agent, UpdateContext, learners
from fedrax.learners.distributions import Categorical, Gaussian, kl_divergence
from fedrax.learners.ppo import Extras
from fedrax.message import Message
from fedrax.records.checkpoint import save_checkpoint
from fedrax.runtime.counters import Counters
from fedrax.runtime.make import make_runtime
from fedrax.strategies.base import Tools, strategies
from fedrax.strategies.pooling import closeness, divergence, pooled
from fedrax.strategies.return_weights import Returns
from fedrax.trees import ravel_rows, tree_bytes

SPACES = Spaces(Box((2,), (-np.inf,) * 2, (np.inf,) * 2), Discrete(3))
LEARNER = learners.build("ppo", {"num_steps": 8, "hidden": (8,), "num_minibatches": 1, "update_epochs": 1})
AGENTS = 3
RUN = [
    "learner=ppo",
    "environment.id=CartPole-v1",
    "environment.num_envs=2",
    "learner.num_steps=8",
    "learner.hidden=[8]",
    "learner.num_minibatches=1",
    "learner.update_epochs=1",
    "federation.agents=3",
    "federation.local_updates=2",
    "budget.rounds=4",
    "checkpoint.every=4",
    "evaluation.episodes=2",
    "evaluation.horizon=20",
]


def logits(seed, *shape):
    return 2 * jax.random.normal(jax.random.key(seed), shape)


@settings(max_examples=30)
@given(st.integers(0, 2**16), st.lists(st.floats(0, 3), min_size=2, max_size=4).filter(lambda w: sum(w) > 0.1))
def test_pools_of_categorical_policies_are_what_they_are_called(seed, weights):
    weights = jnp.asarray(weights) / sum(weights)
    peers = Categorical(logits(seed, 5, len(weights), 4))
    rows = jnp.broadcast_to(weights, (5, len(weights)))
    probabilities = jax.nn.softmax(peers.logits)
    mixture = (weights[:, None] * probabilities).sum(1)
    np.testing.assert_allclose(jax.nn.softmax(pooled(peers, rows, "arithmetic").logits), mixture, atol=1e-5)
    product = jnp.exp((weights[:, None] * jnp.log(probabilities)).sum(1))
    product = product / product.sum(-1, keepdims=True)
    np.testing.assert_allclose(jax.nn.softmax(pooled(peers, rows, "log-linear").logits), product, atol=1e-5)


def test_the_arithmetic_pool_of_gaussians_has_the_mixtures_moments_and_gradient():
    peers = Gaussian(jnp.array([[[0.0], [2.0]]]), jnp.array([[[0.5], [1.5]]]))
    weights = jnp.array([[0.25, 0.75]])
    whole = pooled(peers, weights, "arithmetic")
    keys = jax.random.split(jax.random.key(0), 2)
    which = jax.random.bernoulli(keys[0], 0.75, (400_000,)).astype(int)
    sample = peers.mean[0, which, 0] + peers.deviation[0, which, 0] * jax.random.normal(keys[1], which.shape)
    np.testing.assert_allclose(whole.mean[0, 0], sample.mean(), atol=0.01)
    np.testing.assert_allclose(whole.deviation[0, 0], sample.std(), atol=0.01)

    def cross_entropy(mean):
        return -Gaussian(mean[None], jnp.array([0.8])).log_prob(sample[:, None]).mean()

    def penalty(mean):
        own = Gaussian(mean[None, None], jnp.array([[0.8]]))
        return divergence(own, peers, weights, jnp.zeros((1, 1)), pool="arithmetic", direction="ppo").sum()

    at = jnp.asarray(0.3)
    np.testing.assert_allclose(jax.grad(penalty)(at), jax.grad(cross_entropy)(at), rtol=0.02)


@pytest.mark.parametrize("direction", ["ppo", "mdpo"])
@pytest.mark.parametrize("pool", ["arithmetic", "log-linear", "mean-of-kls"])
def test_the_divergence_from_oneself_is_zero_and_else_positive(pool, direction):
    own = Categorical(logits(0, 6, 4))
    weights = jnp.full((6, 2), 0.5)
    same = Categorical(jnp.stack([own.logits, own.logits], 1))
    other = Categorical(logits(1, 6, 2, 4))
    action = jnp.zeros(6, int)
    zero = divergence(own, same, weights, action, pool=pool, direction=direction)
    np.testing.assert_allclose(zero, 0, atol=1e-5)
    assert (divergence(own, other, weights, action, pool=pool, direction=direction) > 0).all()


def test_the_mean_of_divergences_weighs_each_peer():
    own, peers = Categorical(logits(0, 6, 4)), Categorical(logits(1, 6, 2, 4))
    weights = jnp.tile(jnp.array([0.2, 0.8]), (6, 1))
    ours = divergence(own, peers, weights, jnp.zeros(6, int), pool="mean-of-kls", direction="mdpo")
    each = [kl_divergence(own, Categorical(peers.logits[:, j])) for j in range(2)]
    np.testing.assert_allclose(ours, 0.2 * each[0] + 0.8 * each[1], rtol=1e-4)


def test_the_references_pool_is_its_estimate_from_the_actions_taken():
    own, peers = Categorical(logits(0, 6, 4)), Categorical(logits(1, 6, 2, 4))
    weights = jnp.tile(jnp.array([0.5, 0.5]), (6, 1))
    action = jnp.arange(6) % 4
    pool = 0.5 * (Categorical(peers.logits[:, 0]).log_prob(action) + Categorical(peers.logits[:, 1]).log_prob(action))
    x = pool - own.log_prob(action)
    mdpo = divergence(own, peers, weights, action, pool="reference", direction="mdpo")
    ppo = divergence(own, peers, weights, action, pool="reference", direction="ppo")
    np.testing.assert_allclose(mdpo, jnp.exp(x) - 1 - x, rtol=1e-4)
    np.testing.assert_allclose(ppo, jnp.exp(-x) - 1 + x, rtol=1e-4)


def test_closeness_orders_policies():
    alike = jnp.array([2.0, 0.0, 0.0])
    policies = Categorical(jnp.stack([alike, alike + 0.1 * jnp.eye(3)[1], -alike])[None])
    distance = closeness(policies)
    assert distance[0, 1] < distance[0, 2]
    np.testing.assert_allclose(jnp.diag(distance), 0, atol=1e-6)


def make(name="neighbours", agents=AGENTS, **options):
    strategy = strategies.build(name, options).bind(agents, 0)
    fresh = jax.vmap(lambda key: LEARNER.init(key, SPACES))(jax.random.split(jax.random.key(0), agents))
    private = jax.vmap(lambda agent: strategy.private(LEARNER, agent))(fresh)
    everyone = Agent(fresh.params, fresh.optimizer, fresh.memory, private)
    return strategy, everyone, strategy.init(LEARNER, SPACES, everyone, jax.random.key(1))


def row(tree, index):
    return jax.tree.map(lambda x: x[index], tree)


def flat(tree):
    return ravel_rows(jax.tree.map(lambda x: x[None], tree))[0]


def steps_of(agent, seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    observation = jax.random.normal(keys[0], (9, 4, 2))
    action = LEARNER.act(agent.params, observation[:-1].reshape(-1, 2), keys[1]).reshape(8, 4)
    no = jnp.zeros((8, 4), bool)
    over = no.at[3, 1].set(True)
    reward, returns = jax.random.normal(keys[2], (8, 4)), jnp.where(over, 2.5, 0.0)
    return Steps(observation, Extras(*agent.params.both(observation)), action, reward, ~no, over, no, returns)


def tools(ids, aggregate=None):
    def mean(vectors, weights, samples):
        share = weights / jnp.maximum(weights.sum(), 1e-9)
        return Aggregate((share[:, None] * vectors).sum(0), weights > 0, (weights > 0).any(), {})

    return Tools(aggregate or mean, lambda v, w: v.mean(0), jax.random.key(0), jnp.asarray(ids))


def received_by(strategy, agent, inbox, index):
    """The agent after the broadcast, and what its updates may look at."""
    agent = strategy.absorb(agent, inbox, jnp.asarray(index))
    context = strategy.context(agent, inbox, jnp.asarray(index))
    return agent, UpdateContext(jax.random.key(0), jnp.asarray(0.0), context)


@pytest.mark.training
def test_the_context_is_the_neighbours_networks_and_their_weights(tmp_path):
    file = tmp_path / "graph.toml"
    file.write_text(
        "[[edge]]\nfrom = 1\nto = 0\nweight = 2.0\n[[edge]]\nfrom = 2\nto = 0\n[[edge]]\nfrom = 0\nto = 1\n"
    )
    strategy, agents, server = make(topology=str(file))
    inbox = strategy.broadcast(server, jax.random.key(0))
    wanted = {0: ([1, 2], [0, 2 / 3, 1 / 3]), 1: ([0], [0, 1, 0]), 2: ([], [0, 0, 0])}
    for index, (peers, weights) in wanted.items():
        _, update_context = received_by(strategy, row(agents, index), inbox, index)
        context = update_context.context
        np.testing.assert_allclose(context.weights, weights, rtol=1e-6)
        for place, peer in enumerate(peers):
            np.testing.assert_array_equal(flat(row(context.policies, place)), flat(row(server.policies, peer)))
    gossip, agents, server = make("gossip")
    assert received_by(gossip, row(agents, 0), gossip.broadcast(server, jax.random.key(0)), 0)[1].context == ()


@pytest.mark.parametrize(
    ("settings", "readers"),
    [
        (["strategy=gossip", "strategy.topology=ring"], 2),
        (["strategy=neighbours", "strategy.topology=complete"], 3),
        (["strategy=neighbours", "strategy.topology=star"], 1.5),
        (["strategy=fedavg"], None),
    ],
)
def test_a_mesh_sends_a_message_to_every_neighbour(settings, readers):
    strategy = make_runtime(resolve({}, [*RUN, "federation.agents=4", *settings])).federation.strategy
    assert strategy.readers == readers
    totals = Counters(bytes_up=4000).totals(4, strategy.readers)
    assert totals["bytes_up"] == 1000
    assert totals.get("bytes_mesh") == (None if readers is None else 1000 * readers)


@pytest.mark.parametrize("name", ["neighbours", "gossip"])
def test_an_agent_keeps_no_networks_of_its_neighbours(name, tmp_path):
    strategy, agents, server = make(name)
    agent, _ = received_by(strategy, row(agents, 0), strategy.broadcast(server, jax.random.key(0)), 0)
    for each in (row(agents, 0), agent):
        # Its own networks as the others have them, a return and a count.
        assert tree_bytes(each.private) == tree_bytes(each.params) + 8
    save_checkpoint(tmp_path, 1, agents, {})
    with safe_open(tmp_path / "checkpoint-1.safetensors", framework="numpy") as file:
        stored = [name for name in file.keys() if ".private." in name]  # noqa: SIM118
    kept = len(jax.tree.leaves(agents.params)) + 2
    assert len(stored) == kept
    assert {name.split(".")[2] for name in stored} == {"sent", "returns"}


@pytest.mark.parametrize("direction", ["ppo", "mdpo"])
def test_nobody_to_listen_to_is_finite_in_every_program(direction):
    logits, peers = jnp.array([[0.3, -0.2, 0.1]]), Categorical(jnp.array([[[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]]]))
    action, nobody = jnp.array([1]), jnp.zeros((1, 2))

    def loss(logits):
        each = divergence(Categorical(logits), peers, nobody, action, pool="arithmetic", direction=direction)
        return jnp.where(nobody.sum() > 0, each, 0.0).sum()

    # One operation after the other, nothing is simplified away, and numbers below the least normal one are 0.
    with jax.disable_jit():
        assert np.isfinite(jax.grad(loss)(logits)).all()


@pytest.mark.training
def test_a_listener_hears_its_neighbours_and_no_one_else(tmp_path):
    file = tmp_path / "graph.toml"
    file.write_text("[[edge]]\nfrom = 1\nto = 0\nweight = 2.0\n")
    strategy, agents, server = make(topology=str(file), self_weight=1.0)
    inbox = strategy.broadcast(server, jax.random.key(0))
    steps = steps_of(row(agents, 0))

    def after(policies, index):
        received = dataclasses.replace(inbox, policies=policies)
        agent, update_context = received_by(strategy, row(agents, index), received, index)
        return flat(strategy.work(LEARNER, agent, steps, update_context)[0].params)

    def changed(who):
        return jax.tree.map(lambda x: x.at[who].multiply(-1.5), server.policies)

    plain = after(server.policies, 0)
    assert not np.array_equal(plain, after(changed(1), 0)), "agent 0 listens to agent 1"
    np.testing.assert_array_equal(plain, after(changed(2), 0))
    alone = after(server.policies, 2)
    np.testing.assert_array_equal(alone, after(changed(0), 2))
    assert np.isfinite(alone).all()


def test_what_is_not_sent_leaves_the_neighbours_with_the_last_copy():
    strategy, agents, server = make()
    change = jax.tree.map(jnp.ones_like, agents.params)
    messages = Message((), Returns(jnp.array([4.0, 0.0]), jnp.array([2, 0])), row(change, jnp.array([0, 2])))
    inbox = strategy.broadcast(server, jax.random.key(0))
    after, verdict = strategy.combine(LEARNER, server, inbox, messages, jnp.array([1.0, 0.0]), tools([0, 2]))
    np.testing.assert_allclose(flat(row(after.policies, 0)), flat(row(server.policies, 0)) + 1, rtol=1e-6)
    for silent in (1, 2):
        np.testing.assert_array_equal(flat(row(after.policies, silent)), flat(row(server.policies, silent)))
    assert after.age.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(after.returns, [2.0, np.nan, np.nan])
    assert verdict.accepted.tolist() == [True, False]


@pytest.mark.training
def test_a_message_is_the_change_since_the_neighbours_copy_and_the_mean_return():
    strategy, agents, server = make()
    inbox = strategy.broadcast(server, jax.random.key(0))
    agent, update_context = received_by(strategy, row(agents, 1), inbox, 1)
    worked, _ = strategy.work(LEARNER, agent, steps_of(agent), update_context)
    worked, _ = strategy.work(LEARNER, worked, steps_of(agent, seed=1), update_context)
    message = strategy.emit(LEARNER, worked, jax.random.key(0))
    np.testing.assert_allclose(flat(message.individual), flat(worked.params) - flat(row(server.policies, 1)), atol=1e-6)
    assert (float(message.statistics.total), int(message.statistics.count)) == (5.0, 2)


def test_old_neighbours_are_no_longer_listened_to():
    strategy, _, server = make(max_age=2)
    server = dataclasses.replace(server, age=jnp.array([0, 2, 3]))
    weights = strategy.broadcast(server, jax.random.key(0)).weights
    np.testing.assert_allclose(weights[0], [0.5, 0.5, 0.0])
    np.testing.assert_allclose(weights[2].sum(), 1.0, rtol=1e-6)


@pytest.mark.parametrize("returns", [[-3.0, -2.0, -1.0], [np.nan, 0.0, 1.0], [np.nan] * 3])
def test_returns_of_any_sign_weigh_neighbours(returns):
    strategy, _, server = make(weights="return", temperature=0.5)
    weights = strategy.broadcast(dataclasses.replace(server, returns=jnp.array(returns)), jax.random.key(0)).weights
    assert jnp.isfinite(weights).all()
    np.testing.assert_allclose(weights.sum(1), 1.0, rtol=1e-5)
    if not np.isnan(returns).all():
        assert weights[0, 2] > weights[0, 1]


def test_gossip_moves_everyone_to_the_weighted_mean():
    strategy, agents, server = make("gossip")
    nothing = jax.tree.map(jnp.zeros_like, agents.params)
    messages = Message((), Returns(jnp.zeros(3), jnp.zeros(3, int)), nothing)
    inbox = strategy.broadcast(server, jax.random.key(0))
    after, _ = strategy.combine(LEARNER, server, inbox, messages, jnp.ones(3), tools([0, 1, 2]))
    inbox = strategy.broadcast(after, jax.random.key(0))
    mean = ravel_rows(agents.params).mean(0)
    for index in range(3):
        moved = strategy.absorb(row(agents, index), inbox, jnp.asarray(index))
        np.testing.assert_allclose(flat(moved.params), mean, atol=1e-5)
        np.testing.assert_array_equal(flat(moved.optimizer), flat(row(agents.optimizer, index)))


def test_gossip_averages_only_the_parts_it_is_told_and_resets_moments_on_request():
    strategy, agents, server = make("gossip", average=("actor",), moments="reset")
    messages = Message((), Returns(jnp.zeros(3), jnp.zeros(3, int)), jax.tree.map(jnp.zeros_like, agents.params))
    inbox = strategy.broadcast(server, jax.random.key(0))
    after, _ = strategy.combine(LEARNER, server, inbox, messages, jnp.array([1.0, 1.0, 0.0]), tools([0, 1, 2]))
    inbox = strategy.broadcast(after, jax.random.key(0))
    used = Agent(agents.params, jax.tree.map(jnp.ones_like, agents.optimizer), agents.memory, agents.private)
    moved = strategy.absorb(row(used, 0), inbox, jnp.asarray(0))
    np.testing.assert_allclose(flat(moved.params.actor), ravel_rows(agents.params.actor).mean(0), atol=1e-5)
    np.testing.assert_array_equal(flat(moved.params.torso), flat(row(agents.params.torso, 0)))
    assert not flat(moved.optimizer).any()
    silent = strategy.absorb(row(used, 2), inbox, jnp.asarray(2))
    np.testing.assert_array_equal(flat(silent.params), flat(row(agents.params, 2)))
    assert flat(silent.optimizer).all()


def test_only_neighbours_networks_and_its_own_are_received(tmp_path):
    file = tmp_path / "graph.toml"
    file.write_text("[[edge]]\nfrom = 1\nto = 0\nmutual = true\n")
    size = 4 * flat(row(make()[1].params, 0)).size
    for spec, neighbours in (("complete", 2), ("none", 0), (str(file), 2 / 3)):
        strategy, _, server = make(topology=spec)
        inbox = strategy.broadcast(server, jax.random.key(0))
        received = np.mean([tree_bytes(strategy.outgoing(inbox, index)) for index in range(3)])
        # Beside the neighbours' networks its own, as they have them, three weights and a count.
        np.testing.assert_allclose(received, (neighbours + 1) * size + 16)


def test_a_strategy_that_does_not_communicate_is_refused():
    with pytest.raises(FedraxError, match=r"does not communicate; set strategy\.coefficient or strategy\.average"):
        make_runtime(resolve({}, [*RUN, "strategy=neighbours", "strategy.coefficient=0"]))


def test_unknown_parts_are_refused():
    with pytest.raises(FedraxError, match=r"strategy\.average.*acter"):
        make("gossip", average=("acter",))


def run(*overrides):
    runtime = make_runtime(resolve({}, [*RUN, *overrides]))
    ((state, metrics),) = runtime.advance(runtime.init(), 0)
    return state, {name: value[0] for name, value in metrics.items()}


@pytest.mark.training
@pytest.mark.parametrize(
    "overrides",
    [
        ["strategy=neighbours", "strategy.topology=ring", "federation.participation=0.67", "federation.dropout=0.3"],
        ["strategy=neighbours", "strategy.weights=similarity", 'strategy.average=["critic"]'],
        ["strategy=gossip", "aggregator=median", "attack=sign-flipping", "attack.agents=1"],
        ["strategy=neighbours", "strategy.topology=none", "strategy.weights=return"],
        ["strategy=fedavg", "aggregator=median", "attack=sign-flipping", "attack.agents=1"],
    ],
)
def test_whole_rounds_stay_finite(overrides):
    state, metrics = run(*overrides)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.agents.params))
    assert np.isfinite(metrics["return"]).all()


@pytest.mark.training
def test_agents_without_links_learn_as_if_alone():
    """With no neighbour and no weight of itself a penalty has nothing to say."""
    state, _ = run("strategy=neighbours", "strategy.topology=none", "strategy.self_weight=0")
    alone, _ = run("strategy=local")
    np.testing.assert_allclose(
        ravel_rows(row(state.agents.params, 0)), ravel_rows(row(alone.agents.params, 0)), atol=1e-6
    )


@pytest.mark.training
def test_a_centralised_learner_takes_as_many_steps_as_all_agents():
    _, central = run("strategy=central")
    _, local = run("strategy=local")
    assert central["agent_steps"].sum() == pytest.approx(local["agent_steps"].sum(), rel=0.05)
    assert local["agent_returns"].shape == (4, 3)
    assert "agent_returns" not in central
