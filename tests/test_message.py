"""What a message is made of: what attacks may touch, when its parts travel, and what is measured of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.arrays import packed, unpacked
from fedrax.attacks.base import Knowledge, attacks
from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.message import (
    Message,
    arrived,
    attackable,
    filled,
    finite_rows,
    first_not_finite,
    keep_rows,
    norm,
    travelling,
)
from fedrax.runtime.make import make_runtime
from shipped import shipped

KNOWLEDGE = Knowledge(lambda vectors: vectors.mean(0))
BYZANTINE = jnp.array([True, False, False, True])


def messages():
    rng = np.random.default_rng(0)
    return Message(
        update={"weight": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32), "steps": jnp.arange(4)},
        statistics=(jnp.asarray(rng.normal(size=4), jnp.float32), jnp.array([1, 2, 3, 4])),
        individual=[jnp.asarray(rng.normal(size=(4, 2)), jnp.float32), jnp.ones((4, 2), bool)],
    )


def leaves(message):
    return [message.update["weight"], message.individual[0]]


@pytest.mark.training
@pytest.mark.parametrize("name", [name for name in shipped(attacks) if name not in ("none", "false-statistics")])
def test_attacks_touch_real_numbers_of_updates_and_individual_parts_alone(name):
    attack = attacks.build(name, {"agents": 2})
    before = messages()
    after = attack.applied(before, BYZANTINE, jax.random.key(0), KNOWLEDGE)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    np.testing.assert_array_equal(after.update["steps"], before.update["steps"])
    np.testing.assert_array_equal(after.individual[1], before.individual[1])
    jax.tree.map(np.testing.assert_array_equal, after.statistics, before.statistics)
    changed = [bool((x != y).any()) for x, y in zip(leaves(after), leaves(before), strict=True)]
    assert changed == [type(attack).corrupt is not type(attacks.build("none", {})).corrupt] * 2
    for x, y in zip(leaves(after), leaves(before), strict=True):
        np.testing.assert_array_equal(x[1:3], y[1:3])


def test_a_lie_about_statistics_is_an_attack_of_its_own():
    attack = attacks.build("false-statistics", {"agents": 2, "sums": -3.0, "counts": 2.4})
    before = messages()
    after = attack.applied(before, BYZANTINE, jax.random.key(0), KNOWLEDGE)
    jax.tree.map(np.testing.assert_array_equal, (after.update, after.individual), (before.update, before.individual))
    sums, counts = after.statistics
    np.testing.assert_allclose(sums, before.statistics[0] * jnp.array([-3.0, 1.0, 1.0, -3.0]))
    assert counts.tolist() == [2, 2, 3, 10]
    assert counts.dtype == before.statistics[1].dtype


def test_an_attack_on_an_empty_message_does_nothing():
    attack = attacks.build("sign-flipping", {"agents": 2})
    assert jax.tree.leaves(attack.applied(Message(), BYZANTINE, jax.random.key(0), KNOWLEDGE)) == []


def test_what_is_attackable_and_what_is_not_are_the_whole():
    real, others = attackable(messages())
    assert len(jax.tree.leaves(real)) == 2
    assert len(jax.tree.leaves(others)) == 4


def test_rows_that_are_not_finite_are_found_anywhere_and_zeroed():
    bad = messages()
    bad = Message(bad.update, (bad.statistics[0].at[1].set(jnp.inf), bad.statistics[1]), bad.individual)
    bad = Message(bad.update, bad.statistics, [bad.individual[0].at[3, 1].set(jnp.nan), bad.individual[1]])
    finite = finite_rows(bad, 4)
    assert finite.tolist() == [True, False, True, False]
    kept = keep_rows(bad, finite)
    assert finite_rows(kept, 4).all()
    np.testing.assert_array_equal(kept.update["weight"][0], bad.update["weight"][0])
    assert not kept.update["weight"][1].any()
    assert kept.statistics[1].tolist() == [1, 0, 3, 0]
    assert finite_rows(Message(), 4).tolist() == [True] * 4


def test_the_norm_is_that_of_the_update_and_the_path_names_what_is_not_finite():
    message = Message({"a": np.array([3.0], np.float32)}, (np.array(1e30),), [np.array([np.nan], np.float32)])
    assert norm(message.update) == 3.0
    assert first_not_finite(message) == ".individual[0]"
    assert first_not_finite(Message(message.update)) is None


def period(path):
    return 3 if "actor" in path else 1


@pytest.mark.parametrize("turn", range(5))
def test_what_does_not_travel_arrives_as_zeros(turn):
    message = Message({"actor": np.ones(4, np.float32), "critic": np.ones(2, np.float32)}, (), (np.ones(1, np.int32),))
    part = travelling(message, period, turn)
    received = filled(message, unpacked(part, packed(part)))
    expected = arrived(message, period, jnp.asarray(turn))
    jax.tree.map(np.testing.assert_array_equal, received, expected)
    assert len(packed(part)) == 4 * 3 + (4 * 4 if turn % 3 == 0 else 0)
    assert received.update["actor"].any() == (turn % 3 == 0)


@pytest.mark.training
@pytest.mark.parametrize("attack", ["large-noise", "random-noise", "fedscspg"])
@pytest.mark.parametrize("strategy", ["fedavg", "distillation", "neighbours"])
def test_every_message_can_be_attacked(strategy, attack):
    td3 = ["learner.actor_layers=[4]", "learner.feature_layers=[4]", "learner.head_layers=[4]"]
    ppo = ["learner=ppo", "learner.hidden=[4]", "environment=Pendulum-v1", "budget.rounds=1"]
    personal = strategy == "neighbours"
    common = [f"strategy={strategy}", f"attack={attack}", "attack.agents=1", "federation.agents=3"]
    config = resolve({} if personal else "fedtd3/pendulum", [*common, *(ppo if personal else td3)])
    runtime = make_runtime(config)
    state = runtime.shapes()
    after, _ = jax.eval_shape(runtime._rounds, state, jnp.asarray(0))
    assert jax.tree.structure(after) == jax.tree.structure(state)


@pytest.mark.parametrize("strategy", ["local", "central"])
def test_where_nothing_is_sent_nothing_can_be_attacked(strategy):
    settings = [f"strategy={strategy}", "attack=sign-flipping", "attack.agents=1"]
    with pytest.raises(FedraxError, match=f"agents of strategy '{strategy}' send none; set attack=none"):
        make_runtime(resolve("fedtd3/pendulum", settings))
    settings[1] = "attack=reward-flipping"
    make_runtime(resolve("fedtd3/pendulum", settings))
