"""Both host backends against the protocol, and what is said of environments that cannot be used."""

import gc
import re
import sys
import weakref

import gymnasium
import numpy as np
import pytest

from fedrax.environments import registry
from fedrax.environments.base import Box, Discrete
from fedrax.environments.crash import EnvironmentCrash
from fedrax.environments.host import EnvPoolEnvironments, GymnasiumEnvironments, make_host
from fedrax.environments.registry import describe_environment
from fedrax.errors import FedraxError

from probe import PROBE, register

BACKENDS = ["gymnasium", "envpool"]
SEEDS = np.arange(4) + 7


@pytest.fixture
def make():
    """``make_host`` that skips what is not installed and closes what it made."""
    made = []

    def build(id, count, **settings):
        if settings.get("backend") == "envpool":
            pytest.importorskip("envpool")
        environments = make_host(id, count, **settings)
        made.append(environments)
        return environments

    yield build
    for environments in made:
        environments.close()


def roll(environments, steps, action):
    """A reset and ``steps`` steps of one constant action."""
    rows = [environments.step(action) for _ in range(steps)]
    return [np.stack(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_finished_copy_resets_in_the_next_step(make, backend):
    environments = make("CartPole-v1", 4, backend=backend)
    environments.reseed(SEEDS)
    first = environments.reset()
    assert first.dtype == np.float32
    assert first.shape == (4, 4)
    observation, reward, terminated, truncated = roll(environments, 40, np.ones(4, np.int32))
    assert observation.dtype == reward.dtype == np.float32
    assert terminated.dtype == truncated.dtype == bool
    assert not truncated.any()
    assert (terminated.sum(0) >= 2).all()
    step, copy = np.nonzero(terminated[:-1])
    outside = np.abs(observation) > [2.4, np.inf, 0.2094, np.inf]
    np.testing.assert_array_equal(outside.any(-1), terminated)
    np.testing.assert_array_equal(reward[step, copy], 1)
    np.testing.assert_array_equal(reward[step + 1, copy], 0)
    assert (np.abs(observation[step + 1, copy]) <= 0.05).all()
    assert not terminated[step + 1, copy].any()
    reset = np.zeros_like(terminated)
    reset[step + 1, copy] = True
    np.testing.assert_array_equal(reward[~reset], 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_episodes_are_truncated_at_the_limit_asked_for(make, backend):
    environments = make("Pendulum-v1", 2, backend=backend, max_episode_steps=5)
    assert environments.time_limit == 5
    environments.reseed(SEEDS[:2])
    environments.reset()
    _, reward, terminated, truncated = roll(environments, 12, np.zeros((2, 1), np.float32))
    assert not terminated.any()
    np.testing.assert_array_equal(np.nonzero(truncated[:, 0])[0], [4, 10])
    np.testing.assert_array_equal(truncated[:, 0], truncated[:, 1])
    np.testing.assert_array_equal(reward[5], 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_registered_limit_is_never_exceeded(make, backend):
    assert make("Pendulum-v1", 1, backend=backend).time_limit == 200
    assert make("Pendulum-v1", 1, backend=backend, max_episode_steps=10_000).time_limit == 200


@pytest.mark.parametrize("backend", BACKENDS)
def test_seeds_decide_everything(make, backend):
    environments = make("CartPole-v1", 4, backend=backend)

    def run(seeds):
        environments.reseed(seeds)
        first = environments.reset()
        columns = roll(environments, 15, np.zeros(4, np.int32))
        return [first, *columns, environments.reset()]

    once, again, other = run(SEEDS), run(SEEDS), run(SEEDS + 100)
    for column, repeated in zip(once, again, strict=True):
        np.testing.assert_array_equal(column, repeated)
    assert not np.array_equal(once[0], other[0])
    assert len(np.unique(once[0][:, 0])) == 4
    assert not np.array_equal(once[0], once[-1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_reset_interrupts_every_episode(make, backend):
    environments = make("Pendulum-v1", 2, backend=backend, max_episode_steps=5)
    environments.reseed(SEEDS[:2])
    environments.reset()
    roll(environments, 3, np.zeros((2, 1), np.float32))
    environments.reset()
    *_, truncated = roll(environments, 5, np.zeros((2, 1), np.float32))
    np.testing.assert_array_equal(truncated[:, 0], [False] * 4 + [True])


@pytest.mark.parametrize("backend", BACKENDS)
def test_returned_arrays_are_not_written_to_again(make, backend):
    environments = make("CartPole-v1", 4, backend=backend)
    environments.reseed(SEEDS)
    environments.reset()
    kept = environments.step(np.ones(4, np.int32))
    copies = [array.copy() for array in kept]
    roll(environments, 30, np.ones(4, np.int32))
    for array, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("id", ["CartPole-v1", "Pendulum-v1", "LunarLander-v3", "HalfCheetah-v5"])
def test_envpool_has_gymnasiums_shapes_actions_and_limit(id):
    envpool = pytest.importorskip("envpool")
    pytest.importorskip({"LunarLander-v3": "Box2D", "HalfCheetah-v5": "mujoco"}.get(id, "numpy"))
    described = describe_environment(id, native=False, backend="gymnasium")
    spec = envpool.make_spec(id)
    assert spec.gymnasium_observation_space.shape == described.spaces.observation.shape
    assert spec.config.max_episode_steps == described.time_limit
    action = spec.gymnasium_action_space
    if isinstance(described.spaces.action, Discrete):
        assert action.n == described.spaces.action.n
    else:
        np.testing.assert_array_equal(action.low, described.spaces.action.low)
        np.testing.assert_array_equal(action.high, described.spaces.action.high)


def test_mujoco_pools_speak_float32(make):
    environments = make("HalfCheetah-v5", 2, backend="envpool")
    environments.reseed(SEEDS[:2])
    assert environments.reset().dtype == np.float32
    observation, reward, *_ = environments.step(np.zeros((2, 6), np.float32))
    assert observation.dtype == reward.dtype == np.float32
    assert observation.shape == (2, 17)


def test_auto_prefers_envpool_and_falls_back_to_gymnasium(make):
    pytest.importorskip("envpool")
    assert isinstance(make("CartPole-v1", 1), EnvPoolEnvironments)
    assert isinstance(make(PROBE, 1), GymnasiumEnvironments)


def test_discrete_actions_start_at_zero_whatever_gymnasium_says(make):
    environments = make(PROBE, 2)
    environments.reseed(SEEDS[:2])
    environments.reset()
    environments.step(np.array([0, 1], np.int32))


def test_descriptions():
    native = describe_environment("CartPole-v1")
    assert native.native
    assert native.time_limit == 500
    host = describe_environment("CartPole-v1", native=False)
    assert not host.native
    assert host.time_limit == 500
    assert host.spaces.action == native.spaces.action
    np.testing.assert_allclose(host.spaces.observation.high, native.spaces.observation.high)
    pendulum = describe_environment("Pendulum-v1", native=False).spaces
    assert pendulum.action == Box((1,), (-2.0,), (2.0,))


register("FedraxEndless-v0", None)
register("FedraxTabular-v0", 10, observation_space=gymnasium.spaces.Discrete(3))
register("FedraxManyHanded-v0", 10, action_space=gymnasium.spaces.MultiDiscrete([2, 2]))


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("CartPole-v9", "unknown environment 'CartPole-v9' (did you mean 'CartPole-v"),
        ("HalfCheeta-v5", "(did you mean 'HalfCheetah-v5'?)"),
        ("FedraxEndless-v0", "no time limit: set environment.horizon"),
        ("FedraxTabular-v0", "observations Discrete(3); only a Box or a Dict of Boxes"),
        ("FedraxManyHanded-v0", "actions MultiDiscrete([2 2]); only Discrete and Box actions"),
        ("FedraxBare-v0", "declares no spaces"),
        ("FedraxBlind-v0", "observations Box([], [], (0,), float32), without a number"),
        ("FedraxHandless-v0", "actions Box([], [], (0,), float32), without a number"),
        ("HalfCheetah-v3", "cannot be made: The mujoco v2 and v3 based environments have been moved"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(id, message):
    with pytest.raises(FedraxError) as error:
        describe_environment(id, backend="gymnasium").horizon()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


class Odd(gymnasium.Env):
    """Returns what its makers ask for: another observation or reward than it declares."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, size=2, reward=1.0, info=None, leaves=False, ends=(False, False), seen=None):
        self.size, self.reward, self.info, self.leaves, self.time = size, reward, info or {}, leaves, 0
        self.ends, self.seen = ends, seen

    def reset(self, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        if self.leaves:
            sys.exit(3)
        self.time += 1
        info = {"growing": np.zeros(self.time)} if self.info == "growing" else self.info
        seen = np.zeros(self.size, np.float32) if self.seen is None else self.seen
        return seen, self.reward, *self.ends, None if info == "none" else info


class Bare(gymnasium.Env):
    """Declares nothing."""


class Blind(Odd):
    """Observes nothing."""

    observation_space = gymnasium.spaces.Box(-1, 1, (0,), np.float32)


class Handless(Odd):
    """Does nothing."""

    action_space = gymnasium.spaces.Box(-1, 1, (0,), np.float32)


for kind in (Odd, Bare, Blind, Handless):
    gymnasium.register(f"Fedrax{kind.__name__}-v0", entry_point=kind, max_episode_steps=5)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"size": 3}, "it returned an observation of shape (3,), and its observation space has (2,)"),
        ({"size": 1}, "it returned an observation of shape (1,), and its observation space has (2,)"),
        ({"reward": "hi"}, "it returned the reward 'hi', which is not a number"),
        ({"reward": None}, "it returned the reward None, which is not a number"),
        ({"reward": np.ones(2)}, "it returned the reward array([1., 1.]), which is not a number"),
        ({"ends": ("no", False)}, "it returned terminated = 'no', which is neither true nor false"),
        ({"ends": (False, "no")}, "it returned truncated = 'no', which is neither true nor false"),
        ({"ends": (None, False)}, "it returned terminated = None, which is neither true nor false"),
        ({"ends": (0.5, False)}, "it returned terminated = 0.5, which is neither true nor false"),
        (
            {"ends": (np.array([True, False]), False)},
            "it returned terminated = array([ True, False]), which is neither true nor false",
        ),
        ({"seen": np.array([None, {}])}, "it returned an observation of type object, which its observation space, of"),
        (
            {"seen": ["a", "b"]},
            "it returned an observation of type <U1, which its observation space, of float32, cannot",
        ),
        ({"seen": np.ones(2, complex)}, "it returned an observation of type complex128, which"),
        ({"seen": [[1], [2, 3]]}, "setting an array element with a sequence"),
    ],
)
def test_what_an_environment_returns_amiss_names_the_copy(make, kwargs, words):
    environments = make("FedraxOdd-v0", 2, kwargs=kwargs)
    environments.reset()
    with pytest.raises(EnvironmentCrash, match=re.escape(f"crashed in step (copy 0): ValueError: {words}")):
        environments.step(np.zeros(2, np.int32))


@pytest.mark.parametrize("info", ["growing", "none", {"final_obs": 3, "episode": "x", "is_success": "yes"}])
def test_any_infos_are_passed_over(make, info):
    environments = make("FedraxOdd-v0", 2, kwargs={"info": info})
    environments.reset()
    for _ in range(3):
        assert environments.step(np.zeros(2, np.int32))[1].tolist() == [1, 1]


def test_an_environment_that_exits_has_crashed(make):
    environments = make("FedraxOdd-v0", 2, kwargs={"leaves": True})
    environments.reset()
    with pytest.raises(EnvironmentCrash, match=r"crashed in step \(copy 0\): SystemExit: 3"):
        environments.step(np.zeros(2, np.int32))


def test_an_error_of_many_words_is_told_by_its_first():
    crash = EnvironmentCrash("Own-v0", "step", ValueError("first " + "and another " * 1000), copy=0)
    assert str(crash).startswith("environment 'Own-v0' crashed in step (copy 0): ValueError: first and another")
    assert len(str(crash)) < 500


@pytest.mark.parametrize("value", [True, np.bool_(True), 1, 1.0, np.array(True), np.array([1])])
def test_what_is_true_ends_an_episode_in_whatever_type(make, value):
    for place in (0, 1):
        environments = make("FedraxOdd-v0", 1, kwargs={"ends": [value if each == place else False for each in (0, 1)]})
        environments.reset()
        assert [bool(ended[0]) for ended in environments.step(np.zeros(1, np.int32))[2:]] == [place == 0, place == 1]


@pytest.mark.parametrize("reward", [np.array(3.0), np.array([3.0]), np.float32(3), 3, np.array([[3]]), True])
def test_an_array_of_one_number_is_a_reward(make, reward):
    environments = make("FedraxOdd-v0", 2, kwargs={"reward": reward})
    environments.reset()
    np.testing.assert_array_equal(environments.step(np.zeros(2, np.int32))[1], np.float32([reward, reward]).ravel())


def test_a_reward_beyond_float32_is_infinite_and_not_warned_of(make, recwarn):
    environments = make("FedraxOdd-v0", 1, kwargs={"reward": 1e300})
    environments.reset()
    assert environments.step(np.zeros(1, np.int32))[1].tolist() == [np.inf]
    assert not [warning for warning in recwarn if issubclass(warning.category, RuntimeWarning)]


@pytest.mark.parametrize(("id", "extra"), [("BipedalWalker-v3", "box2d"), ("Walker2d-v5", "mujoco")])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, id, extra):
    def fail(*args, **settings):
        raise gymnasium.error.DependencyNotInstalled("not here")

    monkeypatch.setattr(registry.gymnasium, "make", fail)
    with pytest.raises(FedraxError, match=rf'{id}.*pip install "fedrax\[{extra}\]"'):
        describe_environment(id, backend="gymnasium").horizon()


def test_envpool_stands_in_where_gymnasiums_package_is_missing(monkeypatch):
    pytest.importorskip("envpool")

    def fail(*args, **settings):
        raise gymnasium.error.DependencyNotInstalled("not here")

    monkeypatch.setattr(registry.gymnasium, "make", fail)
    spaces = describe_environment("Hopper-v5").spaces
    assert spaces.observation.shape == (11,)
    assert spaces.action == Box((3,), (-1.0,) * 3, (1.0,) * 3, "float64")


def test_envpool_asked_for_by_name_must_be_there_and_have_the_id(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(registry.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(FedraxError, match=r'pip install "fedrax\[envpool\]"'):
            describe_environment("Pendulum-v1", native=False, backend="envpool")
        assert not registry.uses_envpool("Pendulum-v1", "auto")
    pytest.importorskip("envpool")
    with pytest.raises(FedraxError, match="EnvPool has no environment 'FedraxProbe-v0'"):
        describe_environment(PROBE, backend="envpool")


class Knotted(gymnasium.Env):
    """24 MiB that hold themselves by a cycle, as a simulator and its renderer do."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.held, self.itself = np.ones(3 << 20), self

    def reset(self, seed=None, options=None):
        return np.zeros(1, np.float32), {}


def test_closed_environments_are_freed(monkeypatch):
    """Python's own collection is off, since it may or may not come in time."""
    gymnasium.register("TestKnotted-v0", entry_point=Knotted, max_episode_steps=10)
    alive = []
    monkeypatch.setattr(Knotted, "__new__", lambda kind, **_: tracked(object.__new__(kind), alive))
    gc.disable()
    try:
        for _ in range(4):
            make_host("TestKnotted-v0", 16, backend="gymnasium").close()
        kept = sum(reference() is not None for reference in alive)
    finally:
        gc.enable()
        gymnasium.registry.pop("TestKnotted-v0")
    assert kept <= 2 * 16 < len(alive)


def tracked(made, references):
    references.append(weakref.ref(made))
    return made
