"""The host collector against scripted copies, and on real environments."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrax.environments.base import Box, Discrete, HostEnvironments, Spaces
from fedrax.environments.host import make_host
from fedrax.environments.host_collector import LENGTH_STEP, HostCollector, evaluate_host

from probe import LONGEST, PROBE


class Scripted(HostEnvironments):
    """Copy c's i-th episode takes ``lengths[c][i]`` steps; it observes (c, i, step), and i+1 is the reward.

    Episodes of odd index are truncated, the others terminate. After its end a copy resets in the next step.
    """

    spaces = Spaces(Box((3,), (0.0,) * 3, (99.0,) * 3), Discrete(100))

    def __init__(self, lengths, time_limit=10):
        self.lengths = np.asarray(lengths)
        self.count, self.time_limit = len(self.lengths), time_limit

    def reseed(self, seeds):
        """Nothing is random."""

    def reset(self):
        self.episode, self.now = np.zeros((2, self.count), int)
        self.over = np.zeros(self.count, bool)
        return self.observe()

    def observe(self):
        return np.stack([np.arange(self.count), self.episode, self.now], -1).astype(np.float32)

    def step(self, actions, active=None):
        assert actions.shape == (self.count,)
        resets = self.over
        self.episode, self.now = self.episode + resets, np.where(resets, 0, self.now + 1)
        length = np.take_along_axis(self.lengths, self.episode[:, None], 1)[:, 0]
        self.over = ~resets & (self.now >= length)
        reward = np.where(resets, 0, self.episode + 1).astype(np.float32)
        odd = self.episode % 2 == 1
        return self.observe(), reward, self.over & ~odd, self.over & odd

    def close(self):
        """Nothing to free."""


def echo(observation, step):
    """An action that tells its observation apart."""
    return (observation[..., 0] * 10 + observation[..., 2]).astype(np.int32)


@st.composite
def collections(draw):
    agents, num_envs, most = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 6))
    counts = draw(st.lists(st.integers(0, most), min_size=agents, max_size=agents).filter(any))
    lengths = st.lists(st.integers(1, 10), min_size=60, max_size=60)
    script = draw(st.lists(lengths, min_size=agents * num_envs, max_size=agents * num_envs))
    # Idle copies go on: they need a script longer than any collection.
    return agents, num_envs, most, np.array(counts), np.array(script)


@given(collections())
@settings(max_examples=60)
def test_every_episode_started_is_kept_whole(case):
    agents, num_envs, most, counts, script = case
    collector = HostCollector(Scripted(script), agents, num_envs)
    episodes = collector.collect(echo, counts, most, 10)
    assert episodes.reward.shape == (agents, 10, most)
    for agent in range(agents):
        valid = episodes.valid[agent]
        lengths = valid.sum(0)
        assert (lengths > 0).tolist() == [b < counts[agent] for b in range(most)]
        ran = {}
        for b in range(counts[agent]):
            observation = episodes.observation[agent, : lengths[b], b]
            (copy, index), *_ = observation[:, :2].astype(int)
            ran.setdefault(copy, []).append((index, b))
            assert copy // num_envs == agent
            assert valid[: lengths[b], b].all()
            assert lengths[b] == script[copy, index]
            np.testing.assert_array_equal(observation[:, 0], copy)
            np.testing.assert_array_equal(observation[:, 1], index)
            np.testing.assert_array_equal(observation[:, 2], np.arange(lengths[b]))
            np.testing.assert_array_equal(episodes.reward[agent, : lengths[b], b], index + 1)
            actions = copy * 10 + np.arange(lengths[b])
            np.testing.assert_array_equal(episodes.action[agent, : lengths[b], b], actions)
            assert episodes.terminated[agent, b] == (index % 2 == 0)
        begins = {}
        for copy, pairs in ran.items():
            # A copy runs its episodes one after the other, none left out, with one step between them.
            assert [index for index, _ in pairs] == list(range(len(pairs)))
            for index, b in pairs:
                begins[b] = script[copy, :index].sum() + index
        # Episodes are numbered in the order in which they start: length decides nothing else.
        assert [begins[b] for b in sorted(begins)] == sorted(begins.values())
    padding = ~episodes.valid
    assert not episodes.observation[padding].any()
    assert not episodes.reward[padding].any()
    assert not episodes.action[padding].any()


def test_short_episodes_are_not_favoured():
    # Copy 0 has episodes of 1 step, copy 1 of 10 steps. Of 6 episodes copy 1 runs the one it started with:
    # keeping the first 6 to finish would have dropped it.
    episodes = HostCollector(Scripted([[1] * 60, [10] * 60]), 1, 2).collect(echo, np.array([6]), 6, 10)
    assert episodes.valid[0].sum(0).tolist() == [1, 10, 1, 1, 1, 1]


def test_lengths_are_padded_to_a_few_sizes():
    def padded(length, horizon):
        environments = Scripted([[length] * 3], time_limit=horizon)
        return HostCollector(environments, 1, 1).collect(echo, np.array([1]), 1, horizon).reward.shape[1]

    assert padded(3, 200) == LENGTH_STEP
    assert padded(LENGTH_STEP, 200) == LENGTH_STEP
    assert padded(LENGTH_STEP + 1, 200) == 2 * LENGTH_STEP
    assert padded(3, 10) == 10


def test_the_step_is_counted_within_a_collection():
    seen = []

    def act(observation, step):
        seen.append(step)
        return echo(observation, step)

    collector = HostCollector(Scripted([[2] * 9, [4] * 9]), 2, 1)
    collector.collect(act, np.array([2, 1]), 2, 10)
    assert seen == [0, 1, 2, 3, 4]  # two episodes of 2 steps, and the reset between them
    collector.collect(act, np.array([1, 0]), 2, 10)
    assert seen[5:] == [0, 1]


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="2 agents of 2 copies"):
        HostCollector(Scripted([[1]] * 3), 2, 2)
    collector = HostCollector(Scripted([[1]] * 2), 2, 1)
    with pytest.raises(ValueError, match="end episodes after 10 steps, not 5"):
        collector.collect(echo, np.array([1, 1]), 1, 5)
    with pytest.raises(ValueError, match="must be between 0 and 2"):
        collector.collect(echo, np.array([1, 3]), 2, 10)
    with pytest.raises(ValueError, match="not all 0"):
        collector.collect(echo, np.array([0, 0]), 2, 10)


@pytest.mark.parametrize(("id", "backend"), [(PROBE, "gymnasium"), ("CartPole-v1", "envpool")])
def test_seeds_decide_a_collection(id, backend):
    if backend == "envpool":
        pytest.importorskip("envpool")
    environments = make_host(id, 6, backend=backend, max_episode_steps=30)
    collector = HostCollector(environments, 2, 3)

    def run(seed):
        environments.reseed(np.arange(6) + seed)

        def act(observation, step):
            return np.random.default_rng(step).integers(0, 2, observation.shape[:2]).astype(np.int32)

        return [collector.collect(act, np.array([5, 2]), 5, 30) for _ in range(2)]

    first, again, other = run(0), run(0), run(100)
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.observation, same.observation)
        np.testing.assert_array_equal(one.reward, same.reward)
        np.testing.assert_array_equal(one.valid, same.valid)
    assert not np.array_equal(first[0].observation, other[0].observation)
    assert not np.array_equal(first[0].observation, first[1].observation)
    environments.close()


def test_returns_on_a_gymnasium_environment_are_the_announced_lengths():
    environments = make_host(PROBE, 4)
    environments.reseed(np.arange(4))
    collector = HostCollector(environments, 2, 2)
    episodes = collector.collect(lambda o, step: np.zeros(o.shape[:2], np.int32), np.array([40, 40]), 40, 50)
    announced = episodes.observation[:, 0, :, 1]
    np.testing.assert_array_equal(episodes.reward.sum(1), announced)
    np.testing.assert_array_equal(episodes.valid.sum(1), announced)
    assert episodes.terminated.all()
    assert episodes.observation.dtype == np.float32
    # Lengths are uniform on 1..6: their mean is 3.5 with a standard error of 0.19.
    assert abs(announced.mean() - (1 + LONGEST) / 2) < 0.7


def test_evaluation_runs_one_episode_per_copy():
    environments = Scripted([[3, 1, 9, 9, 9], [1, 9, 9, 9, 9], [7, 2, 9, 9, 9]])
    measured = evaluate_host(environments, lambda observation, step: np.zeros(3, np.int32))
    returns, lengths = measured["return"], measured["length"]
    assert returns.tolist() == [3, 1, 7]
    assert lengths.tolist() == [3, 1, 7]
