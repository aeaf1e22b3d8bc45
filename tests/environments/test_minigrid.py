"""MiniGrid's environments in both host backends: what is observed, told, rewarded, and when episodes end."""

import contextlib
import io
import sys

import gymnasium
import jax
import minigrid
import numpy as np
import pytest

from fedrax.environments import registry
from fedrax.environments.base import Discrete, Tokens, shapes
from fedrax.environments.host import EnvPoolEnvironments, GymnasiumEnvironments, make_host
from fedrax.environments.minigrid import (
    MISSION_LENGTHS,
    PADDING,
    PREFIXES,
    UNKNOWN,
    VOCABULARY,
    MiniGridObservation,
    minigrid_spaces,
    mission_tokens,
)
from fedrax.environments.registry import describe_environment
from fedrax.errors import FedraxError

pytestmark = pytest.mark.filterwarnings("ignore:.*out of date")

BACKENDS = ["gymnasium", "envpool"]
SEEDS = np.arange(4) + 7
IDS = sorted(id for id in gymnasium.registry if id.startswith(PREFIXES))
FORWARD = 2
LIMITS = {
    "MiniGrid-SimpleCrossingS9N2-v0": 324,
    "MiniGrid-LavaCrossingS9N3-v0": 324,
    "MiniGrid-DistShift2-v0": 252,
    "MiniGrid-DoorKey-6x6-v0": 360,
    "MiniGrid-FourRooms-v0": 100,
    "MiniGrid-Dynamic-Obstacles-6x6-v0": 144,
    "MiniGrid-GoToDoor-8x8-v0": 256,
    "MiniGrid-PutNear-8x8-N3-v0": 40,
    "BabyAI-GoToLocal-v0": 64,
    "BabyAI-PickupLoc-v0": 64,
    "BabyAI-PutNextLocal-v0": 128,
}


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


def roll(environments, actions):
    """A step of every copy for each row of ``actions[steps, num_envs]``: columns ``[steps, num_envs, ...]``."""
    rows = [environments.step(action) for action in actions]
    return [jax.tree.map(lambda *each: np.stack(each), *column) for column in zip(*rows, strict=True)]


def sentence(tokens):
    """The words of one mission's tokens."""
    return " ".join(VOCABULARY[int(token)] for token in tokens if token != PADDING)


