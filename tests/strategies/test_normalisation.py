"""Moments of observations in a federation: those of all agents' observations together, whoever sends what."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.attacks.base import Knowledge
from fedrax.config import resolve
from fedrax.environments.base import Steps
from fedrax.errors import FedraxError
from fedrax.federation import Cohort
from fedrax.learners.base import Objective, UpdateContext
from fedrax.learners.off_policy import observed as observed_by
from fedrax.runtime.make import make_runtime
from fedrax.strategies.return_weights import Returns

AGENTS, STEPS, COPIES = 3, 4, 2
TD3 = [
    *("learner=td3", "environment=PointReach-v0", "learner.normalise=true", "learner.num_steps=4"),
    *("learner.actor_layers=[4]", "learner.feature_layers=[4]", "learner.head_layers=[4]", "learner.batch_size=8"),
    *("learner.buffer_size=64", "learner.learning_starts=4", "environment.num_envs=2", "budget.rounds=2"),
    f"federation.agents={AGENTS}",
]
STRATEGIES = {
    "fedavg": [],
    "weighted": ["strategy=fedavg", "strategy.return_temperature=1.0"],
    "the poorest alone": ["strategy=fedavg", "strategy.return_temperature=0"],
    "fedper": ["strategy=fedper", 'strategy.average=["features"]'],
    "fedprox": ["strategy=fedprox"],
    "moon": ["strategy=moon"],
    "scaffold": ["strategy=scaffold"],
    "distillation": ["strategy=distillation", "strategy.epochs=1", "strategy.local_steps=1"],
}


def federation(*overrides):
    return make_runtime(resolve({}, [*TD3, *(overrides or ["strategy=fedavg"])])).federation


def observed(generator, space, centre):
    """A collection of normally distributed observations around a centre, some of whose steps are no experience."""
    observation = jax.tree.map(
        lambda part: jnp.asarray(generator.normal(centre, 2.0, (STEPS + 1, COPIES, *part.shape)), jnp.float32),
        space.tree,
    )
    zeros = jnp.zeros((STEPS, COPIES))
    valid = jnp.asarray(generator.random((STEPS, COPIES)) < 0.7)
    action = jnp.asarray(generator.uniform(-1, 1, (STEPS, COPIES, 2)), jnp.float32)
    return Steps(observation, (), action, zeros, valid, zeros > 0, zeros > 0, zeros)


@eqx.filter_jit
def one_round(federation, server, agents, collections, round, answers):
    """A round in which agents observe these collections and learn nothing; of all agents, leaves ``[agents, ...]``."""
    key, ids = jax.random.key(0), jnp.arange(AGENTS)
    downlink = federation.broadcast(server, key, round)

    def one(agent, experience, index):
        agent = federation.strategy.absorb(agent, downlink, index)
        agent = dataclasses.replace(agent, params=observed_by(agent.params, experience))
        if getattr(federation.strategy, "reports", False):
            private = dataclasses.replace(agent.private, returns=Returns(10.0 * index, jnp.asarray(1)))
            agent = dataclasses.replace(agent, private=private)
        return agent, federation.strategy.emit(federation.learner, agent, key)

    agents, messages = jax.vmap(one)(agents, collections, ids)
    cohort = Cohort(ids, jnp.zeros(AGENTS, bool), answers)
    return federation.exchange(server, downlink, cohort, messages, key, round)[0], agents


def stacked(each):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


def acted_on(experience):
    """The observations that are experience, as rows of each array."""
    valid = np.asarray(experience.valid)
    return {name: np.asarray(x)[:-1][valid] for name, x in experience.observation.items()}


@pytest.mark.training
@pytest.mark.parametrize("name", STRATEGIES)
def test_the_servers_moments_are_those_of_the_pooled_data(name):
    """Over rounds, with an agent that does not answer in the second: its observations are none of the server's."""
    together = federation(*(STRATEGIES[name] or ["strategy=fedavg"]))
    state = together.init(jax.random.key(0))
    server, agents = state.server, state.agents
    generator, arrived = np.random.default_rng(0), []
    for round in range(3):
        collections = [observed(generator, together.spaces.observation, 10.0 * index) for index in range(AGENTS)]
        answers = [True, round != 1, True]
        server, agents = one_round(
            together, server, agents, stacked(collections), jnp.asarray(round), jnp.asarray(answers)
        )
        arrived += [acted_on(each) for each, sent in zip(collections, answers, strict=True) if sent]
    moments = server.params.normaliser.shared
    pooled = {name: np.concatenate([each[name] for each in arrived]).astype(np.float64) for name in arrived[0]}
    pooled["achieved_goal"] = np.concatenate([pooled["achieved_goal"], pooled.pop("desired_goal")])
    assert set(moments) == set(pooled)
    for part, rows in pooled.items():
        np.testing.assert_array_equal(moments[part].count, len(rows))
        np.testing.assert_allclose(moments[part].mean, rows.mean(0), rtol=1e-5)
        np.testing.assert_allclose(moments[part].spread, ((rows - rows.mean(0)) ** 2).sum(0), rtol=1e-5)


