"""What finite numbers come to that is not finite: agents and servers are as before, and take part in the next round."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import faulty
from faulty import Lavish
from faulty_runs import EPISODES, HOST, TD3, advanced, agent, configured, equal, finite, flaky, host
from fedrax.attacks.base import Attack, attacks, replace_rows
from fedrax.config import resolve
from fedrax.environments.faults import LEARNING
from fedrax.learners.hindsight import HindsightReplay
from fedrax.learners.moments import Moments
from fedrax.runtime.make import make_runtime
from fedrax.runtime.overflow import overflowed, sound


@pytest.fixture
def fresh_counts():
    faulty.Rich.count = faulty.RichBox.count = 0


@pytest.mark.training
@pytest.mark.parametrize("overrides", [[], ["federation.local_updates=2"], ["strategy=scaffold"], ["seeds=2"]])
def test_what_overflows_in_learning_is_undone_and_named(overrides):
    """From finite rewards a network comes to NaN, and an optimiser's moments, which would never be finite again."""
    settings = ["learner.max_gradient_norm=none", *overrides]
    states, rows = advanced(flaky(*settings, each=[0.0, 1.0, 0.0], kind=Lavish), 3)
    dropped = rows["dropped"][:, :, 0]
    # With two updates a round the second one ends an episode, and the third step of the next one is lavish again.
    assert dropped[0].tolist() == [0, LEARNING, 0]
    assert dropped[2].tolist() == [0] * 3
    assert rows["present"].tolist() == (3 - dropped.astype(bool).sum(1)).tolist()
    assert not rows["excluded"].any()
    for index in range(3):
        assert equal(agent(states[index], 1), agent(states[index + 1], 1)) == bool(dropped[index, 1])
    assert finite(states[-1].agents)
    assert finite(states[-1].server.params)


@pytest.mark.training
@pytest.mark.parametrize(
    ("id", "overrides"),
    [
        ("Rich", []),
        pytest.param("Rich", ["federation.local_updates=2", "runtime.agents_per_batch=1"], marks=pytest.mark.slow),
        ("RichBox", [*TD3[:2], "learner.batch_size=64", *TD3[3:-2]]),
    ],
)
def test_what_overflows_in_learning_is_undone_on_the_host_too(id, overrides, fresh_counts):
    settings = ["evaluation.every=4", "checkpoint.every=4", "environment.horizon=10", *overrides]
    states, rows = advanced(host(id, *settings), 1)
    (index, who) = np.argwhere(rows["dropped"][:, :, 0])[0]
    assert rows["dropped"][index, who, 0] == LEARNING
    assert np.count_nonzero(rows["dropped"]) == 1
    assert rows["present"].tolist() == [2 if round == index else 3 for round in range(4)]
    assert finite(states[-1].agents)
    assert finite(states[-1].server.params)


@pytest.mark.training
def test_a_servers_own_step_that_overflows_is_undone():
    overrides = ["strategy=fedpg-br", "learner=policy-gradient", "strategy.batch_min=4", "strategy.batch_max=5"]
    overrides += ["strategy.minibatch=1", "strategy.mode=paper", "aggregator.sigma=100", "environment.horizon=6"]
    runtime = flaky(*overrides, "learner.baseline=none", chance=1.0, each=[0.0, 0.0, 0.0], kind=Lavish)
    states, rows = advanced(runtime, 4)
    sampled = rows["server_trajectories"] > 0
    assert sampled.any()
    assert (rows["server_dropped"][:, 0] == np.where(sampled, LEARNING, 0)).all()
    assert finite(states[-1].server)
    assert rows["present"].tolist() == [3] * 4, "the agents' messages are of a policy that is finite"


@attacks.register("test-huge")
class Huge(Attack):
    """Sends 1e30 in every place."""

    def corrupt(self, messages, byzantine, key, knowledge):
        return replace_rows(messages, byzantine, jax.tree.map(lambda x: jnp.full_like(x, 1e30), messages))


@pytest.mark.training
@pytest.mark.parametrize("backend", [[], ["environment.native=false", *HOST]])
def test_messages_that_overflow_the_servers_optimiser_cost_their_round_alone(backend):
    """Every message is finite, and the square of their mean is not: the second moment would be infinite for good."""
    overrides = [*EPISODES, "learner.optimizer=adam", "attack=test-huge", "attack.agents=2", *backend]
    states, rows = advanced(make_runtime(configured(*overrides)), 2)
    assert equal(states[0].server, states[-1].server)
    assert rows["present"].tolist() == [0, 0]
    assert rows["excluded"].all()
    assert finite(states[-1].agents)


