"""What is not finite in a collection is found and named: the first of it, whatever comes after, padding left out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrax.environments.base import Box, Discrete, Episodes, HostEnvironments, Spaces, Steps
from fedrax.environments.faults import Fault, described, earliest, first_fault, host_faults, recorded
from fedrax.environments.host import make_host
from fedrax.environments.host_joined import JoinedEnvironments
from fedrax.environments.host_steps import HostStepCollector
from fedrax.environments.native_steps import CollectorState, restarted

NOTHING, OBSERVATION, REWARD = range(3)
STEPS, NUM_ENVS = 5, 3


def steps_of(valid=None):
    """Consecutive steps without a fault."""
    flags = np.zeros((STEPS, NUM_ENVS), bool)
    reward = np.ones((STEPS, NUM_ENVS), np.float32)
    valid = ~flags if valid is None else valid
    return Steps(np.zeros((STEPS + 1, NUM_ENVS, 2), np.float32), (), flags, reward, valid, flags, flags, 0 * reward)


def episodes_of(lengths):
    valid = np.arange(STEPS)[:, None] < np.array(lengths)
    observation = np.zeros((STEPS, len(lengths), 2), np.float32)
    return Episodes(observation, valid, np.ones(valid.shape, np.float32), valid, np.zeros(len(lengths), bool))


def numbers(fault):
    return tuple(int(field) for field in fault)


@pytest.mark.parametrize(
    ("planted", "expected"),
    [
        pytest.param([], (NOTHING, 0, 0, 0), id="nothing"),
        pytest.param([("reward", (3, 1), np.nan)], (REWARD, 0, 4, 1), id="reward"),
        pytest.param([("reward", (0, 2), -np.inf)], (REWARD, 0, 1, 2), id="minus infinity"),
        pytest.param([("observation", (3, 1, 1), np.inf)], (OBSERVATION, 0, 3, 1), id="observation"),
        pytest.param([("observation", (0, 0, 0), np.nan)], (OBSERVATION, 0, 0, 0), id="before the first step"),
        pytest.param([("observation", (STEPS, 2, 0), np.nan)], (OBSERVATION, 0, STEPS, 2), id="the last observation"),
        pytest.param(
            [("observation", (2, 1, 0), np.nan), ("reward", (1, 1), np.nan)],
            (OBSERVATION, 0, 2, 1),
            id="both in one step",
        ),
        pytest.param([("reward", (2, 0), np.nan), ("reward", (1, 2), np.nan)], (REWARD, 0, 2, 2), id="the earlier one"),
    ],
)
@pytest.mark.parametrize("library", [np, jnp])
def test_the_first_fault_of_consecutive_steps(planted, expected, library):
    steps = steps_of()
    for name, place, value in planted:
        getattr(steps, name)[place] = value
    assert numbers(first_fault(jax.tree.map(library.asarray, steps))) == expected


def test_padding_is_no_fault():
    episodes = episodes_of([5, 2])
    episodes.reward[3, 1] = episodes.observation[2, 1, 0] = np.nan
    assert numbers(first_fault(episodes)) == (NOTHING, 0, 0, 0)
    episodes.reward[1, 1] = np.nan
    assert numbers(first_fault(episodes)) == (REWARD, 0, 2, 1)
    valid = np.ones((STEPS, NUM_ENVS), bool)
    valid[2, 0] = False
    steps = steps_of(valid)
    steps.reward[2, 0] = np.nan
    assert numbers(first_fault(steps)) == (NOTHING, 0, 0, 0)


places = st.tuples(st.booleans(), st.integers(0, STEPS - 1), st.integers(0, NUM_ENVS - 1))


@given(st.lists(st.integers(1, STEPS), min_size=NUM_ENVS, max_size=NUM_ENVS), st.lists(places, max_size=4))
@settings(max_examples=60)
def test_the_first_of_any_faults_in_whole_episodes(lengths, planted):
    episodes = episodes_of(lengths)
    seen = []
    for is_reward, t, b in planted:
        (episodes.reward if is_reward else episodes.observation)[t, b] = np.nan
        if t < lengths[b]:
            # The t-th row's observation came with step t, its reward with the step after.
            seen.append((t + 1, REWARD, b) if is_reward else (t, OBSERVATION, b))
    expected = min(seen, default=None)
    for library in (np, jnp):
        kind, _, step, copy = numbers(first_fault(jax.tree.map(library.asarray, episodes)))
        assert (None if kind == NOTHING else (step, kind, copy)) == expected


def test_every_agents_own_fault_and_the_first_of_their_updates():
    agents = jax.tree.map(lambda x: np.stack([x, x]), steps_of())
    agents.reward[1, 2, 0] = np.nan
    faults = host_faults(agents)
    assert [field.tolist() for field in faults] == [[0, REWARD], [0, 0], [0, 3], [0, 0]]
    later = Fault(*(np.array([[0, 0], one, [1, 2]], np.int32) for one in ([0, 1], [0, 0], [0, 7], [0, 5])))
    assert [field.tolist() for field in earliest(later)] == [[1, 1], [2, 1], [1, 7], [1, 5]]


@pytest.mark.parametrize(
    ("owner", "fault", "episodic", "updates", "text"),
    [
        (2, (2, 0, 41, 3), False, 1, "agent 2's: reward was not finite in step 41 (environment copy 3)"),
        (2, (1, 0, 0, 1), False, 1, "agent 2's: observation was not finite before the first step (environment copy 1)"),
        (0, (2, 3, 1, 1), False, 4, "agent 0's: reward was not finite in step 1 (environment copy 1, local update 3)"),
        ("server", (2, 0, 7, 5), True, 1, "the server's: reward was not finite in step 7 (episode 5)"),
    ],
)
def test_a_fault_in_words(owner, fault, episodic, updates, text):
    words = described(recorded(owner, Fault(*fault), episodic=episodic, updates=updates))
    assert words == text.replace(":", " collection was dropped: its")


def test_native_episodes_start_anew_from_whatever_state():
    nan = jnp.full(2, jnp.nan)
    collector_state = restarted(
        CollectorState({"x": nan}, nan[:, None], jnp.array([False, True]), jnp.array([4, 0]), nan, nan > 0)
    )
    assert collector_state.over.all()
    assert numbers((*collector_state.length, *collector_state.returned)) == (0, 0, 0, 0)
    assert collector_state.observation.tolist() == [[0.0], [0.0]]


class Counting(HostEnvironments):
    """Observes (episode's number, step) of each copy."""

    spaces = Spaces(Box((2,), (0.0,) * 2, (99.0,) * 2), Discrete(2))
    time_limit = 99

    def __init__(self, count):
        self.count, self.state = count, np.zeros((count, 2), np.float32)

    def reseed(self, seeds):
        """Nothing is random."""

    def reset(self, chosen=None):
        chosen = np.ones(self.count, bool) if chosen is None else chosen
        self.state[chosen] += [1, 0]
        self.state[chosen, 1] = 0
        return np.where(chosen[:, None], self.state, -1).astype(np.float32)

    def step(self, actions, active=None):
        self.state[:, 1] += 1
        no = np.zeros(self.count, bool)
        return self.state.copy(), np.ones(self.count, np.float32), no, no

    def close(self):
        """Nothing to free."""


@pytest.mark.parametrize("grouped", [False, True])
def test_one_agents_episodes_start_anew_and_the_others_run_on(grouped):
    groups = [Counting(2), Counting(2), Counting(2)] if grouped else [Counting(6)]
    ids = np.array([0, 2]) if grouped else None
    collector = HostStepCollector(groups, 2)

    def decide(observation, step):
        return np.zeros(observation.shape[:2], int), ()

    first = collector.collect(decide, 3, ids)
    collector.restart_agents(np.array([False, True] if grouped else [False, True, False]), ids)
    after = collector.collect(decide, 1, ids)
    assert first.observation[:, -1].tolist() == [[[1, 3]] * 2] * len(first.reward)
    expected = [[[1, 3]] * 2, [[2, 0]] * 2, [[1, 3]] * 2]
    assert after.observation[:, 0].tolist() == expected[: len(after.reward)]


@pytest.mark.parametrize(
    ("id", "backend"), [("CartPole-v1", "gymnasium"), ("CartPole-v1", "envpool"), ("MiniGrid-Empty-5x5-v0", "envpool")]
)
def test_real_environments_reset_the_copies_that_are_chosen(id, backend):
    pytest.importorskip("envpool" if backend == "envpool" else "gymnasium")
    environments = make_host(id, 3, backend=backend, max_episode_steps=4)
    joined = JoinedEnvironments([environments])
    joined.reseed(np.array([1, 2, 3]))
    start = joined.reset()
    actions = np.ones(3, np.int32)
    for _ in range(3):
        before, *_ = joined.step(actions)
    chosen = np.array([False, True, False])
    fresh = joined.reset(chosen)
    assert fresh.shape == start.shape
    if id == "CartPole-v1":
        assert np.abs(fresh[1]).max() <= 0.05 < np.abs(before[1]).max()
    # The others reach their limit, the one that started anew does not.
    *_, truncated = joined.step(actions)
    assert truncated.tolist() == [True, False, True]
    joined.close()
