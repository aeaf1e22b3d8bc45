"""Box2D's environments with parameters: Gymnasium's own at the defaults, and each instance with its own physics."""

import pickle

import gymnasium
import numpy as np
import pytest

pytest.importorskip("Box2D")

from fedrax.environments.box2d_lunar import VariedLunarLander, _with_constants
from fedrax.environments.box2d_walker import TERRAIN_STEP, VariedBipedalWalker
from fedrax.environments.host_parameters import check_host_parameters, host_defaults, host_physics, make_varied
from fedrax.errors import FedraxError

LANDER, WALKER = "LunarLanderContinuous-v3", "BipedalWalkerHardcore-v3"


def varied(id, **changed):
    return make_varied(id, {**host_defaults(id), **changed})


def rolled(environment, seed, steps=150):
    """Observations and rewards under random actions, until the episode ends."""
    environment.action_space.seed(seed)
    rows = [(*environment.reset(seed=seed)[0], 0.0)]
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = environment.step(environment.action_space.sample())
        rows.append((*observation, reward))
        if terminated or truncated:
            break
    return np.array(rows)


@pytest.mark.parametrize("id", host_physics)
def test_defaults_are_the_registered_environment_bit_for_bit(id):
    for seed in range(3):
        ours, theirs = varied(id), gymnasium.make(id)
        np.testing.assert_array_equal(rolled(ours, seed), rolled(theirs, seed))
        assert (ours.action_space, ours.observation_space) == (theirs.action_space, theirs.observation_space)
        assert ours.spec.max_episode_steps == theirs.spec.max_episode_steps


@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        ({"gravity": -4.0}, {"gravity": -4.0}),
        ({"enable_wind": True, "wind_power": 9.0, "turbulence_power": 0.5}, {"wind_power": 9, "turbulence_power": 0.5}),
        ({"enable_wind": True, "wind_power": 9.0, "turbulence_power": 0.0}, {"wind_power": 9.0}),
    ],
)
def test_gravity_and_wind_are_gymnasiums(settings, changed):
    theirs = rolled(gymnasium.make(LANDER, **settings), 4)
    np.testing.assert_array_equal(rolled(varied(LANDER, **changed), 4), theirs)
    assert not np.array_equal(rolled(varied(LANDER), 4), theirs)


ENGINES = [
    ("main_engine_power", 13.0, [1.0, 0.0]),
    ("side_engine_power", 0.6, [0.0, 1.0]),
    ("side_engine_height", 14.0, [0.0, 1.0]),
    ("side_engine_away", 12.0, [0.0, -1.0]),
]


