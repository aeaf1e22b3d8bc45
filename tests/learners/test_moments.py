"""Running moments of observations, by which networks see them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrax.environments.base import Box, Dict, Spaces, Tokens
from fedrax.environments.goals import ACHIEVED, DESIRED, OBSERVATION
from fedrax.learners.base import learners
from fedrax.learners.moments import CLIP, LEAST_DEVIATION, Moments, Normaliser

WIDE = Box((2,), (-1e6,) * 2, (1e6,) * 2)
ONE = Box((1,), (-1e6,), (1e6,))
GOALS = Dict.of({OBSERVATION: WIDE, ACHIEVED: ONE, DESIRED: ONE})


def of(rows, valid=None):
    rows = jnp.asarray(rows, jnp.float32)
    return Moments.of(rows, jnp.ones(rows.shape[0], bool) if valid is None else jnp.asarray(valid))


def check(moments, rows, rtol=1e-5):
    """The moments are those of the rows, as NumPy finds them in double precision."""
    rows = np.asarray(rows, np.float64)
    size = max(np.abs(rows).max(), 1e-6)
    np.testing.assert_array_equal(moments.count, len(rows))
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=rtol, atol=rtol * size)
    spread = ((rows - rows.mean(0)) ** 2).sum(0)
    np.testing.assert_allclose(moments.spread, spread, rtol=10 * rtol, atol=10 * rtol * len(rows) * np.ptp(rows) ** 2)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.floats(-100, 100), st.integers(0, 2**31))
def test_merged_moments_are_those_of_all_data(sizes, centre, seed):
    generator = np.random.default_rng(seed)
    parts = [generator.normal(centre, 3.0, (size, 2)).astype(np.float32) for size in [*sizes, 2]]
    merged = Moments.none((2,))
    for part in parts:
        merged = merged.merged(of(part) if len(part) else Moments.none((2,)))
    check(merged, np.concatenate(parts))


@settings(max_examples=50)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.floats(-300, 300), st.integers(0, 2**31))
def test_moments_of_agents_together_are_those_of_all_data(sizes, centre, seed):
    """Wherever observations lie, and whoever is missing."""
    generator = np.random.default_rng(seed)
    parts = [generator.normal(centre, 3.0, (size, 2)).astype(np.float32) for size in [*sizes, 2, 5]]
    each = [of(part) if len(part) else Moments.none((2,)) for part in parts]
    stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *each)
    present = jnp.arange(len(parts)) < len(parts) - 1
    check(stacked.together(present), np.concatenate(parts[:-1]))
    normaliser = Normaliser(Moments.none((2,)), Moments.none((2,)))
    check(normaliser.pooled(stacked, present), np.concatenate(parts[:-1]))


@pytest.mark.parametrize(("centre", "deviation"), [(1e3, 0.01), (1e4, 0.1), (1e5, 10.0), (300.0, 0.1)])
def test_a_far_centre_costs_no_precision(centre, deviation):
    """From the first round on, in which nobody knows where observations lie."""
    rows = np.random.default_rng(0).normal(centre, deviation, (4000, 1)).astype(np.float32)
    normaliser = Normaliser(Moments.none((1,)), Moments.none((1,)))
    for round in np.split(rows, 20):
        each = [of(part) for part in np.split(round, 4)]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
        normaliser = normaliser.received(normaliser.pooled(stacked, jnp.ones(4, bool)))
    found = np.sqrt(np.asarray(normaliser.shared.spread) / 4000)
    np.testing.assert_allclose(found, rows.astype(np.float64).std(0), rtol=1e-2)


def test_what_is_no_experience_is_not_counted():
    rows = [[1.0, 5.0], [np.nan, np.inf], [3.0, 7.0]]
    moments = of(np.nan_to_num(rows, nan=1e9, posinf=1e9), [True, False, True])
    check(moments, [[1.0, 5.0], [3.0, 7.0]])


def test_normalised_numbers():
    moments = Moments(jnp.asarray([4.0, 4.0]), jnp.asarray([1.0, 2.0]), jnp.asarray([16.0, 0.0]))
    seen = moments.normalised(jnp.asarray([[5.0, 2.0], [1000.0, 2.005], [1.0, 1.0]]))
    np.testing.assert_allclose(seen, [[2.0, 0.0], [CLIP, 0.005 / LEAST_DEVIATION], [0.0, -CLIP]], rtol=1e-4)
    x = jnp.asarray([[100.0, -3.0]])
    np.testing.assert_array_equal(Moments.none((2,)).normalised(x), x)


def test_both_goals_are_seen_by_the_achieved_ones_moments():
    """So that a goal means the same, whether it was desired or achieved."""
    observation = {
        OBSERVATION: jnp.asarray([[1.0, 2.0], [3.0, 6.0]]),
        ACHIEVED: jnp.asarray([[1.0], [3.0]]),
        DESIRED: jnp.asarray([[5.0], [7.0]]),
    }
    normaliser = Normaliser.fresh(GOALS).observe(observation, jnp.ones(2, bool))
    seen = normaliser({name: x[:1] for name, x in observation.items()})
    deviation = np.std([1.0, 3.0, 5.0, 7.0])
    np.testing.assert_allclose(seen[ACHIEVED], [[-3.0 / deviation]], rtol=1e-6)
    np.testing.assert_allclose(seen[DESIRED], [[1.0 / deviation]], rtol=1e-6)
    np.testing.assert_allclose(seen[OBSERVATION], [[-1.0, -1.0]], rtol=1e-6)


def test_what_is_0_or_1_is_seen_as_it_is_and_masks_only_what_it_fits():
    """An environment's own parts, whatever they are called."""
    flags = Box((2,), (0.0,) * 2, (1.0,) * 2, "bool")
    space = Dict.of({"place": ONE, "place_mask": flags, "speed": WIDE, "speed_mask": WIDE, "task_identity": ONE})
    observation = {
        "place": jnp.asarray([[1.0], [3.0]]),
        "place_mask": jnp.asarray([[0.0, 1.0], [0.0, 1.0]]),
        "speed": jnp.asarray([[1.0, 2.0], [3.0, 6.0]]),
        "speed_mask": jnp.asarray([[1.0, 2.0], [3.0, 6.0]]),
        "task_identity": jnp.asarray([[1.0], [3.0]]),
    }
    seen = Normaliser.fresh(space).observe(observation, jnp.ones(2, bool))(observation)
    np.testing.assert_array_equal(seen["place_mask"], observation["place_mask"])
    for name in ("place", "speed", "speed_mask", "task_identity"):
        np.testing.assert_allclose(seen[name], np.broadcast_to([[-1.0], [1.0]], seen[name].shape), rtol=1e-6)