@contextlib.contextmanager
def made(id):
    """The environment as MiniGrid has it; what BabyAI prints of its rejected missions is dropped."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.closing(gymnasium.make(id)) as environment:
        yield environment


@pytest.mark.parametrize(
    "id", ["MiniGrid-DoorKey-6x6-v0", "MiniGrid-LavaCrossingS9N1-v0", "MiniGrid-Dynamic-Obstacles-6x6-v0"]
)
def test_gymnasiums_copies_equal_minigrids_own_wrapper(make, id):
    steps = 60
    actions = np.random.default_rng(0).choice([0, 1, 2, 2, 2], (steps, 4))
    environments = make(id, 4, backend="gymnasium")
    environments.reseed(SEEDS)
    first = environments.reset()
    observation, reward, terminated, truncated = roll(environments, actions)
    assert first.dtype == observation.dtype == reward.dtype == np.float32
    ended = 0
    for copy, seed in enumerate(SEEDS):
        reference = minigrid.wrappers.ImgObsWrapper(gymnasium.make(id))
        expected, _ = reference.reset(seed=int(seed))
        np.testing.assert_array_equal(first[copy], expected)
        over = False
        for t in range(steps):
            if over:
                expected, _ = reference.reset()
                row = (0.0, False, False)
            else:
                expected, *row, _ = reference.step(actions[t, copy])
            np.testing.assert_array_equal(observation[t, copy], expected)
            assert (reward[t, copy], terminated[t, copy], truncated[t, copy]) == (np.float32(row[0]), *row[1:])
            over = row[1] or row[2]
            ended += over
    assert ended or "DoorKey" in id


@pytest.mark.parametrize("id", ["MiniGrid-Empty-8x8-v0", "MiniGrid-DistShift1-v0", "MiniGrid-DistShift2-v0"])
def test_envpool_equals_gymnasium_where_nothing_is_random(make, id):
    actions = np.random.default_rng(3).choice([0, 1, 2, 2], (300, 8)).astype(np.int32)
    columns = []
    for backend in BACKENDS:
        environments = make(id, 8, backend=backend, max_episode_steps=60)
        environments.reseed(np.arange(8))
        columns.append([environments.reset(), *roll(environments, actions)])
    for gymnasiums, envpools in zip(*columns, strict=True):
        np.testing.assert_allclose(gymnasiums, envpools, rtol=1e-6)
    *_, terminated, truncated = columns[0]
    assert terminated.any() or truncated.any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("id", LIMITS)
def test_shapes_actions_and_limits(make, backend, id):
    limit = LIMITS[id]
    described = describe_environment(id, native=False, backend=backend)
    assert described.time_limit == limit
    assert described.spaces.observation.shape == (7, 7, 3)
    assert described.spaces.action == Discrete(3 if "Dynamic" in id else 7)
    environments = make(id, 2, backend=backend)
    assert environments.time_limit == limit
    assert environments.spaces == described.spaces
    environments.reseed(SEEDS[:2])
    assert environments.reset().shape == (2, 7, 7, 3)
    # Who only turns ends no episode anywhere.
    observation, _, terminated, truncated = roll(environments, np.zeros((limit + 2, 2), np.int32))
    assert observation.dtype == np.float32
    assert not terminated.any()
    np.testing.assert_array_equal(np.nonzero(truncated)[0], [limit - 1] * 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_missions_that_differ_in_length_are_described_by_the_longest(backend):
    assert describe_environment("BabyAI-MiniBossLevel-v0", backend=backend).time_limit == 8 * 100
    assert describe_environment("BabyAI-GoToSeqS5R2-v0", backend=backend).time_limit == 4 * 100


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_shorter_horizon_truncates_and_leaves_the_rewards_as_they_are(make, backend):
    # Empty: three steps ahead, a turn to the right, three ahead: the goal is reached with step 7 of 144.
    environments = make("MiniGrid-Empty-6x6-v0", 2, backend=backend, max_episode_steps=8)
    assert environments.time_limit == 8
    environments.reseed(SEEDS[:2])
    environments.reset()
    solve = [FORWARD] * 3 + [1] + [FORWARD] * 3
    actions = np.array([[*solve, 0, *solve, 0, *solve], [0, 1] * 11 + [0]]).T.astype(np.int32)
    observation, reward, terminated, truncated = roll(environments, actions)
    np.testing.assert_array_equal(np.nonzero(terminated[:, 0])[0], [6, 14, 22])
    np.testing.assert_allclose(reward[[6, 14, 22], 0], 1 - 0.9 * 7 / 144, rtol=1e-6)
    assert not truncated[:, 0].any()
    np.testing.assert_array_equal(np.nonzero(truncated[:, 1])[0], [7, 16])
    assert not terminated[:, 1].any()
    assert np.count_nonzero(reward) == 3
    # The room is always the same: what follows an episode's last observation is the first of all again.
    start = environments.reset()
    np.testing.assert_array_equal(observation[[8, 17], 1], start[[1, 1]])
    np.testing.assert_array_equal(observation[[7, 15], 0], start[[0, 0]])
    assert not np.array_equal(observation[6, 0], start[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_of_some_copies_cuts_and_resets_only_theirs(make, backend):
    environments = make("MiniGrid-Empty-6x6-v0", 3, backend=backend, max_episode_steps=3)
    environments.reseed(SEEDS[:3])
    start = environments.reset()
    turn = np.zeros(3, np.int32)
    active = np.array([True, False, True])
    cuts = []
    for _ in range(8):
        observation, _, terminated, truncated = environments.step(turn, active)
        assert not terminated[active].any()
        cuts.append(truncated[active])
    np.testing.assert_array_equal(np.nonzero(np.stack(cuts).all(1))[0], [2, 6])
    np.testing.assert_array_equal(observation[active], start[active])
    # A reset forgets that an episode was cut.
    for _ in range(3):
        environments.step(turn)
    environments.reset()
    *_, truncated = roll(environments, [turn] * 3)
    np.testing.assert_array_equal(truncated.all(1), [False, False, True])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_finished_copy_resets_in_the_next_step(make, backend):
    environments = make("MiniGrid-LavaCrossingS9N1-v0", 8, backend=backend)
    environments.reseed(np.arange(8))
    environments.reset()
    actions = np.random.default_rng(1).choice([0, 1, 2, 2, 2], (200, 8)).astype(np.int32)
    observation, reward, terminated, truncated = roll(environments, actions)
    assert terminated.sum() > 8
    assert not truncated.any()
    step, copy = np.nonzero(terminated[:-1])
    # The agent stands in the middle of its view's last row; who died there is drawn on an empty cell.
    np.testing.assert_array_equal(reward[step + 1, copy], 0)
    assert not terminated[step + 1, copy].any()
    # Episodes begin in the upper left corner, facing right: there is a wall on the left, and one behind.
    fresh = observation[step + 1, copy]
    assert (fresh[:, 2, 6, 0] == 2).all()
    ahead = fresh[:, 3, :6, 0]
    assert not (ahead[:, -1] == 2).any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_seeds_decide_everything(make, backend):
    environments = make("MiniGrid-GoToDoor-6x6-v0", 4, backend=backend, mission=True, max_episode_steps=9)
    actions = np.random.default_rng(2).integers(0, 6, (30, 4)).astype(np.int32)

    def run(seeds):
        environments.reseed(seeds)
        return [environments.reset(), *roll(environments, actions)]

    once, again, other = run(SEEDS), run(SEEDS), run(SEEDS + 100)
    jax.tree.map(np.testing.assert_array_equal, once, again)
    assert not np.array_equal(once[0]["image"], other[0]["image"])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("id", "verb"), [("MiniGrid-GoToDoor-8x8-v0", "go to"), ("MiniGrid-PutNear-8x8-N3-v0", "put")])
def test_missions_are_observed_beside_the_image(make, backend, id, verb):
    environments = make(id, 16, backend=backend, mission=True, max_episode_steps=20)
    length = MISSION_LENGTHS["MiniGrid-"]
    assert shapes(environments.spaces.observation) == {"image": (7, 7, 3), "mission": (length,)}
    assert environments.spaces.observation.tree["mission"] == Tokens(length, len(VOCABULARY))
    environments.reseed(np.arange(16))
    first = environments.reset()
    assert first["image"].dtype == np.float32
    assert first["mission"].dtype == np.int32
    assert first["mission"].shape == (16, length)
    missions = [sentence(row) for row in first["mission"]]
    assert len(set(missions)) > 2
    assert all(mission.startswith(f"{verb} the ") for mission in missions)
    observation, _, terminated, truncated = roll(environments, np.zeros((21, 16), np.int32))
    assert not terminated.any()
    assert truncated[19].all()
    words = observation["mission"]
    np.testing.assert_array_equal(words[:20], np.broadcast_to(first["mission"], (20, 16, length)))
    assert len({row.tobytes() for row in words[20]}) > 2
    assert not np.array_equal(words[20], first["mission"])
    image = make(id, 16, backend=backend)
    image.reseed(np.arange(16))
    np.testing.assert_array_equal(image.reset(), first["image"])


def test_every_mission_fits_the_vocabulary():
    missions = {}
    for id in IDS:
        if "WFC" in id:
            continue
        with made(id) as environment:
            prefix = next(prefix for prefix in PREFIXES if id.startswith(prefix))
            found = missions.setdefault(prefix, set())
            found |= {environment.observation_space["mission"].sample() for _ in range(20)}
            large = environment.unwrapped.width > 16
            found |= {environment.reset(seed=seed)[0]["mission"] for seed in range(2 if large else 4)}
    # The longest BabyAI has: LevelGen joins at most four instructions, of which this is the longest.
    instruction = "put a yellow ball in front of you next to the grey ball in front of you"
    missions["BabyAI-"] |= {
        " after you ".join([f"{instruction} and {instruction}"] * 2),
        ", then ".join(["open a door"] * 2),
    }
    for prefix, found in missions.items():
        length = MISSION_LENGTHS[prefix]
        for mission in found:
            tokens = mission_tokens(mission, length)
            assert UNKNOWN not in tokens, mission
            assert sentence(tokens) == " ".join(mission.lower().replace(",", "").split())


def test_words_outside_of_the_vocabulary_are_unknown_and_long_missions_are_cut():
    assert len(set(VOCABULARY)) == len(VOCABULARY)
    np.testing.assert_array_equal(mission_tokens("Go to the teapot", 6)[[3, 4]], [UNKNOWN, PADDING])
    assert sentence(mission_tokens("Go to, the TEAPOT", 6)) == "go to the <unknown>"
    assert mission_tokens("go " * 30, 20).shape == (20,)
    # Policies hold an embedding per token, so these may never change.
    assert [VOCABULARY.index(word) for word in ("blue", "ball", "avoid", "a", "your")] == [2, 8, 21, 35, 55]


def test_auto_prefers_envpool_and_falls_back_to_gymnasium(make, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(registry.importlib.util, "find_spec", lambda name: None)
        assert isinstance(make("MiniGrid-Empty-5x5-v0", 1), GymnasiumEnvironments)
    pytest.importorskip("envpool")
    assert isinstance(make("MiniGrid-Empty-5x5-v0", 1), EnvPoolEnvironments)


def test_envpool_has_minigrids_limits_actions_and_images():
    envpool = pytest.importorskip("envpool")
    known = set(envpool.list_all_envs())
    for id in IDS:
        if id not in known or "WFC" in id:
            continue
        spec = envpool.make_spec(id)
        with made(id) as environment:
            assert spec.gymnasium_observation_space["image"] == environment.observation_space["image"]
            assert spec.gymnasium_action_space.n == environment.action_space.n
            # BabyAI's limits follow the mission in EnvPool too, which says 0.
            limit = environment.unwrapped.max_steps
            assert spec.config.max_episode_steps == (limit if id.startswith("MiniGrid-") else 0)


@pytest.mark.parametrize(
    ("id", "settings", "message"),
    [
        (
            "MiniGrid-DoorKey-7x7-v0",
            {},
            "unknown environment 'MiniGrid-DoorKey-7x7-v0' (did you mean 'MiniGrid-DoorKey-",
        ),
        ("BabyAI-GotoLocal-v0", {}, "(did you mean 'BabyAI-GoToLocal-v0'?)"),
        ("Pendulum-v1", {"mission": True}, "environment 'Pendulum-v1' has no mission"),
        ("Hopper-v5", {"mission": True}, "environment 'Hopper-v5' has no mission"),
        ("MiniGrid-LavaCrossingS9N1-v0", {"mission": True}, "environment.native=false, or no mission"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(id, settings, message):
    with pytest.raises(FedraxError) as error:
        describe_environment(id, **settings)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("id", ["MiniGrid-Empty-5x5-v0", "BabyAI-GoToLocal-v0"])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, id):
    monkeypatch.setitem(sys.modules, "minigrid", None)
    message = f'environment {id!r} needs a package that is not installed: pip install "fedrax[minigrid]"'
    with pytest.raises(FedraxError) as error:
        describe_environment(id, native=False)
    assert str(error.value) == message


def test_other_observations_are_refused():
    with pytest.raises(FedraxError, match="only a Dict with an image and Discrete actions"):
        minigrid_spaces("MiniGrid-Mine-v0", gymnasium.spaces.Discrete(2), gymnasium.spaces.Discrete(2), mission=False)


def test_the_observations_lie_in_their_space():
    with made("MiniGrid-PutNear-6x6-N2-v0") as environment:
        for mission in (False, True):
            spaces = describe_environment("MiniGrid-PutNear-6x6-N2-v0", native=False, mission=mission).spaces
            wrapped = MiniGridObservation(environment, spaces)
            observation, _ = wrapped.reset(seed=0)
            assert wrapped.observation_space.contains(observation)
