"""A model for every agent: averaged within clusters, or by similarity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedrax
from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.federation import Cohort
from fedrax.runtime.make import make_runtime
from fedrax.strategies.clustered import by_first
from fedrax.trees import ravel_rows, tree_bytes

AGENTS = 4
RUN = [
    *("environment=CartPole-v1", "environment.num_envs=2", "environment.horizon=20", f"federation.agents={AGENTS}"),
    *("learner=ppo", "learner.num_steps=8", "learner.hidden=[4]", "budget.rounds=2"),
    *("checkpoint.every=2", "evaluation.every=2", "evaluation.episodes=4"),
]
TD3 = [
    *("environment=Pendulum-v1", f"federation.agents={AGENTS}", "budget.rounds=1"),
    *("learner=td3", "learner.num_steps=2", "learner.batch_size=4", "learner.buffer_size=16"),
    "learner.learning_starts=16",
    *("learner.actor_layers=[3]", "learner.feature_layers=[3]", "learner.head_layers=[3]"),
]


def federation(*overrides, run=RUN):
    return make_runtime(resolve({}, [*run, *overrides])).federation


def one_round(together, directions, *, answers=(True,) * AGENTS, start=None):
    """Agents whose networks each moved along a direction of its own, ``[agents, d]``; the server and agents after."""
    key, ids, first = jax.random.key(0), jnp.arange(AGENTS), jnp.asarray(0)
    state = together.init(jax.random.key(0))
    server, agents = start or (state.server, state.agents)
    downlink = together.broadcast(server, key, first)
    received = jax.vmap(lambda agent, index: together.strategy.absorb(agent, downlink, index))(agents, ids)
    leaves, structure = jax.tree.flatten(received.params)
    sizes = [leaf[0].size for leaf in leaves]
    moves = np.split(np.asarray(directions, np.float32), np.cumsum(sizes)[:-1], axis=1)
    moved = [leaf + move.reshape(leaf.shape) for leaf, move in zip(leaves, moves, strict=True)]
    learned = eqx_replace(received, jax.tree.unflatten(structure, moved))
    messages = jax.vmap(lambda agent: together.strategy.emit(together.learner, agent, key))(learned)
    cohort = Cohort(ids, jnp.zeros(AGENTS, bool), jnp.asarray(answers))
    server, exchange = together.exchange(server, downlink, cohort, messages, key, first)
    downlink = together.broadcast(server, key, first + 1)
    after = jax.vmap(lambda agent, index: together.strategy.absorb(agent, downlink, index))(learned, ids)
    return state, server, after, exchange


def eqx_replace(agents, params):
    return type(agents)(params, agents.optimizer, agents.memory, agents.private)


def size(together):
    return ravel_rows(together.init(jax.random.key(0)).agents.params).shape[1]


def axes(together, *columns):
    """Directions along single numbers, one of an agent each."""
    return np.eye(size(together))[list(columns)]


def rows(agents):
    return np.asarray(ravel_rows(agents.params))


def changes(state, after):
    return rows(after) - rows(state.agents)


@pytest.mark.training
def test_clusters_are_averaged_each_on_their_own():
    """Agents 0 and 2 moved one way, 1 and 3 another."""
    together = federation("strategy=clustered", "strategy.warmup=0", "strategy.threshold=0.5")
    directions = axes(together, 5, 9, 5, 9) * np.array([[1.0], [2.0], [3.0], [4.0]])
    state, server, after, exchange = one_round(together, directions)
    expected = axes(together, 5, 9, 5, 9) * np.array([[2.0], [3.0], [2.0], [3.0]])
    np.testing.assert_allclose(changes(state, after), expected, atol=1e-5)
    assert exchange.metrics["cluster"].tolist() == [0, 1, 0, 1]
    assert exchange.metrics["clusters"] == 2
    assert exchange.accepted.all()
    # Who does not answer is not averaged, and receives its cluster's model.
    _, _, after, exchange = one_round(
        together, directions, answers=(True, True, False, True), start=(server, state.agents)
    )
    expected = axes(together, 5, 9, 5, 9) * np.array([[2.0 + 1.0], [3.0 + 3.0], [2.0 + 1.0], [3.0 + 3.0]])
    np.testing.assert_allclose(changes(state, after), expected, atol=1e-5)
    assert exchange.metrics["cluster"].tolist() == [0, 1, 0, 1]


@pytest.mark.training
def test_all_are_averaged_alike_in_the_first_rounds():
    together = federation("strategy=clustered", "strategy.warmup=1", "strategy.threshold=0.5")
    directions = axes(together, 5, 9, 5, 9)
    state, server, after, exchange = one_round(together, directions)
    np.testing.assert_allclose(changes(state, after), np.broadcast_to(directions.mean(0), directions.shape), atol=1e-6)
    assert exchange.metrics["clusters"] == 1
    _, _, _, exchange = one_round(together, directions, start=(server, state.agents))
    assert exchange.metrics["clusters"] == 2


@pytest.mark.training
def test_similar_agents_count_more():
    """Cosines 1, 0 and -1 at a temperature of 1 / log 2 are weights of 1, 1/2 and 1/4."""
    together = federation("strategy=similarity", "strategy.warmup=0", f"strategy.temperature={1 / np.log(2)}")
    directions = axes(together, 5, 5, 9, 5) * np.array([[1.0], [1.0], [1.0], [-1.0]])
    state, _, after, _ = one_round(together, directions)
    weights = np.array([[4, 4, 2, 1], [4, 4, 2, 1], [2, 2, 4, 2], [1, 1, 2, 4]])
    expected = weights / weights.sum(1, keepdims=True) @ directions
    np.testing.assert_allclose(changes(state, after), expected, atol=1e-5)


def test_top_leaves_the_others_out():
    together = federation("strategy=similarity", "strategy.warmup=0", "strategy.top=1", "strategy.temperature=100")
    directions = axes(together, 5, 9, 5, 9)
    state, _, after, _ = one_round(together, directions)
    np.testing.assert_allclose(changes(state, after), directions, atol=2e-2)
    assert np.abs(changes(state, after)[0, 9]) < 1e-6


@pytest.mark.training
@pytest.mark.parametrize("rate", [1.0, 0.5])
@pytest.mark.parametrize("strategy", ["clustered", "similarity"])
def test_targets_and_moments_are_averaged_as_networks_are(strategy, rate):
    """In the first rounds all are averaged alike, as by fedavg, whose rate is that of networks alone."""
    options = ["strategy.average_targets=true", "strategy.moments=average", f"strategy.server_learning_rate={rate}"]
    ours = federation(f"strategy={strategy}", *options, run=TD3)
    theirs = federation("strategy=fedavg", *options, run=TD3)
    directions = np.random.default_rng(1).normal(size=(AGENTS, size(ours)))
    (_, _, one, _), (_, _, other, _) = (one_round(each, directions) for each in (ours, theirs))
    for name in ("params", "optimizer"):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
            getattr(one, name),
            getattr(other, name),
        )
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), one.memory.target, other.memory.target
    )


def test_who_never_sent_listens_to_all():
    together = federation("strategy=similarity", "strategy.warmup=0", "strategy.temperature=0.1")
    directions = axes(together, 5, 9, 7, 11)
    state, _, after, _ = one_round(together, directions, answers=(True, True, True, False))
    np.testing.assert_allclose(changes(state, after)[3], directions[:3].mean(0), atol=1e-5)


def test_who_never_sent_is_of_no_cluster():
    """It receives the mean of all, and not the model of the cluster of agent 0."""
    together = federation("strategy=clustered", "strategy.warmup=0", "strategy.threshold=0.5")
    directions = axes(together, 5, 9, 5, 9)
    state, server, after, exchange = one_round(together, directions, answers=(True, True, True, False))
    mean = directions[:3].mean(0)
    expected = np.stack([directions[0], directions[1], directions[2], mean])
    np.testing.assert_allclose(changes(state, after), expected, atol=1e-6)
    assert exchange.metrics["cluster"].tolist() == [0, 1, 0, 3]
    assert exchange.metrics["clusters"] == 3
    assert server.model.tolist() == [0, 1, 0, 3]


def test_an_absent_agent_listens_to_its_own_model_too():
    """All at right angles: at a temperature of 1 / log 2 each weighs itself twice as much as each of the others."""
    together = federation("strategy=similarity", "strategy.warmup=0", f"strategy.temperature={1 / np.log(2)}")
    directions = axes(together, 5, 9, 7, 11)
    state, server, after, _ = one_round(together, directions)
    before = changes(state, after)
    again = axes(together, 13, 15, 17, 19)
    _, _, after, _ = one_round(together, again, answers=(True, True, True, False), start=(server, state.agents))
    weights = np.array([2, 2, 2, 4]) / 10
    sent = before + again * np.array([[1], [1], [1], [0]])
    np.testing.assert_allclose(changes(state, after)[3], weights @ sent, atol=1e-5)
    # Where nobody answers who is like it at all, it keeps what it has.
    cold = federation("strategy=similarity", "strategy.warmup=0", "strategy.temperature=0.01")
    state, server, after, _ = one_round(cold, directions)
    before = changes(state, after)
    _, _, after, _ = one_round(cold, again, answers=(True, True, True, False), start=(server, state.agents))
    np.testing.assert_allclose(changes(state, after)[3], before[3], atol=1e-5)


def test_a_robust_rule_is_applied_in_each_cluster():
    together = federation(
        "strategy=clustered", "strategy.warmup=0", "strategy.clusters=2", "strategy.threshold=-1", "aggregator=median"
    )
    directions = axes(together, 5, 5, 5, 9) * np.array([[1.0], [2.0], [30.0], [1.0]])
    state, _, after, _ = one_round(together, directions)
    expected = axes(together, 5, 5, 5, 9) * np.array([[2.0], [2.0], [2.0], [1.0]])
    np.testing.assert_allclose(changes(state, after), expected, atol=1e-5)


def test_agents_that_join_keep_what_sets_their_models_apart():
    """By half steps: two clusters at 1 and 3 after a round of changes by 2 and 6; together in the next, each moves half
    of its own way to the mean of all."""
    together = federation(
        "strategy=clustered",
        "strategy.warmup=0",
        "strategy.threshold=0.5",
        "strategy.memory=0",
        "strategy.server_learning_rate=0.5",
    )
    directions = axes(together, 5, 9, 5, 9) * np.array([[2.0], [6.0], [2.0], [6.0]])
    state, server, after, _ = one_round(together, directions)
    np.testing.assert_allclose(changes(state, after), directions / 2, atol=1e-5)
    assert server.model.tolist() == [0, 1, 0, 1]
    again = axes(together, 7, 7, 7, 7)
    _, server, after, exchange = one_round(together, again, start=(server, state.agents))
    assert exchange.metrics["cluster"].tolist() == [0, 0, 0, 0]
    assert server.model.tolist() == [0, 1, 0, 1]
    mean = (directions / 2 + again).mean(0)
    np.testing.assert_allclose(changes(state, after), (directions / 2 + mean) / 2, atol=1e-5)


def test_a_function_of_agents_alike_is_computed_for_one():
    first = jnp.array([0, 1, 0, 3, 1])
    values, (doubled,) = by_first(lambda agent: (agent.astype(float), (2 * agent,)), first)
    assert values.tolist() == [0, 1, 0, 3, 1]
    assert doubled.tolist() == [0, 2, 0, 6, 2]


def test_nobody_receives_the_models_of_others():
    runtime = make_runtime(resolve({}, [*RUN, "strategy=clustered"]))
    server = runtime.federation.init(jax.random.key(0)).server
    strategy = runtime.federation.strategy
    downlink = strategy.broadcast(server, jax.random.key(0))
    sent = strategy.outgoing(downlink, 1)
    model = jax.tree.map(lambda x: x[1], server.models.networks)
    assert tree_bytes(sent.params) == tree_bytes(model)
    jax.tree.map(np.testing.assert_array_equal, sent.params, model)


@pytest.mark.training
@pytest.mark.parametrize("strategy", ["clustered", "similarity"])
def test_every_agents_policy_is_evaluated_and_its_cluster_recorded(strategy, tmp_path):
    run = fedrax.train({}, [*RUN, f"strategy={strategy}", "strategy.warmup=0"], out=tmp_path / "run", progress=False)
    assert run.evaluate(episodes=2)[0].returns.shape == (AGENTS, 2)
    clusters = [row.get("cluster") for row in run.metrics()]
    if strategy == "clustered":
        assert [len(row) for row in clusters] == [AGENTS, AGENTS]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["strategy=clustered", "strategy.actor_every=2"], "set strategy.actor_every=1"),
        (["strategy=similarity", "aggregator=median"], "heeds no weights; set aggregator to one of"),
        (["strategy=clustered", "strategy.threshold=2"], "threshold"),
        (["strategy=clustered", "strategy.clusters=5"], "strategy.clusters = 5 is more than federation.agents = 4"),
        (["strategy=similarity", "strategy.top=0"], "top"),
        (["strategy=similarity", "strategy.top=4"], "an agent has 3 others"),
    ],
)
def test_options_that_do_not_fit_are_refused(overrides, words):
    with pytest.raises(FedraxError, match=words) as caught:
        make_runtime(resolve({}, [*TD3, *overrides]))
    assert "\n" not in str(caught.value)
