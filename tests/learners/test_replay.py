"""The replay: what it keeps, what it forgets, what it hands out."""

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrax.environments.base import Box, Spaces, Steps
from fedrax.learners.replay import Transitions, empty_replay, replay_bytes, transitions_of

SPACES = Spaces(Box((2,), (-1.0,) * 2, (1.0,) * 2), Box((1,), (-1.0,), (1.0,)))


def numbered(first, count):
    """Transitions whose every number tells which they are."""
    number = jnp.arange(first, first + count, dtype=jnp.float32)
    pair = jnp.stack([number, number + 0.25], 1)
    return Transitions(pair, number[:, None] + 0.5, -number, pair + 1, (number % 3 == 0).astype(jnp.float32))


@settings(max_examples=30)
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), max_size=12))
def test_a_replay_is_a_queue_of_valid_transitions(batches):
    replay, expected = empty_replay(SPACES, 5), deque(maxlen=5)
    for index, valid in enumerate(batches):
        replay = replay.add(numbered(3 * index, 3), jnp.array(valid))
        expected.extend(3 * index + place for place in range(3) if valid[place])
    assert int(replay.size) == len(expected)
    held = sorted(replay.rows[: int(replay.size), 0].tolist())
    assert held == sorted(expected)


def test_samples_are_whole_transitions_and_every_one_equally_likely():
    replay = empty_replay(SPACES, 8)
    for first in (0, 4, 8):
        replay = replay.add(numbered(first, 4), jnp.ones(4, bool))
    sample = replay.sample(jax.random.key(0), (40, 100))
    assert sample.observation.shape == (40, 100, 2)
    number = np.asarray(sample.observation[..., 0]).ravel()
    whole = numbered(0, 12)
    for part, expected in zip(sample, whole, strict=True):
        np.testing.assert_array_equal(
            part.reshape(4000, -1), np.asarray(expected)[number.astype(int)].reshape(4000, -1)
        )
    counts = np.bincount(number.astype(int), minlength=12)
    assert counts[:4].sum() == 0, "the oldest are overwritten"
    assert abs(counts[4:] - 500).max() < 5 * np.sqrt(500)


def test_a_replay_with_few_transitions_never_hands_out_empty_rows():
    replay = empty_replay(SPACES, 100).add(numbered(7, 2), jnp.array([True, False]))
    assert set(np.asarray(replay.sample(jax.random.key(0), (50,)).reward)) == {-7.0}


def test_a_collection_becomes_transitions_in_the_order_of_time():
    observation = jnp.arange(12.0).reshape(3, 2, 2)
    action, reward = jnp.arange(4.0).reshape(2, 2, 1), jnp.arange(4.0).reshape(2, 2)
    terminated = jnp.array([[False, True], [False, False]])
    valid = jnp.array([[True, True], [True, False]])
    steps = Steps(observation, (), action, reward, valid, terminated, ~valid, reward)
    transitions, kept = transitions_of(steps)
    np.testing.assert_array_equal(transitions.observation, [[0, 1], [2, 3], [4, 5], [6, 7]])
    np.testing.assert_array_equal(transitions.next_observation, [[4, 5], [6, 7], [8, 9], [10, 11]])
    np.testing.assert_array_equal(transitions.action[:, 0], [0, 1, 2, 3])
    assert transitions.terminated.tolist() == [0, 1, 0, 0]
    assert kept.tolist() == [True, True, True, False]


def test_memory_is_what_the_rows_take():
    assert replay_bytes(SPACES, 1000) == empty_replay(SPACES, 1000).rows.nbytes