@pytest.mark.training
def test_an_attackers_overflow_is_its_own_business():
    """Rewards are forged after collecting, so the collection has no fault. It is as before, its message excluded."""
    states, rows = advanced(make_runtime(configured("attack=test-nan-reward", "attack.agents=1")), 2)
    assert not rows["dropped"].any()
    assert rows["excluded"].tolist() == [[True, False, False]] * 2
    assert equal(agent(states[0], 0), agent(states[-1], 0))
    assert not equal(agent(states[0], 1), agent(states[-1], 1))


@attacks.register("test-nan-reward")
class NanRewards(Attack):
    """Forges rewards that are not finite."""

    def poison(self, reward, valid, key):
        return jnp.full_like(reward, jnp.nan)


@pytest.mark.training
def test_a_round_that_is_undone_is_counted():
    """Networks that travel every other round would else be taken over in rounds in which they did not travel."""
    overrides = ["strategy=fedavg", "strategy.actor_every=2", "attack=test-huge", "attack.agents=2", "budget.rounds=4"]
    states, rows = advanced(make_runtime(configured(*TD3, *overrides)), 4)
    assert rows["present"].tolist() == [0] * 4
    assert states[-1].server.round.tolist() == states[-1].tally.rounds.tolist() == [4]
    assert np.abs(jax.tree.leaves(agent(states[-1], 2).params.actor)[0]).max() > 0


@pytest.mark.training
def test_a_round_that_is_undone_has_no_steps_of_the_servers():
    settings = [*EPISODES[:1], "strategy=svrpg", "aggregator=mean", "environment.horizon=6"]
    honest, _ = advanced(make_runtime(configured(*settings)), 1)
    assert honest[-1].tally.trajectories[0] > 0
    _, rows = advanced(make_runtime(configured(*settings, "attack=test-huge", "attack.agents=2")), 3)
    assert rows["present"].tolist() == [0] * 3
    assert rows["gradient_steps"].tolist() == [0] * 3
    assert rows["server_trajectories"].tolist() == [0] * 3


@pytest.mark.training
def test_models_of_personal_strategies_are_looked_at_too():
    overrides = ["strategy=similarity", "attack=test-huge", "attack.agents=2"]
    states, rows = advanced(make_runtime(configured(*overrides)), 3)
    assert rows["present"].tolist() == [0] * 3
    assert not rows["dropped"].any(), "no agent is to blame"
    assert rows["server_dropped"][:, 0].tolist() == [LEARNING] * 3
    assert all(np.abs(leaf).max() < 1e3 for leaf in jax.tree.leaves(agent(states[-1], 2).params))


def fresh(*overrides, preset=None):
    federation = make_runtime(resolve(preset, overrides)).federation
    return federation.fresh(jax.random.key(0), jnp.asarray(0))


def replaced(tree, kind, change):
    return jax.tree.map(lambda x: change(x) if isinstance(x, kind) else x, tree, is_leaf=lambda x: isinstance(x, kind))


def test_replays_are_passed_over():
    """They may hold gigabytes, and were checked when they were collected."""
    before = fresh("learner.buffer_size=512", "learner.learning_starts=8", preset="td3-her/point-push")
    found = []

    def spoilt(replay):
        found.append(replay)
        return dataclasses.replace(replay, rows=jnp.full_like(replay.rows, jnp.nan))

    after = replaced(before, HindsightReplay, spoilt)
    assert found
    assert sound(after)
    assert not overflowed(before, after)


def test_sums_of_squares_of_observations_may_be_large():
    before = fresh(preset="td3-her/point-push")
    grown = replaced(before, Moments, lambda moments: dataclasses.replace(moments, spread=moments.spread + 1e20))
    assert not equal(before, grown)
    assert not overflowed(before, grown)
    broken = replaced(before, Moments, lambda moments: dataclasses.replace(moments, spread=moments.spread + jnp.inf))
    assert overflowed(before, broken)
    networks = dataclasses.replace(before, params=jax.tree.map(lambda x: x + 1e20, before.params))
    assert overflowed(before, networks)
    assert not sound(networks)
    assert not overflowed(networks, networks), "an agent of an earlier run that is broken already"