@pytest.mark.parametrize(("name", "default", "action"), ENGINES)
def test_an_engines_impulse_is_linear_in_each_parameter(monkeypatch, name, default, action):
    """And so is the lander's velocity, linear or angular, until the solver has moved it."""
    velocities = []
    for factor in (0.0, 1.0, 3.0):
        environment = varied(LANDER, **{name: factor * default}).unwrapped
        environment.reset(seed=2)
        body, before = environment.lander, environment.lander.linearVelocity.copy()
        spin = body.angularVelocity
        stepped = type(environment.world).Step
        found = []

        def record(world, *arguments, body=body, found=found, stepped=stepped):
            found.append([*body.linearVelocity, body.angularVelocity])
            return stepped(world, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(type(environment.world), "Step", record)
            environment.step(np.array(action, np.float32))
        velocities.append(np.array(found[0]) - [*before, spin])
    first, second = velocities[1] - velocities[0], velocities[2] - velocities[1]
    assert np.abs(first).max() > 1e-3
    np.testing.assert_allclose(second, 2 * first, atol=2e-6)


@pytest.mark.parametrize(("name", "default", "action"), ENGINES)
def test_instances_in_one_process_do_not_touch_each_other(name, default, action):
    def steps(environment, count=10):
        return np.array([environment.step(np.array(action, np.float32))[0] for _ in range(count)])

    def fresh(**changed):
        environment = varied(LANDER, **changed)
        environment.reset(seed=3)
        return environment

    alone = steps(fresh(**{name: 1.5 * default})), steps(fresh())
    one, other = fresh(**{name: 1.5 * default}), fresh()
    registered = gymnasium.make(LANDER)
    registered.reset(seed=3)
    together = [(steps(one, 1)[0], steps(other, 1)[0], steps(registered, 1)[0]) for _ in range(10)]
    first, second, third = (np.array(column) for column in zip(*together, strict=True))
    np.testing.assert_array_equal(first, alone[0])
    np.testing.assert_array_equal(second, alone[1])
    np.testing.assert_array_equal(third, alone[1])
    assert not np.array_equal(first, second)


def test_a_constant_that_gymnasium_does_not_read_is_refused():
    def step(self):
        return MAIN_ENGINE_POWER  # noqa: F821

    assert _with_constants(step, {"MAIN_ENGINE_POWER": 5.0})(None) == 5.0
    with pytest.raises(FedraxError, match="reads no SIDE_ENGINE_AWAY, which environment"):
        _with_constants(step, {"MAIN_ENGINE_POWER": 5.0, "SIDE_ENGINE_AWAY": 1.0})


def terrain(environment):
    """The heights, and the obstacles as ``[count, 4, 2]`` corners, in the order they were built."""
    walker = environment.unwrapped
    blocks = [body.fixtures[0].shape.vertices for body in walker.terrain if hasattr(body.fixtures[0].shape, "centroid")]
    return np.array(walker.terrain_y), np.array(blocks[::-1])


@pytest.mark.parametrize("id", ["BipedalWalker-v3", WALKER])
def test_default_terrain_is_gymnasiums_episode_after_episode(id):
    ours, theirs = varied(id), gymnasium.make(id)
    for seed in [0, *[None] * 9]:
        ours.reset(seed=seed)
        theirs.reset(seed=seed)
        for own, registered in zip(terrain(ours), terrain(theirs), strict=True):
            np.testing.assert_array_equal(own, registered)
        assert ours.unwrapped.terrain_poly == theirs.unwrapped.terrain_poly
    assert (len(terrain(ours)[1]) > 0) == (id == WALKER)


def widths(changed, seeds=8):
    """Every obstacle's width and height in steps of the terrain, and its left edge."""
    environment = varied(WALKER, **changed)
    blocks = []
    for seed in range(seeds):
        environment.reset(seed=seed)
        blocks.append(terrain(environment)[1])
    corners = [each for each in blocks if len(each)]
    sizes = [(np.ptp(each, axis=1) / TERRAIN_STEP).round(3) for each in corners]
    return sizes, [each[:, :, 0].min(1) / TERRAIN_STEP for each in corners]


def test_stumps_have_the_sizes_asked_for():
    sizes, _ = widths({"stairs": 0.0, "pit": 0.0, "stump_size_low": 2.0, "stump_size_high": 4.0})
    sizes = np.concatenate(sizes)
    np.testing.assert_array_equal(sizes[:, 0], sizes[:, 1])
    assert set(sizes[:, 0]) == {2.0, 3.0}


def test_pits_have_the_gap_asked_for():
    sizes, edges = widths({"stump": 0.0, "stairs": 0.0, "pit_gap_low": 6.0, "pit_gap_high": 7.0})
    for each, edge in zip(sizes, edges, strict=True):
        np.testing.assert_array_equal(each, [[1.0, 4.0]] * len(each))
        np.testing.assert_allclose(edge[1::2] - edge[::2], 6.0, atol=1e-4)


def test_stairs_have_the_number_asked_for():
    sizes, edges = widths({"stump": 0.0, "pit": 0.0, "stair_steps_low": 7.0, "stair_steps_high": 8.0})
    for each, edge in zip(sizes, edges, strict=True):
        np.testing.assert_array_equal(each, [[4.0, 1.0]] * len(each))
        assert len(each) % 7 == 0
        gaps = np.diff(edge)
        assert (np.abs(np.delete(gaps, np.s_[6::7]) - 4) < 1e-4).all()


def test_obstacles_come_as_often_as_their_weights_say():
    walker = varied(WALKER, stump=1.0, stairs=0.0, pit=3.0).unwrapped
    walker.reset(seed=0)
    kinds = np.bincount([walker._kind() for _ in range(4000)], minlength=4) / 4000
    assert kinds[[0, 2]].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(kinds[[1, 3]], [0.25, 0.75], atol=0.03)


def test_a_walkers_episode_depends_on_its_seed_alone():
    """Gymnasium's own walker fails this: its world remembers the episodes before."""
    for seed in range(4):
        used = varied("BipedalWalker-v3")
        for other in range(3):
            rolled(used, 50 + other)
        np.testing.assert_array_equal(rolled(used, seed), rolled(varied("BipedalWalker-v3"), seed))


def test_walkers_of_unequal_weights_draw_from_their_own_seed():
    one, other = (varied(WALKER, stump=1.0, stairs=2.0, pit=0.5) for _ in range(2))
    for environment in (one, other):
        environment.reset(seed=7)
    np.testing.assert_array_equal(terrain(one)[0], terrain(other)[0])
    other.reset(seed=8)
    assert not np.array_equal(terrain(one)[0], terrain(other)[0])


@pytest.mark.parametrize(("id", "kind"), [(LANDER, VariedLunarLander), (WALKER, VariedBipedalWalker)])
def test_a_pickled_environment_keeps_its_parameters(id, kind):
    changed = {"side_engine_away": 20.0} if id == LANDER else {"pit": 9.0}
    environment = varied(id, **changed).unwrapped
    copy = pickle.loads(pickle.dumps(environment))
    assert type(copy) is kind
    assert copy.parameters == environment.parameters
    np.testing.assert_array_equal(rolled(copy, 1), rolled(environment, 1))


@pytest.mark.parametrize(
    ("id", "name", "value", "rule"),
    [
        (LANDER, "gravity", -12.0, "above -12 and below 0"),
        (LANDER, "main_engine_power", -1.0, "at least 0"),
        (LANDER, "observation_noise_std", -0.1, "at least 0"),
        (WALKER, "stairs", -0.5, "it is a weight and must be at least 0"),
        (WALKER, "stair_steps_low", 2.5, "give a whole number, at least 1"),
        (WALKER, "stump_size_low", 0.0, "give a whole number, at least 1"),
        (WALKER, "pit_gap_high", 3.0, "it is exclusive and must be above pit_gap_low = 3"),
        ("CartPole-v1", "action_noise_std", -1.0, "at least 0"),
    ],
)
def test_values_that_make_no_environment_are_refused(id, name, value, rule):
    check_host_parameters(id, host_defaults(id))
    with pytest.raises(FedraxError) as error:
        check_host_parameters(id, {**host_defaults(id), name: value})
    assert str(error.value).startswith(f"environment.heterogeneity.{name} = {value:g} is not allowed: ")
    assert rule in str(error.value)
