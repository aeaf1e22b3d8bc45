"""The attending critic: its numbers beside PyTorch's transformer, and what it may and may not see."""

import dataclasses
import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_td3 import SPACES, batch_of, training_of, update_context, vector
from test_td3 import steps_of as real_steps

from fedrax.environments.base import Discrete, Spaces
from fedrax.errors import FedraxError
from fedrax.learners.base import Objective, UpdateContext, learners
from fedrax.learners.critics.base import Peers, Sight, View, critics
from fedrax.learners.encoders import Flatten
from fedrax.learners.mlp import MLP, MLPMaker
from fedrax.learners.networks import Dense

GOLDEN = json.loads(Path(__file__).with_name("golden_fedformer.json").read_text())
AGENTS, OWN, INPUTS, HIDDEN, DIM, HEADS, FEEDFORWARD, LAYERS, DECODER, BATCH = 3, 1, 5, 6, 8, 2, 16, 2, 7, 4
CRITIC = {"dim": 8, "encoder_layers": (6,), "heads": 2, "feedforward": 16, "decoder_layers": (7,), "layers": 2}
LEARNER = {"actor_layers": (8,), "num_steps": 2, "batch_size": 8, "learning_starts": 4}


class Sines:
    """The numbers of benchmarks/golden/fedformer_from_torch.py, in its order."""

    start = 0

    def __call__(self, *shape):
        count = int(np.prod(shape))
        numbers = 0.4 * np.sin(1.7 * np.arange(self.start, self.start + count))
        self.start += count
        return jnp.asarray(numbers.reshape(shape), jnp.float32)

    def dense(self, inputs, outputs):
        return Dense(self(outputs, inputs), self(outputs), by_output=True)

    def mlp(self, *widths):
        layers = tuple(self.dense(i, o) for i, o in itertools.pairwise(widths))
        return MLP(Flatten(widths[:1], 1.0), layers, "relu", activate_last=False)


def layer(sines, made):
    """One layer with the numbers of PyTorch's, whose projections are one matrix."""
    projections, offsets = sines(3 * DIM, DIM), sines(3 * DIM)
    named = {
        name: Dense(projections[i * DIM : (i + 1) * DIM], offsets[i * DIM : (i + 1) * DIM], by_output=True)
        for i, name in enumerate(("query", "key", "value"))
    }
    named |= {
        "output": sines.dense(DIM, DIM),
        "expand": sines.dense(DIM, FEEDFORWARD),
        "contract": sines.dense(FEEDFORWARD, DIM),
    }
    for name in ("first", "second"):
        weight, bias = sines(DIM), sines(DIM)
        named[name] = dataclasses.replace(getattr(made, name), weight=weight, bias=bias)
    return dataclasses.replace(made, **named)


def make_critic(**options):
    return critics.build("fedformer", {**CRITIC, **options}).bind(AGENTS)


def peers_of(features, ids, index, known=None):
    """Peers with these features ``[k, ...]`` of both critics."""
    known = jnp.ones(len(ids), bool) if known is None else jnp.asarray(known)
    return Peers((features, features), (features, features), jnp.asarray(ids), known, jnp.asarray(index))


def stacked(each):
    return jax.tree.map(lambda *x: jnp.stack(x), *each)


@pytest.mark.training
@pytest.mark.parametrize("order", ["post", "pre"])
def test_values_and_gradients_are_pytorchs(order):
    sines = Sines()
    encoders = [sines.mlp(INPUTS, HIDDEN, DIM) for _ in range(AGENTS)]
    critic = make_critic(queries="all", standardise=False, norm_first=order == "pre")
    made = critic.head(jax.random.key(0), MLPMaker(SPACES, "auto", "relu", "fan-in"), DIM, (), 1)
    identities, summary = sines(AGENTS + 1, DIM), sines(DIM)
    layers = tuple(layer(sines, made.layers[0]) for _ in range(LAYERS))
    head = dataclasses.replace(
        made, identities=identities, summary=summary, layers=layers, decoder=sines.mlp(2 * DIM, DECODER, 1)
    )
    x = sines(BATCH, INPUTS)
    peers = peers_of(stacked([encoders[2], encoders[0]]), [2, 0], OWN)

    def value(x):
        return head(encoders[OWN](x), Sight(peers).view(0, x))[..., 0]

    np.testing.assert_allclose(value(x), GOLDEN[order]["values"], rtol=1e-4, atol=1e-5)
    gradient = jax.grad(lambda x: value(x).sum())(x)
    np.testing.assert_allclose(gradient.ravel(), GOLDEN[order]["gradient"], rtol=1e-3, atol=1e-5)


