"""Hindsight replay: which goals it puts in place of which, and what follows from them."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrax.environments.base import Box, Dict, Spaces, Steps
from fedrax.environments.goals import ACHIEVED, DESIRED, OBSERVATION, Goal
from fedrax.errors import FedraxError
from fedrax.learners.base import Objective, learners
from fedrax.learners.hindsight import empty_hindsight, hindsight_bytes
from fedrax.learners.off_policy import Training

WIDE = (-1e6,)
GOAL = Goal("sparse", 0.5)


def spaces(goal=GOAL):
    one = Box((1,), WIDE, (1e6,))
    return Spaces(Dict.of({OBSERVATION: one, ACHIEVED: one, DESIRED: one}), Box((1,), (-1.0,), (1.0,)), goal)


class Tape:
    """Copies whose every state has a number of its own: 1000 for each episode of each copy, and 1 for each step."""

    def __init__(self, copies):
        self.copies = copies
        self.episode = np.arange(1, copies + 1)
        self.step = np.zeros(copies, int)
        self.over = np.zeros(copies, bool)

    def _seen(self):
        state = (1000.0 * self.episode + self.step)[:, None].astype(np.float32)
        return {OBSERVATION: state, ACHIEVED: state, DESIRED: -1000.0 * self.episode[:, None].astype(np.float32)}

    def _restart(self, chosen):
        self.episode = np.where(chosen, self.episode + self.copies, self.episode)
        self.step = np.where(chosen, 0, self.step)
        self.over &= ~chosen

    def collect(self, ends, terminal=None):
        """Steps of a collection, ``ends[T, B]``: whether an episode ends there, in a terminal state or not."""
        observations, rows = [self._seen()], []
        for row, end in enumerate(np.asarray(ends, bool)):
            valid = ~self.over
            self._restart(self.over)
            self.step = np.where(valid, self.step + 1, self.step)
            self.over = end & valid
            terminated = self.over if terminal is not None and terminal[row] else np.zeros_like(self.over)
            rows.append((valid, terminated, self.over & ~terminated))
            observations.append(self._seen())
        valid, terminated, truncated = (jnp.asarray(np.stack(each)) for each in zip(*rows, strict=True))
        observation = jax.tree.map(lambda *each: jnp.asarray(np.stack(each)), *observations)
        zero = jnp.zeros(valid.shape)
        action = observation[ACHIEVED][:-1] / 1e6
        return Steps(observation, (), action, jnp.where(valid, -1.0, 0.0), valid, terminated, truncated, zero)

    def cut(self):
        """Gives up the episodes that run, as a restart of the environments does."""
        self._restart(np.ones(self.copies, bool))


def replay_of(kind, capacity=64, copies=1, ratio=1.0, goal=GOAL, horizon=8):
    return empty_hindsight(spaces(goal), capacity, copies=copies, horizon=horizon, kind=kind, ratio=ratio)


remember = jax.jit(lambda replay, steps: replay.remember(steps))
sample = jax.jit(lambda replay, key: replay.sample(key, (2048,)))


def drawn(replay, seed=0):
    """Distinct (state before, state after, goal, reward, terminated) of a large minibatch."""
    batch = sample(replay, jax.random.key(seed))
    np.testing.assert_array_equal(batch.observation[DESIRED], batch.next_observation[DESIRED])
    columns = (
        *(batch.observation[ACHIEVED][:, 0], batch.next_observation[ACHIEVED][:, 0], batch.observation[DESIRED][:, 0]),
        *(batch.reward, batch.terminated),
    )
    return {tuple(map(float, row)) for row in zip(*map(np.asarray, columns), strict=True)}


LENGTHS = (3, 4)
"""Of two episodes, numbers 1 and 2."""


def two_episodes(kind, goal=GOAL):
    tape = Tape(1)
    ends = [step == 2 for step in range(3)] + [False] + [step == 3 for step in range(4)]
    return remember(replay_of(kind, goal=goal), tape.collect(np.array(ends)[:, None]))


def every_relabelling(first, last):
    """All triples of the two episodes whose goals were achieved ``first(step, length) .. last(step, length)``."""
    for episode, length in enumerate(LENGTHS, start=1):
        for step in range(length):
            for goal in range(first(step, length), last(step, length) + 1):
                yield 1000.0 * episode + step, 1000.0 * episode + step + 1, 1000.0 * episode + goal


@pytest.mark.parametrize(
    ("kind", "first", "last"),
    [
        ("future", lambda step, length: step + 1, lambda step, length: length),
        ("final", lambda step, length: length, lambda step, length: length),
        ("episode", lambda step, length: 1, lambda step, length: length),
    ],
)
def test_exactly_the_goals_of_the_rule_are_drawn(kind, first, last):
    expected = {
        (before, after, goal, 0.0 if goal == after else -1.0, 0.0)
        for before, after, goal in every_relabelling(first, last)
    }
    assert drawn(two_episodes(kind)) == expected


@pytest.mark.parametrize("kind", ["future", "final", "episode"])
def test_the_goals_are_those_of_stable_baselines3(kind):
    # benchmarks/golden/hindsight_from_sb3.py
    golden = json.loads((Path(__file__).parent / "golden_hindsight.json").read_text())
    tape = Tape(2)
    ends = np.zeros((12, 2), bool)
    for copy, lengths in enumerate(golden["lengths"]):
        # A reset between two episodes is a row of its own; the last episode runs on.
        ends[np.cumsum(lengths[:2]) - 1 + [0, 1], copy] = True
    replay = remember(replay_of(kind, copies=2), tape.collect(ends[:11]))
    assert drawn(replay) == set(map(tuple, golden[kind]))


def test_episodes_that_end_at_the_goal_end_there_under_another_too():
    found = drawn(two_episodes("future", Goal("sparse", 0.5, ends=True)))
    assert {row[4] for row in found if row[1] == row[2]} == {1.0}
    assert {row[4] for row in found if row[1] != row[2]} == {0.0}


def test_the_reference_rewards_every_exchanged_goal_and_takes_it_before_the_action():
    found = drawn(two_episodes("reference"))
    exchanged = {row for row in found if row[2] > 0}
    assert {row[3:] for row in exchanged} == {(0.0, 1.0)}
    assert {row[:3] for row in exchanged} == set(
        every_relabelling(lambda step, length: step, lambda step, length: length - 1)
    )
    assert {row[3:] for row in found - exchanged} == {(-1.0, 0.0)}
    # min(4, length) of an episode's transitions are stored a second time with another goal.
    batch = sample(two_episodes("reference"), jax.random.key(3))
    own = np.asarray(batch.observation[DESIRED][:, 0] < 0)
    for episode in (1, 2):
        member = np.asarray(batch.observation[ACHIEVED][:, 0] // 1000 == episode)
        assert abs(own[member].mean() - 0.5) < 0.06


@pytest.mark.parametrize(
    ("kind", "goals"),
    [
        ("future", {(1, 2): 1 / 7 / 2, (1, 3): 1 / 7 / 2, (2, 2): 1 / 7 / 3}),
        ("final", {(1, 3): 1 / 7, (2, 4): 1 / 7}),
        ("episode", {(1, 1): 1 / 7 / 3, (1, 3): 1 / 7 / 3, (2, 4): 1 / 7 / 4}),
    ],
)
def test_transitions_and_goals_are_drawn_uniformly(kind, goals):
    """Of the second step of each episode, how often each goal is drawn with it."""
    draws = 40_000
    batch = jax.jit(lambda replay, key: replay.sample(key, (draws,)))(two_episodes(kind), jax.random.key(5))
    before, goal = (np.asarray(x[:, 0]) for x in (batch.observation[ACHIEVED], batch.observation[DESIRED]))
    for step in (1001, 1002, 2003):
        assert abs((before == step).mean() - 1 / 7) < 4 * (1 / 7 / draws) ** 0.5
    for (episode, achieved), chance in goals.items():
        share = ((before == 1000 * episode + 1) & (goal == 1000 * episode + achieved)).mean()
        assert abs(share - chance) < 4 * (chance / draws) ** 0.5


def test_rewards_of_other_goals_are_raised_as_those_remembered():
    goal = Goal("distance", 0.5)
    replay = dataclasses.replace(two_episodes("episode", goal=goal), minimum_reward=-0.5)
    assert {row[3] for row in drawn(two_episodes("episode", goal=goal))} == {0.0, -1.0, -2.0, -3.0}
    assert {row[3] for row in drawn(replay)} == {0.0, -0.5}
    learner = learners.build("td3", {**TD3, "hindsight": "future", "minimum_reward": -0.5})
    bound = learner.bind(spaces(), 1, 8)
    assert bound.init(jax.random.key(0), spaces()).memory.replay.minimum_reward == -0.5


@pytest.mark.parametrize(("ratio", "count"), [(0.8, 1638), (0.0, 0), (1.0, 2048)])
def test_a_fixed_share_of_a_minibatch_is_exchanged(ratio, count):
    replay = remember(replay_of("final", ratio=ratio), Tape(1).collect(np.eye(1, 5, 4, dtype=bool).T))
    batch = sample(replay, jax.random.key(0))
    assert int((batch.observation[DESIRED] > 0).sum()) == count
    assert float(batch.reward[count:].max(initial=-1.0)) == -1.0


def test_only_finished_episodes_are_sampled():
    tape = Tape(2)
    replay = remember(replay_of("future", copies=2), tape.collect(np.zeros((3, 2), bool)))
    assert int(replay.sampled) == 0
    ends = np.zeros((3, 2), bool)
    ends[1, 0] = True
    replay = remember(replay, tape.collect(ends))
    assert int(replay.sampled) == 5
    assert {row[0] for row in drawn(replay)} == {1000.0 + step for step in range(5)}


def test_an_episode_given_up_is_finished_and_the_next_is_another():
    tape = Tape(1)
    replay = remember(replay_of("final"), tape.collect(np.zeros((3, 1), bool)))
    tape.cut()
    replay = remember(replay, tape.collect([[False], [True]]))
    assert {row[:3] for row in drawn(replay)} == {
        *((1000.0, 1001.0, 1003.0), (1001.0, 1002.0, 1003.0), (1002.0, 1003.0, 1003.0)),
        *((2000.0, 2001.0, 2002.0), (2001.0, 2002.0, 2002.0)),
    }


HORIZON = 6
moves = st.lists(st.tuples(st.booleans(), st.lists(st.booleans(), min_size=8, max_size=8)), min_size=1, max_size=12)


@pytest.mark.training
@pytest.mark.parametrize("kind", ["future", "final", "episode"])
@given(moves, st.integers(0, 2**31 - 1))
@settings(max_examples=60)
def test_goals_come_from_the_same_episode_whatever_was_overwritten_or_given_up(kind, chunks, seed):
    tape, copies = Tape(2), 2
    replay = replay_of(kind, capacity=2 * (HORIZON + 4), copies=copies, horizon=HORIZON)
    lasts, taken = {}, []
    for cut, bits in chunks:
        if cut:
            tape.cut()
        ends = np.array(bits).reshape(4, 2)
        length = tape.step.copy()
        for row in range(4):  # No episode is longer than the horizon.
            length = np.where(tape.over if row == 0 else ends[row - 1], 0, length + 1)
            ends[row] |= length >= HORIZON
        steps = tape.collect(ends)
        before, after = (np.asarray(x[ACHIEVED])[..., 0] for x in (steps.acted_on, steps.following))
        for row, copy in np.argwhere(np.asarray(steps.valid)):
            taken.append((int(copy), float(before[row, copy])))
            lasts[before[row, copy] // 1000] = float(after[row, copy])
        replay = remember(replay, steps)
    capacity = replay.rows.shape[1]
    kept = [state for copy in range(copies) for state in [s for c, s in taken if c == copy][-capacity:]]
    running = {float(number) for number, over in zip(tape.episode, tape.over, strict=True) if not over}
    possible = {state for state in kept if state // 1000 not in running}
    assert int(replay.sampled) == len(possible)
    if not possible:
        return
    found = drawn(replay, seed)
    assert {row[0] for row in found} == possible
    for before, after, goal, reward, terminated in found:
        assert goal // 1000 == before // 1000
        assert after == before + 1
        assert goal - 1 in possible, "the goal's own transition is still there"
        assert goal <= lasts[before // 1000]
        assert reward == (0.0 if goal == after else -1.0)
        assert terminated == 0.0
        if kind != "episode":
            assert goal >= after
        if kind == "final":
            assert goal == lasts[before // 1000]


def test_transitions_are_written_in_place():
    replay = replay_of("future", capacity=400_000, copies=4)

    def step(replay, steps, key):
        after = replay.remember(steps)
        return after, after.sample(key, (8,))

    lowered = jax.jit(step, donate_argnums=0).lower(replay, Tape(4).collect(np.zeros((3, 4))), jax.random.key(0))
    assert lowered.compile().memory_analysis().temp_size_in_bytes < replay.rows.nbytes / 10


TD3 = {"actor_layers": (4,), "feature_layers": (4,), "head_layers": (4,), "num_steps": 4}


@pytest.mark.parametrize(
    ("changes", "goal", "message"),
    [
        ({"hindsight": "future"}, None, "learner.hindsight needs a goal environment"),
        ({"clip_values": True}, None, "learner.clip_values needs a goal environment"),
        ({"clip_values": True, "discount": 1.0}, GOAL, "a discount below 1"),
        ({"clip_values": True}, Goal("distance", 0.5), "rewards between two bounds"),
        ({"hindsight": "future"}, Goal("exponential", 0.0, ends=True), "cannot tell at which exchanged goals"),
    ],
)
def test_options_of_goals_need_goals(changes, goal, message):
    learner = learners.build("td3", {**TD3, **changes})
    with pytest.raises(FedraxError, match=message) as error:
        learner.check(spaces(goal))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("goal", "reward"), [(GOAL, 0.0), (Goal("distance", 0.0), 0.0), (Goal("exponential", 0.0), 1.0)]
)
def test_the_references_goals_have_the_reward_of_success(goal, reward):
    replay = two_episodes("reference", goal)
    found = [row for row in drawn(replay) if row[4] == 1.0]
    assert found
    assert {row[3] for row in found} == {reward}


@pytest.mark.parametrize(
    ("changes", "held"), [({}, 200), ({"hindsight": "future"}, 100), ({"hindsight": "future", "buffer_size": 201}, 100)]
)
def test_learning_that_may_never_start_is_refused(changes, held):
    """Of two copies with episodes of up to 50 steps, 2 x 50 of 200 transitions may be of episodes that still run."""
    settings = {**TD3, "buffer_size": 200, **changes}
    learners.build("td3", {**settings, "learning_starts": held}).bind(spaces(), 2, 50)
    late = learners.build("td3", {**settings, "learning_starts": held + 2})
    with pytest.raises(FedraxError, match=f"learning_starts = {held + 2} is more than the {held} transitions") as error:
        late.bind(spaces(), 2, 50)
    assert "\n" not in str(error.value)


def test_a_replay_too_small_for_an_episode_is_refused_and_memory_is_told():
    learner = learners.build("td3", {**TD3, "hindsight": "future", "buffer_size": 100, "learning_starts": 8})
    with pytest.raises(FedraxError, match="buffer_size = 100 is less than the 108 transitions"):
        learner.bind(spaces(), 2, 50)
    bound = learner.bind(spaces(), 2, 46)
    replay = jax.eval_shape(lambda: bound.init(jax.random.key(0), spaces())).memory.replay
    held = sum(x.size * x.dtype.itemsize for x in (replay.rows, replay.step, replay.left))
    assert held == hindsight_bytes(spaces(), 100) == bound.memory_bytes(spaces())


def test_values_are_clipped_to_what_rewards_allow():
    learner = learners.build("td3", {**TD3, "clip_values": True, "discount": 0.9}).bind(spaces(), 1, 8)
    agent = learner.init(jax.random.key(0), spaces())
    far = jax.tree.map(lambda x: x - 100.0, agent.params.head)
    batch = two_episodes("final").sample(jax.random.key(0), (16,))
    training = Training(agent.params, agent.optimizer, dataclasses.replace(agent.params, head=far), ())
    low = learner.targets(training, batch, jnp.zeros((16, 1)))
    np.testing.assert_allclose(low, -10.0, rtol=1e-5)


def test_random_actions_are_uniform_and_as_many_as_asked_for():
    learner = learners.build("td3", {**TD3, "random_actions": 0.3, "exploration_noise": 0.0})
    params = learner.init_params(jax.random.key(0), spaces())
    seen = jax.tree.map(lambda part: jnp.ones((4000, *part.shape)), spaces().observation.tree)
    greedy = learner.act(params, seen, None)
    taken = np.asarray(learner.act(params, seen, jax.random.key(1)))[:, 0]
    other = taken[taken != np.asarray(greedy)[:, 0]]
    assert abs(len(other) / 4000 - 0.3) < 0.03
    assert abs(other.mean()) < 0.06
    assert np.quantile(np.abs(other), [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.05)


@pytest.mark.training
def test_the_penalty_pulls_actions_towards_the_middle_of_their_range():
    def moved(weight):
        learner = learners.build("td3", {**TD3, "action_penalty": weight, "learning_rate": 0.05})
        agent = learner.init(jax.random.key(0), spaces())
        batch = jax.tree.map(lambda x: x / 1000, two_episodes("final").sample(jax.random.key(0), (64,)))
        training = Training(agent.params, agent.optimizer, agent.memory.target, ())
        for _ in range(60):
            training, _ = learner.actor_step(training, batch, (), Objective(), training.params)
        return float((training.params.act(batch.observation) ** 2).mean())

    assert moved(100.0) < 0.05 < moved(0.0)
