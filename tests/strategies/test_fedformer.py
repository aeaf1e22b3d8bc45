"""FedFormer: what is exchanged, who sees whom, and what becomes of encoders that are late, false or too long."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedrax
from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.message import Message
from fedrax.records.checkpoint import save_policy
from fedrax.report.attention import attention_figure, attention_of
from fedrax.report.runs import Group, load_run
from fedrax.runtime.initial import saved_parts, with_saved
from fedrax.runtime.make import make_runtime
from fedrax.strategies.base import Tools
from fedrax.strategies.fedformer import others
from fedrax.trees import ravel_rows, tree_bytes, unravel_like

LAGS = ([], ["strategy.target_step=0.5"])
SMALL = [
    *("learner=sac", "strategy=fedformer", "federation.agents=4", "environment=Pendulum-v1", "budget.rounds=3"),
    *("environment.num_envs=2", "environment.horizon=8", "checkpoint.every=3", "evaluation.every=3"),
    *("learner.actor_layers=[4]", "learner.batch_size=8", "learner.buffer_size=256", "learner.num_steps=4"),
    *("learner.learning_starts=8", "critic.dim=4", "critic.heads=2", "critic.encoder_layers=[4]"),
    *("critic.decoder_layers=[4]", "critic.feedforward=4", "evaluation.episodes=1", "evaluation.environments=own"),
]


def made(*settings):
    return make_runtime(resolve({}, [*SMALL, *settings]))


def trained(*settings):
    """The first and the last state of one seed, and the rows."""
    runtime = made(*settings)
    first = runtime.init()
    start = jax.tree.map(lambda x: np.array(x[0]), first)
    ((after, rows),) = runtime.advance(first, 0)
    return start, jax.tree.map(lambda x: np.asarray(x[0]), after), rows


def vectors(features):
    return np.asarray(ravel_rows(features))


def context_of(state, federation, index):
    downlink = federation.strategy.broadcast(state.server, jax.random.key(7))
    agent = jax.tree.map(lambda x: x[index], state.agents)
    return federation.strategy.context(agent, downlink, jnp.asarray(index))


def test_peers_are_all_others():
    assert {tuple(sorted([k, *row])) for k, row in enumerate(others(5).tolist())} == {(0, 1, 2, 3, 4)}
    assert others(1).shape == (1, 0)


@pytest.mark.parametrize(
    ("settings", "readers"),
    [
        ([], 3),
        (["strategy.top=2"], 2),
        (["strategy.saved=earlier", "strategy.saved_peers=4"], 3),
        (["strategy.saved=earlier", "strategy.saved_peers=4", "strategy.top=5"], 3),
        (["strategy.exchange=none"], 0),
        (["strategy.exchange=self"], 0),
        (["federation.agents=1"], 0),
    ],
)
def test_a_mesh_sends_a_message_to_everyone_who_reads_it(settings, readers):
    assert made(*settings).federation.strategy.readers == readers


@pytest.mark.training
def test_the_server_holds_exact_copies_and_agents_none():
    start, after, rows = trained()
    np.testing.assert_array_equal(vectors(after.server.encoders), vectors(after.agents.params.features))
    assert (vectors(after.server.encoders) != vectors(start.server.encoders)).any(1).all()
    federation = made().federation
    seen = context_of(after, federation, 2)
    own = vectors(after.agents.params.features)
    np.testing.assert_array_equal(seen.ids, [3, 0, 1])
    np.testing.assert_array_equal(vectors(seen.features), own[[3, 0, 1]])
    # An agent's state is that of an agent without peers.
    alone = made("strategy.exchange=none").shapes()
    assert jax.tree.map(lambda x: x.shape, after.agents) == jax.tree.map(lambda x: x.shape[1:], alone.agents)
    attention = rows["attention"][0, -1]
    assert attention.shape == (4, 4)
    assert ((attention > 0) & (attention < 1)).all()
    assert (attention.sum(1) < 1).all()


@pytest.mark.training
@pytest.mark.parametrize("exchange", ["none", "self"])
def test_controls_exchange_nothing(exchange):
    start, after, _ = trained(f"strategy.exchange={exchange}")
    federation = made(f"strategy.exchange={exchange}").federation
    seen = context_of(after, federation, 0)
    if exchange == "none":
        np.testing.assert_array_equal(vectors(seen.features), vectors(start.agents.params.features)[1:])
        assert len(np.unique(vectors(start.agents.params.features), axis=0)) == 4
    else:
        own = vectors(after.agents.params.features)[0]
        np.testing.assert_array_equal(vectors(seen.features), np.stack([own] * 3))
    message, _ = federation.shapes()
    assert sum(x.size for x in jax.tree.leaves(message)) == 4


def served(settings, sent, *, present=(1, 1, 1, 1), rounds=1, attention=0.2):
    """The bank before and after encoders arrived that differ by ``sent`` from what it held, and the verdict."""
    count = len(present)
    federation = made(f"federation.agents={count}", *settings).federation
    state = jax.jit(federation.init)(jax.random.key(0))
    server, key = state.server, jax.random.key(1)
    verdict = None
    for _ in range(rounds):
        rows = vectors(server.encoders) + sent
        message, _ = federation.shapes()
        encoders = unravel_like(message.individual["encoders"], jnp.asarray(rows))

        def aggregate(vectors, weights, samples):
            return federation.aggregator(vectors, weights, samples=samples, key=key)

        tools = Tools(aggregate, lambda *_: None, key, jnp.arange(count))
        reported = jnp.broadcast_to(jnp.asarray(attention, jnp.float32), (count, count))
        messages = Message(individual={"encoders": encoders, "attention": reported})
        weights = jnp.asarray(present, jnp.float32)
        server, verdict = federation.strategy.combine(federation.learner, server, None, messages, weights, tools)
    return state.server, server, verdict


@pytest.mark.training
def test_who_sends_nothing_keeps_the_old_encoders_and_grows_old():
    before, after, _ = served([], 1.0, present=(1, 0, 1, 0), rounds=2)
    moved = vectors(after.encoders) - vectors(before.encoders)
    np.testing.assert_allclose(moved, np.array([2.0, 0, 2.0, 0])[:, None] * np.ones_like(moved), atol=1e-5)
    assert after.age.tolist() == [0, 2, 0, 2]
    federation = made("strategy.max_age=1").federation
    downlink = federation.strategy.broadcast(after, jax.random.key(0))
    assert downlink.known[0].tolist() == [False, True, False]
    assert downlink.peers[0].tolist() == [1, 2, 3]


@pytest.mark.training
def test_encoders_that_the_rule_rejects_are_not_shown():
    sent = np.array([[50.0], [0.0], [0.0], [0.0], [0.0]]) + 0.01
    rule = ["aggregator=multi-krum", "aggregator.tolerated=1"]
    before, after, verdict = served(rule, sent, present=(1,) * 5)
    assert not verdict.accepted[0]
    np.testing.assert_array_equal(vectors(after.encoders)[0], vectors(before.encoders)[0])
    assert after.age[0] == 1


def test_nobody_who_learns_is_rejected_for_good_and_whoever_sends_noise_is():
    """Encoders wander; the rule rejects one more than sends noise, so that somebody honest is rejected too."""
    federation = made("federation.agents=8", "aggregator=multi-krum", "aggregator.tolerated=2").federation
    server = jax.jit(federation.init)(jax.random.key(0)).server
    message, _ = federation.shapes()
    own, generator, accepted = vectors(server.encoders), np.random.default_rng(0), []

    @jax.jit
    def round_of(server, rows):
        key = jax.random.key(1)
        encoders = unravel_like(message.individual["encoders"], rows)
        sent = Message(individual={"encoders": encoders, "attention": jnp.zeros((8, 8))})
        tools = Tools(
            lambda rows, weights, samples: federation.aggregator(rows, weights, samples=samples, key=key),
            lambda *_: None,
            key,
            jnp.arange(8),
        )
        return federation.strategy.combine(federation.learner, server, None, sent, jnp.ones(8), tools)

    for _ in range(40):
        own = own + generator.normal(0, 0.01, own.shape)
        rows = np.concatenate([generator.normal(0, 1, (1, own.shape[1])), own[1:]])
        server, verdict = round_of(server, jnp.asarray(rows, jnp.float32))
        accepted.append(np.asarray(verdict.accepted))
    shares = np.mean(accepted, axis=0)
    assert shares[0] == 0
    assert (shares[1:] > 0.5).all()


def test_encoders_whose_encodings_would_overflow_are_not_shown():
    before, after, verdict = served([], np.array([[1e7], [1.0], [np.inf], [1.0]]))
    assert verdict.accepted.tolist() == [False, True, False, True]
    np.testing.assert_array_equal(vectors(after.encoders)[[0, 2]], vectors(before.encoders)[[0, 2]])


def test_what_is_accepted_whole_is_held_to_the_bit():
    """Differences of all sizes, whose sums are rounded."""
    sent = np.random.default_rng(0).lognormal(-6, 3, (4, 1)).astype(np.float32) * 0.1
    federation = made().federation
    rows = vectors(jax.jit(federation.init)(jax.random.key(0)).server.encoders) + sent
    assert (rows != vectors(jax.jit(federation.init)(jax.random.key(0)).server.encoders)).any(1).all()
    _, after, _ = served([], sent)
    np.testing.assert_array_equal(vectors(after.encoders), rows)


def test_false_reports_of_attention_are_shares_at_most():
    """And those of agents whose encoders are rejected are not recorded."""
    claimed = np.array([[1e6], [-3.0], [0.1], [0.1], [0.1]])
    _, after, _ = served([], 0.01, present=(1,) * 5, attention=claimed)
    attention = np.asarray(after.attention)
    np.testing.assert_allclose(attention[:, 0], [0.2, 0, 0.1, 0.1, 0.1], rtol=1e-6)
    assert (attention.sum(1) <= 1 + 1e-6).all()
    sent = np.array([[50.0], [0.0], [0.0], [0.0], [0.0]]) + 0.01
    rule = ["aggregator=multi-krum", "aggregator.tolerated=1"]
    _, after, _ = served(rule, sent, present=(1,) * 5, attention=0.1)
    assert (np.asarray(after.attention).sum(1) > 0).tolist() == [False, True, True, True, True]


def test_nobodys_encoders_arrive_in_a_round_that_is_undone():
    _, after, _ = served([], 1.0, present=(1, 0, 1, 1))
    undone = made().federation.strategy.undone(after, after)
    assert undone.age.tolist() == [1, 2, 1, 1]
    np.testing.assert_array_equal(vectors(undone.encoders), vectors(after.encoders))


def test_long_changes_are_shortened_to_the_median():
    sent = np.array([[100.0], [1.0], [1.0], [1.0]])
    before, after, _ = served(["strategy.clip=2.0"], sent)
    lengths = np.linalg.norm(vectors(after.encoders) - vectors(before.encoders), axis=1)
    assert lengths[0] == pytest.approx(2 * lengths[1], rel=1e-3)


def test_no_encoders_lag_where_none_are_exchanged():
    sizes = [tree_bytes(made("strategy.exchange=none", *more).federation.shapes()[1]) for more in LAGS]
    assert sizes[0] == sizes[1]


def test_target_encoders_lag():
    before, after, _ = served(["strategy.target_step=0.25"], 1.0)
    np.testing.assert_allclose(vectors(after.targets) - vectors(before.targets), 0.25, atol=1e-4)
    federation = made("strategy.target_step=0.25").federation
    downlink = federation.strategy.broadcast(after, jax.random.key(0))
    seen = downlink.of(0)
    np.testing.assert_allclose(vectors(seen.targets), vectors(after.targets)[1:], atol=1e-6)


@pytest.mark.training
def test_the_most_attended_are_seen_and_nobody_is_forgotten():
    runtime = made("strategy.top=2", "federation.agents=6")
    server = jax.jit(runtime.federation.init)(jax.random.key(0)).server
    attention = jnp.zeros((6, 6)).at[0, 4].set(0.5)
    server = dataclasses.replace(server, attention=attention)
    drawn = [runtime.federation.strategy.broadcast(server, jax.random.key(i)).of(0) for i in range(40)]
    assert all(seen.peers[0] == 4 for seen in drawn)
    assert {int(seen.peers[1]) for seen in drawn} == {1, 2, 3, 5}
    assert jax.tree.leaves(drawn[0].encoders)[0].shape[0] == 2


def test_the_place_at_random_is_none_of_those_too_old():
    strategy = made("strategy.top=2", "strategy.max_age=1", "federation.agents=6").federation.strategy
    server = jax.jit(made("federation.agents=6").federation.init)(jax.random.key(0)).server
    attention = jnp.zeros((6, 6)).at[0, 4].set(0.5).at[0, 1].set(0.9)
    server = dataclasses.replace(server, attention=attention, age=jnp.array([0, 2, 0, 5, 0, 0]))
    drawn = [strategy.broadcast(server, jax.random.key(i)).of(0) for i in range(40)]
    assert all(seen.known.all() and seen.peers[0] == 4 for seen in drawn)
    assert {int(seen.peers[1]) for seen in drawn} == {2, 5}
    # With fewer that are young enough than places, the others are not seen.
    server = dataclasses.replace(server, age=jnp.array([0, 2, 3, 5, 0, 4]))
    assert strategy.broadcast(server, jax.random.key(0)).of(0).known.tolist() == [True, False]


@pytest.mark.slow
def test_an_attack_on_encoders_is_withstood_by_a_rule_that_rejects():
    settings = ["attack=random-noise", "attack.agents=1", "federation.agents=5"]
    _, harmed, _ = trained(*settings)
    start, held, rows = trained(*settings, "aggregator=multi-krum")
    false = (vectors(harmed.server.encoders) != vectors(harmed.agents.params.features)).any(1)
    assert false.sum() == 1
    np.testing.assert_array_equal(vectors(held.server.encoders)[false], vectors(start.server.encoders)[false])
    assert rows["accepted"][0].max() < 5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["strategy.top=4"], "strategy.top = 4 is not allowed"),
        (["critic=mlp"], "set critic to one of: fedformer"),
        (["aggregator=median"], "averages nothing, so aggregator 'median' would change nothing"),
        (["aggregator=krum"], "accepts one message a round"),
        (["preaggregator=bucketing"], "mixes updates, and strategy 'fedformer' averages none"),
        (["strategy.exchange=none", "aggregator=multi-krum"], "aggregator 'multi-krum' would change nothing"),
        (
            ["strategy.exchange=self", "attack=large-noise", "attack.agents=1"],
            "attack 'large-noise' would change nothing",
        ),
        (["strategy.exchange=none", "strategy.clip=2"], "shortens what is sent, and nothing is"),
        (["strategy.clip=0"], "would take nothing of what is sent"),
        (["privacy.clip=1"], "messages of strategy 'fedformer' hold no updates"),
        (["learner=ppo"], "critic 'fedformer' is for off-policy learners"),
        (["strategy=local", "learner=ppo", "critic=fedformer"], "critic 'fedformer' is for off-policy learners"),
    ],
)
def test_what_does_not_fit_is_refused(settings, words):
    small = [each for each in SMALL if not each.startswith(("learner.", "critic."))]
    config = resolve({}, [*small, *settings])
    with pytest.raises(FedraxError, match=words) as caught:
        make_runtime(config)
    assert "\n" not in str(caught.value)


def test_an_agent_without_peers_is_alone():
    runtime = made("federation.agents=1")
    after, _ = jax.eval_shape(runtime._rounds, runtime.shapes(), jnp.asarray(0))
    assert jax.tree.structure(after) == jax.tree.structure(runtime.shapes())


@pytest.mark.training
@pytest.mark.parametrize("strategy", ["local", "fedavg", "central"])
def test_other_strategies_leave_the_critic_to_itself(strategy):
    runtime = made(f"strategy={strategy}", "critic=fedformer")
    after, _ = jax.eval_shape(runtime._rounds, runtime.shapes(), jnp.asarray(0))
    assert jax.tree.structure(after) == jax.tree.structure(runtime.shapes())


# Encoders of an earlier run.


@pytest.fixture
def saved(tmp_path):
    """The networks of an earlier run's four agents, and their file."""
    runtime = made("seed=5")
    params = jax.tree.map(np.asarray, runtime.init().agents.params)
    save_policy(tmp_path / "policy.safetensors", params)
    return jax.tree.map(lambda x: x[0], params), tmp_path / "policy.safetensors"