def make(name="sac", spaces=SPACES, learner=(), **options):
    made = learners.build(name, {**LEARNER, **dict(learner)}).judged_by(make_critic(**options))
    made.check(spaces)
    return made, made.init(jax.random.key(1), spaces)


def others(learner, spaces=SPACES, count=2, seed=10):
    """The features of so many other agents."""
    each = [learner.init_params(jax.random.key(seed + i), spaces).features for i in range(count)]
    return stacked(each)


def sight_of(learner, index=0, ids=(1, 2), known=None, spaces=SPACES):
    both = others(learner, spaces, len(ids))
    known = jnp.ones(len(ids), bool) if known is None else jnp.asarray(known)
    return Sight(Peers(both, both, jnp.asarray(ids), known, jnp.asarray(index)))


def both_values(params, sight, batch):
    return np.stack(params.values(batch.observation, batch.action, sight))


@pytest.mark.training
def test_one_layer_asks_the_same_with_one_query_as_with_all():
    _, one = make(layers=1, queries="one")
    learner, every = make(layers=1, queries="all")
    batch, sight = batch_of(), sight_of(learner)
    np.testing.assert_allclose(
        both_values(one.params, sight, batch), both_values(every.params, sight, batch), rtol=1e-4, atol=1e-5
    )


@pytest.mark.training
@pytest.mark.parametrize("queries", ["one", "all"])
def test_peers_that_are_not_known_change_nothing(queries):
    learner, agent = make(queries=queries)
    batch = batch_of()
    hidden = both_values(agent.params, sight_of(learner, known=[True, False]), batch)
    shown = both_values(agent.params, sight_of(learner, ids=(1,)), batch)
    np.testing.assert_allclose(hidden, shown, rtol=1e-4, atol=1e-5)
    nobody = both_values(agent.params, sight_of(learner, known=[False, False]), batch)
    np.testing.assert_allclose(nobody, both_values(agent.params, Sight(), batch), rtol=1e-4, atol=1e-5)
    assert np.abs(nobody - shown).max() > 1e-3


def test_the_order_of_peers_does_not_matter_and_who_they_are_does():
    learner, agent = make()
    batch, sight = batch_of(), sight_of(learner)
    peers = sight.peers
    turned = Sight(
        Peers(
            *(jax.tree.map(lambda x: x[::-1], each) for each in (peers.features, peers.target_features)),
            peers.ids[::-1],
            peers.known,
            peers.index,
        )
    )
    values = both_values(agent.params, sight, batch)
    np.testing.assert_allclose(both_values(agent.params, turned, batch), values, rtol=1e-4, atol=1e-5)
    renamed = Sight(dataclasses.replace(peers, ids=peers.ids[::-1]))
    assert np.abs(both_values(agent.params, renamed, batch) - values).max() > 1e-3


@pytest.mark.training
def test_gradients_pass_through_peers_to_the_action_and_stop_at_their_weights():
    learner, agent = make()
    batch, sight = batch_of(), sight_of(learner)

    def value(action, params):
        return sum(x.sum() for x in params.values(batch.observation, action, sight))

    # Without an encoding of its own, an action reaches the value through the peers alone.
    mute = dataclasses.replace(agent.params, features=jax.tree.map(jnp.zeros_like, agent.params.features))
    assert np.abs(jax.grad(value)(batch.action, mute)).max() > 1e-6
    context = UpdateContext(jax.random.key(3), jnp.asarray(0.0), sight.peers)
    after = agent
    for _ in range(3):
        after, report = learner.learn(after, real_steps([1.0, 0.0, 1.0]), Objective(), context)
    assert np.isfinite(report["critic_loss"])
    for part in ("features", "head", "actor"):
        assert (vector(getattr(after.params, part)) != vector(getattr(agent.params, part))).any()
    assert jax.tree.structure(after) == jax.tree.structure(agent)


