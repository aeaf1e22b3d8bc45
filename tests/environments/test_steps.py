"""Consecutive steps from host and native environments: episodes run on, and their ends are kept apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.environments.base import Box, Discrete, NativeEnvironment, Spaces, Transition
from fedrax.environments.host import make_host
from fedrax.environments.host_steps import HostStepCollector
from fedrax.environments.native_steps import collect_steps, start_steps

from probe import PROBE


class Counter(NativeEnvironment):
    """Observes (step, episode's number); ends after ``length`` steps; the reward is the step's number."""

    spaces = Spaces(Box((2,), (0.0,) * 2, (99.0,) * 2), Discrete(2))
    time_limit = 50

    def physics(self):
        return {"length": 3.0}

    def reset(self, key, physics):
        state = jnp.array([0.0, jax.random.uniform(key)])
        return state, state

    def step(self, state, action, key, physics):
        state = state + jnp.array([1.0, 0.0])
        return Transition(state, state, state[0], state[0] >= physics["length"])


def native(physics, steps, horizon=50, num_envs=1, collections=1, per_copy=False):
    """All collections after one another, as one."""
    environment = Counter()
    collector_state = start_steps(environment, physics, jax.random.key(0), num_envs=num_envs, per_copy=per_copy)
    parts = []
    for index in range(collections):
        part, collector_state = collect_steps(
            environment,
            physics,
            lambda observation, key: (observation[:, 0].astype(int), 10 * observation),
            jax.random.key(index),
            collector_state,
            steps=steps,
            horizon=horizon,
            per_copy=per_copy,
        )
        parts.append(part)
    return parts


def joined(parts, name):
    return np.concatenate([np.asarray(getattr(part, name)) for part in parts])


def test_the_row_after_an_episodes_end_holds_its_last_observation():
    (steps,) = native({"length": 3.0}, steps=9)
    np.testing.assert_array_equal(steps.extras, 10 * steps.observation)
    assert steps.observation[:, 0, 0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert steps.valid[:, 0].tolist() == [True, True, True, False, True, True, True, False, True]
    assert steps.terminated[:, 0].tolist() == [False, False, True, False] * 2 + [False]
    assert not steps.truncated.any()
    assert steps.reward[:, 0].tolist() == [1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert steps.returns[:, 0].tolist() == [0, 0, 6, 0, 0, 0, 6, 0, 0]
    assert (int(steps.steps), int(steps.count)) == (7, 2)
    assert steps.action[:3, 0].tolist() == [0, 1, 2], "actions belong to the observation of their row"


def test_a_time_limit_truncates_and_a_terminal_state_there_terminates():
    (limited,) = native({"length": 9.0}, steps=6, horizon=2)
    assert limited.truncated[:, 0].tolist() == [False, True, False, False, True, False]
    assert not limited.terminated.any()
    (both,) = native({"length": 2.0}, steps=3, horizon=2)
    assert both.terminated[:, 0].tolist() == [False, True, False]
    assert not both.truncated.any()


def test_collections_continue_each_other():
    whole = native({"length": 3.0}, steps=12)
    split = native({"length": 3.0}, steps=4, collections=3)
    for name in ("valid", "terminated", "reward", "returns"):
        np.testing.assert_array_equal(joined(whole, name), joined(split, name))
    ends = [part.observation[-1, 0] for part in split[:-1]]
    starts = [part.observation[0, 0] for part in split[1:]]
    np.testing.assert_array_equal(ends, starts)


def test_copies_may_differ_and_episodes_are_fresh():
    physics = {"length": jnp.array([1.0, 4.0])}
    (steps,) = native(physics, steps=8, num_envs=2, per_copy=True)
    assert steps.count == 4 + 1
    assert steps.terminated[:, 0].tolist() == [True, False] * 4
    names = set(np.asarray(steps.observation[:, 0, 1]).tolist())
    assert len(names) == 5, "every episode starts from a reset of its own"


@pytest.mark.parametrize("groups", [1, 3])
def test_host_steps_run_on_and_end_where_the_environment_says(groups):
    num_envs = 2
    environments = [make_host(PROBE, num_envs * 3 // groups, backend="gymnasium") for _ in range(groups)]
    for number, group in enumerate(environments):
        group.reseed(np.arange(group.count) + 10 * number)
    collector = HostStepCollector(environments, num_envs)
    seen = []

    def act(observation, step):
        seen.append(observation.copy())
        return np.zeros(observation.shape[:2], np.int32), 10 * observation

    parts = [collector.collect(act, 7) for _ in range(3)]
    for group in environments:
        group.close()
    assert parts[0].observation.shape == (3, 8, num_envs, 2)
    observation = np.concatenate([part.observation[:, :-1] for part in parts], 1)
    np.testing.assert_array_equal(observation.swapaxes(0, 1), np.stack(seen)[np.arange(24) % 8 < 7])
    for part in parts:
        np.testing.assert_array_equal(part.extras, 10 * part.observation)
    valid, over, returns, reward = (
        np.concatenate([np.asarray(getattr(part, name)) for part in parts], 1)
        for name in ("valid", "terminated", "returns", "reward")
    )
    for agent in range(3):
        for copy in range(num_envs):
            now = 0
            for t in range(21):
                step, length = observation[agent, t, copy]
                assert step == now
                if not valid[agent, t, copy]:
                    assert step == length, "the row after the end shows the last observation"
                    now = 0
                    continue
                now += 1
                assert reward[agent, t, copy] == 1
                assert over[agent, t, copy] == (now == length)
                assert returns[agent, t, copy] == (length if now == length else 0)


def test_agents_that_sit_out_find_their_episodes_as_they_left_them():
    environments = [make_host(PROBE, 1, backend="gymnasium") for _ in range(2)]
    for group in environments:
        group.reseed(np.arange(1) + 4)
    collector = HostStepCollector(environments, 1)

    def act(observation, step):
        return np.zeros(observation.shape[:2], np.int32), ()

    first = collector.collect(act, 2)
    collector.collect(act, 3, np.array([0]))
    later = collector.collect(act, 2, np.array([1]))
    for group in environments:
        group.close()
    assert later.observation.shape == (1, 3, 1, 2)
    np.testing.assert_array_equal(first.observation[1, -1], later.observation[0, 0])


def test_a_restart_begins_new_episodes():
    environments = make_host(PROBE, 1, backend="gymnasium")
    environments.reseed(np.array([3]))
    collector = HostStepCollector([environments], 1)

    def act(observation, step):
        return np.zeros(observation.shape[:2], np.int32), ()

    one = collector.collect(act, 9)
    environments.reseed(np.array([3]))
    collector.restart()
    other = collector.collect(act, 9)
    environments.close()
    np.testing.assert_array_equal(one.observation, other.observation)