def test_images_and_words_are_seen_as_they_are():
    image = Box((2, 2, 3), (0.0,) * 12, (255.0,) * 12, "uint8")
    space = Dict.of({"image": image, "mission": Tokens(3, 9), "place": ONE})
    observation = {
        "image": jnp.full((4, 2, 2, 3), 200, jnp.uint8),
        "mission": jnp.full((4, 3), 2, jnp.int32),
        "place": jnp.asarray([[1.0], [2.0], [3.0], [4.0]]),
    }
    seen = Normaliser.fresh(space).observe(observation, jnp.ones(4, bool))(observation)
    for name in ("image", "mission"):
        np.testing.assert_array_equal(seen[name], observation[name])
    np.testing.assert_allclose(seen["place"].std(), 1.0, rtol=1e-6)


@pytest.mark.parametrize("space", [WIDE, GOALS])
def test_a_policy_is_blind_to_units_once_it_normalises(space):
    """The same networks act alike on observations in metres and in millimetres."""
    learner = learners.build("td3", {"normalise": True, "actor_layers": [8], "batch_size": 4, "buffer_size": 16})
    params = learner.init_params(jax.random.key(0), Spaces(space, Box((1,), (-1.0,), (1.0,))))
    shapes = {name: part.shape for name, part in space.parts} if isinstance(space, Dict) else space.shape
    generator = np.random.default_rng(1)

    def drawn(scale):
        if isinstance(shapes, dict):
            return {name: jnp.asarray(scale * generator.normal(size=(50, *shape))) for name, shape in shapes.items()}
        return jnp.asarray(scale * generator.normal(size=(50, *shapes)))

    metres = drawn(1.0)
    millimetres = jax.tree.map(lambda x: 1000.0 * x, metres)
    actions = []
    for observation in (metres, millimetres):
        seeing = params.normaliser.observe(observation, jnp.ones(50, bool))
        own = jax.tree.map(lambda x: x, params)
        object.__setattr__(own, "normaliser", seeing)
        actions.append(learner.act(learner.acting(own), observation, None))
    np.testing.assert_allclose(*actions, rtol=1e-3, atol=1e-4)
    assert np.asarray(actions[0]).std() > 1e-3