def test_targets_see_the_features_that_are_meant_for_them():
    learner, agent = make()
    batch, sight = batch_of(), sight_of(learner)
    noise = learner.noise(jax.random.key(0), batch)
    training = training_of(learner, agent)
    plain = learner.targets(training, batch, noise, sight)
    other = jax.tree.map(lambda x: x + 0.3, sight.peers.features)
    moved = learner.targets(training, batch, noise, Sight(dataclasses.replace(sight.peers, features=other)))
    np.testing.assert_array_equal(moved, plain)
    moved = learner.targets(training, batch, noise, Sight(dataclasses.replace(sight.peers, target_features=other)))
    assert np.abs(moved - plain).max() > 1e-4


@pytest.mark.training
def test_attention_is_one_in_total_and_none_before_the_replay_is_filled():
    learner, agent = make(learner={"batch_size": 8})
    sight = sight_of(learner, known=[True, False])
    none = learner.attention(agent, sight.peers, jax.random.key(0))
    np.testing.assert_array_equal(none, np.zeros(4))
    context = UpdateContext(jax.random.key(3), jnp.asarray(0.0), sight.peers)
    for _ in range(2):
        agent, _ = learner.learn(agent, real_steps([1.0, 0.0, 1.0]), Objective(), context)
    taken = np.asarray(learner.attention(agent, sight.peers, jax.random.key(0)))
    assert taken.sum() == pytest.approx(1.0, abs=1e-5)
    assert taken[3] == 0
    assert (taken[:3] > 0).all()


def test_encodings_are_standardised_before_identities_are_added():
    """A peer's encoding times a hundred is the same to attention, and is not where nothing is standardised."""
    for standardise, same in ((True, True), (False, False)):
        learner, agent = make(standardise=standardise)
        head, own = agent.params.head[0], jax.random.normal(jax.random.key(0), (8, 8))
        peers = sight_of(learner).peers
        encodings = jax.random.normal(jax.random.key(1), (2, 8, 8))
        plain = head.attend(own, View(encodings, peers))[0]
        large = head.attend(own, View(100 * encodings, peers))[0]
        assert np.allclose(plain, large, atol=1e-3) == same


def test_dropout_is_for_learning_alone():
    learner, agent = make(dropout=0.5)
    batch, sight = batch_of(), sight_of(learner)
    learnt = [both_values(agent.params, Sight(sight.peers, jax.random.key(i)), batch) for i in (0, 0, 1)]
    np.testing.assert_array_equal(learnt[0], learnt[1])
    assert np.abs(learnt[0] - learnt[2]).max() > 1e-3
    _, whole = make(dropout=0.0)
    np.testing.assert_array_equal(both_values(agent.params, sight, batch), both_values(whole.params, sight, batch))
    many = np.mean([agent.params.head[0].layers[0]._dropped(jnp.ones(1000), jax.random.key(i)) for i in range(20)])
    assert many == pytest.approx(1.0, abs=0.05)


def test_targets_may_start_apart():
    _, same = make()
    _, apart = make(separate_targets=True)
    np.testing.assert_array_equal(vector(same.memory.target), vector(same.params))
    for part in ("features", "head"):
        assert (vector(getattr(apart.memory.target, part)) != vector(getattr(apart.params, part))).any()
    np.testing.assert_array_equal(vector(apart.memory.target.actor), vector(apart.params.actor))


@pytest.mark.training
@pytest.mark.parametrize("name", ["td3", "sac-discrete"])
def test_every_off_policy_learner_attends(name):
    spaces = SPACES if name == "td3" else Spaces(SPACES.observation, Discrete(4))
    learner, agent = make(name, spaces)
    context = UpdateContext(jax.random.key(3), jnp.asarray(0.0), sight_of(learner, spaces=spaces).peers)
    alone, _ = learner.learn(agent, steps(spaces), Objective(), update_context())
    among, report = learner.learn(agent, steps(spaces), Objective(), context)
    assert np.isfinite(report["critic_loss"])
    assert (vector(alone.params.head) != vector(among.params.head)).any()


def steps(spaces):
    """Enough of them to learn from."""
    made = real_steps([1.0, 0.0, 1.0, 0.0, 1.0])
    if isinstance(spaces.action, Discrete):
        made = dataclasses.replace(made, action=jnp.asarray([[0], [1], [2], [3], [0]]))
    return made


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heads": 3}, "critic.heads = 3 does not divide critic.dim = 8"),
        ({"identities": 2}, "critic.identities = 2 is too few for 3 agents"),
    ],
)
def test_what_does_not_fit_is_refused(options, words):
    with pytest.raises(FedraxError, match=words):
        make_critic(**options)