@pytest.mark.training
def test_everybody_sees_by_the_same_moments_after_a_broadcast():
    together = federation()
    state = together.init(jax.random.key(0))
    generator = np.random.default_rng(0)
    collections = [observed(generator, together.spaces.observation, 10.0 * index) for index in range(AGENTS)]
    server, agents = one_round(
        together, state.server, state.agents, stacked(collections), jnp.asarray(0), jnp.ones(AGENTS, bool)
    )
    agents = [jax.tree.map(lambda x, i=i: x[i], agents) for i in range(AGENTS)]
    downlink = together.broadcast(server, jax.random.key(1), jnp.asarray(1))
    observation = jax.tree.map(lambda x: x[0], collections[2].observation)
    alone = [agent.params.seen(observation)["observation"] for agent in agents]
    assert not np.allclose(alone[0], alone[2])
    after = [together.strategy.absorb(agent, downlink, jnp.asarray(i)) for i, agent in enumerate(agents)]
    for agent in after:
        seen = [params.seen(observation)["observation"] for params in (agent.params, server.params)]
        np.testing.assert_array_equal(*seen)


def test_moments_are_no_update_and_no_part_to_average():
    """No rule averages them, no attack on updates touches them."""
    together = federation()
    message, downlink = together.shapes()
    assert not jax.tree.leaves(message.update.normaliser)
    assert not jax.tree.leaves(downlink.params.normaliser)
    sums = jax.tree.leaves(message.statistics)
    # Count, mean and squared distance of each number of the observation and of one goal.
    assert sum(leaf.size for leaf in sums) == 3 * (together.spaces.observation.tree["observation"].shape[0] + 2)
    with pytest.raises(FedraxError, match="allowed: actor, features, head"):
        make_runtime(resolve({}, [*TD3, "strategy=fedavg", 'strategy.average=["normaliser"]'])).init()


def test_a_lie_about_sums_is_an_attack_of_its_own():
    lying = federation("strategy=fedavg", "attack=false-statistics", "attack.agents=1", "attack.sums=3.0")
    state = lying.init(jax.random.key(0))
    collections = stacked([observed(np.random.default_rng(i), lying.spaces.observation, 5.0) for i in range(AGENTS)])

    def message(agent, experience):
        agent = dataclasses.replace(agent, params=observed_by(agent.params, experience))
        return lying.strategy.emit(lying.learner, agent, jax.random.key(0))

    together = jax.vmap(message)(state.agents, collections)
    sent = lying.attack.applied(
        together, jnp.asarray([True, False, False]), jax.random.key(0), Knowledge(lambda rows: rows.mean(0))
    )
    for before, after in zip(jax.tree.leaves(together.statistics), jax.tree.leaves(sent.statistics), strict=True):
        np.testing.assert_array_equal(before[1:], after[1:])
    first = sent.statistics.observations["observation"].mean
    np.testing.assert_allclose(first[0], 3.0 * together.statistics.observations["observation"].mean[0], rtol=1e-6)
    honest = ["strategy=fedavg", "attack=false-statistics", "attack.agents=1", "learner.normalise=false"]
    with pytest.raises(FedraxError, match=r"learner\.normalise=true"):
        federation(*honest)


@pytest.mark.training
def test_networks_and_targets_see_by_the_moments_of_what_was_just_collected():
    alone = federation("strategy=local")
    agent = jax.tree.map(lambda x: x[0], alone.init(jax.random.key(0)).agents)
    experience = observed(np.random.default_rng(0), alone.spaces.observation, 5.0)
    context = UpdateContext(jax.random.key(0), jnp.asarray(0.0))
    agent, _ = eqx.filter_jit(alone.learner.learn)(agent, experience, Objective(), context)
    own = agent.params.normaliser.own
    rows = acted_on(experience)
    np.testing.assert_allclose(own["observation"].mean, rows["observation"].mean(0), rtol=1e-5)
    np.testing.assert_array_equal(own["achieved_goal"].count, 2 * len(rows["observation"]))
    jax.tree.map(np.testing.assert_array_equal, agent.memory.target.normaliser, agent.params.normaliser)


def test_without_the_option_nothing_is_added():
    plain = federation("strategy=fedavg", "learner.normalise=false")
    message, downlink = plain.shapes()
    assert not jax.tree.leaves(message.statistics)
    assert not jax.tree.leaves(downlink.moments)


@pytest.mark.parametrize(
    "settings",
    [
        ["strategy=gossip", 'strategy.average=["features", "head", "actor"]'],
        ["learner=sac", "strategy=fedformer"],
    ],
)
def test_networks_of_others_are_not_used_under_moments_of_ones_own(settings):
    with pytest.raises(FedraxError, match="each of which sees observations by the moments of its own agent") as error:
        federation(*settings)
    assert "\n" not in str(error.value)