def test_saved_encoders_follow_the_peers_of_every_agent():
    assert others(3, 2).tolist() == [[1, 2, 3, 4], [2, 0, 3, 4], [0, 1, 3, 4]]
    assert others(1, 2).tolist() == [[1, 2]]


@pytest.mark.training
@pytest.mark.parametrize("agents", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_agents_attend_to_saved_encoders(agents, saved):
    networks, path = saved
    settings = [f"federation.agents={agents}", f"strategy.saved={path}", "strategy.saved_peers=4"]
    config = resolve({}, [*SMALL, *settings])
    runtime = make_runtime(config)
    federation = runtime.federation
    first = with_saved(runtime.init(), federation, saved_parts(config, federation))
    ((after, rows),) = runtime.advance(first, 0)
    state = jax.tree.map(lambda x: x[0], after)
    assert state.agents.params.head[0].identities.shape[1] == agents + 4 + 1
    seen = context_of(state, federation, 0)
    assert seen.ids.tolist() == [*range(1, agents), *range(agents, agents + 4)]
    np.testing.assert_array_equal(vectors(seen.features)[-4:], vectors(networks.features))
    taken = np.asarray(rows["attention"])[0, -1]
    assert taken.shape == (agents, agents + 4)
    assert (taken > 0).all()


@pytest.mark.training
def test_the_most_attended_may_be_saved(saved):
    _, path = saved
    runtime = made("federation.agents=2", f"strategy.saved={path}", "strategy.saved_peers=4", "strategy.top=1")
    strategy = runtime.federation.strategy
    server = jax.tree.map(lambda x: x[0], runtime.init().server)
    chosen = {
        int(peer) for number in range(40) for peer in strategy.broadcast(server, jax.random.key(number)).peers.ravel()
    }
    assert chosen == {0, 1, 2, 3, 4, 5}


@pytest.mark.training
def test_a_run_goes_on_without_the_file_of_its_saved_encoders(saved, tmp_path):
    _, path = saved
    settings = [*SMALL, "federation.agents=2", "strategy.saved_peers=4", "checkpoint.every=1", "evaluation.every=1"]
    run = fedrax.train({}, [*settings, f"strategy.saved={path}"], out=tmp_path / "run", progress=False)
    path.unlink()
    longer = fedrax.resume(run.path, ["budget.rounds=4"], progress=False)
    assert longer.summary()["rounds"] == 4
    rows = longer.metrics()
    assert [row["bytes_mesh"] for row in rows] == [row["bytes_up"] for row in rows], "one other agent reads a message"
    assert longer.summary()["bytes_mesh"] == rows[-1]["bytes_mesh"] > 0
    figure = attention_figure(attention_of([Group("onboarded", (load_run(longer.path),))]))
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["0", "1", "saved 0", "saved 1", "saved 2", "saved 3"]


@pytest.mark.parametrize(
    ("theirs", "told"),
    [
        (["learner.activation=tanh"], 'learner.activation = "tanh", and this run has "relu"'),
        (["learner.scale_actions=false"], "learner.scale_actions = false, and this run has true"),
        (["strategy=local", "critic=fedformer", "learner.normalise=true"], "learner.normalise = true"),
    ],
)
def test_saved_encoders_that_were_used_otherwise_are_refused(theirs, told, tmp_path):
    (tmp_path / "config.toml").write_text(resolve({}, [*SMALL, *theirs]).to_toml())
    config = resolve({}, [*SMALL, f"strategy.saved={tmp_path}", "strategy.saved_peers=4"])
    with pytest.raises(FedraxError, match=told) as error:
        saved_parts(config, make_runtime(config).federation)
    assert "\n" not in str(error.value)


@pytest.mark.training
def test_saved_encoders_that_are_not_those_expected_are_refused(saved, tmp_path):
    _, path = saved
    for number, (settings, said) in enumerate(
        (
            (["strategy.saved_peers=3"], "holds networks of 4 agents; set strategy.saved_peers=4"),
            ([], "strategy.saved_peers=4"),
            (["strategy.saved_peers=4", "critic.dim=8"], "other"),
            (["strategy.saved_peers=4", "strategy.exchange=self"], "strategy.exchange = 'self' shows no peers"),
            (["strategy.saved_peers=4", "critic.identities=4"], "critic.identities = 4 is too few for 8 agents"),
        )
    ):
        with pytest.raises(FedraxError, match=said):
            fedrax.train({}, [*SMALL, f"strategy.saved={path}", *settings], out=tmp_path / str(number), progress=False)
    with pytest.raises(FedraxError, match="without strategy"):
        made("strategy.saved_peers=2")
    with pytest.raises(FedraxError, match="nothing-here"):
        fedrax.train(
            {},
            [*SMALL, "strategy.saved=nothing-here", "strategy.saved_peers=4"],
            out=tmp_path / "other",
            progress=False,
        )
