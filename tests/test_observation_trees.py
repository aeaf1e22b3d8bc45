"""Observations of several named arrays: a task whose observation is cut into parts is learned as the whole is."""

import dataclasses
from typing import ClassVar

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedrax
from distributed.federations import NO_BUDGET, distributed, rounds_of, same, simulated
from fedrax.config import resolve
from fedrax.describe import describe
from fedrax.environments.base import Box, Dict, Spaces, Steps, Tokens, shapes, zero_observations
from fedrax.environments.faults import first_fault
from fedrax.environments.native import native_environments
from fedrax.environments.native.pendulum import Pendulum
from fedrax.environments.registry import describe_environment
from fedrax.errors import FedraxError
from fedrax.learners.encoders import make_encoder
from fedrax.learners.replay import Transitions, empty_replay, replay_bytes
from fedrax.render import render
from fedrax.runtime.make import make_runtime

from own_files import TINY

ANGLE = Box((2,), (-1.0, -1.0), (1.0, 1.0))
SPEED = Box((1,), (-8.0,), (8.0,))
PARTS = Dict.of({"speed": SPEED, "angle": ANGLE})


@native_environments.register("PartsPendulum-v1")
class PartsPendulum(Pendulum):
    """The pendulum, its angle and its speed apart."""

    spaces: ClassVar[Spaces] = Spaces(PARTS, Pendulum.spaces.action)

    def reset(self, key, physics):
        state, observation = super().reset(key, physics)
        return state, apart(observation)

    def step(self, state, action, key, physics):
        after = super().step(state, action, key, physics)
        return after._replace(observation=apart(after.observation))


def apart(observation):
    return {"angle": observation[..., :2], "speed": observation[..., 2:]}


class Apart(gymnasium.ObservationWrapper):
    """Gymnasium's pendulum, its angle and its speed apart."""

    def __init__(self, render_mode=None):
        super().__init__(gymnasium.make("Pendulum-v1", render_mode=render_mode).unwrapped)
        parts = {"speed": gymnasium.spaces.Box(-8, 8, (1,)), "angle": gymnasium.spaces.Box(-1, 1, (2,))}
        self.observation_space = gymnasium.spaces.Dict(parts)

    def observation(self, observation):
        return apart(observation)


class Odd(gymnasium.Env):
    """Observes an image and a number; ``fault`` says what is wrong with what it returns."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gymnasium.spaces.Dict(
        {"image": gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8), "own": gymnasium.spaces.Box(-1, 1, (1,))}
    )
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def __init__(self, fault="", render_mode=None, sides=8):
        self.fault, self.render_mode = fault, render_mode
        if sides != 8:
            image = gymnasium.spaces.Box(0, 255, (sides, sides, 3), np.uint8)
            self.observation_space = gymnasium.spaces.Dict(self.observation_space.spaces | {"image": image})

    def seen(self):
        image = np.full(self.observation_space["image"].shape, self.now, np.uint8)
        observation = {"image": image, "own": np.array([0.5], np.float32)}
        if self.fault == "missing":
            del observation["own"]
        if self.fault == "shape":
            observation["own"] = np.zeros(2, np.float32)
        if self.fault == "not finite" and self.now == 3:
            observation["own"][:] = np.nan
        return observation

    def reset(self, *, seed=None, options=None):
        self.now = 0
        return self.seen(), {}

    def step(self, action):
        self.now += 1
        return self.seen(), 1.0, False, False, {}

    def render(self):
        return np.zeros((16, 16, 3), np.uint8)


gymnasium.register("HostParts-v1", Apart, max_episode_steps=200)
gymnasium.register("OddParts-v1", Odd, max_episode_steps=8)

LEARNERS = {
    "ppo": ("learner=ppo", "learner.num_steps=8", "learner.hidden=[8]", "environment.num_envs=2"),
    "td3": (
        *("learner=td3", "learner.num_steps=8", "learner.actor_layers=[8]", "learner.feature_layers=[8]"),
        *("learner.head_layers=[8]", "learner.batch_size=8", "learner.learning_starts=8", "learner.buffer_size=64"),
    ),
    "policy-gradient": ("learner=policy-gradient", "strategy.batch=2"),
}
SETTINGS = (
    *NO_BUDGET,
    *("strategy=fedavg", "federation.agents=2", "environment.horizon=20", "budget.rounds=2", "evaluation.episodes=2"),
    *("checkpoint.every=2", "evaluation.every=2"),
)


def trained(*overrides):
    return simulated(resolve({}, [*SETTINGS, *overrides]), 2)


@pytest.mark.training
@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize(
    ("whole", "parts"),
    [
        (["environment=Pendulum-v1"], ["environment=PartsPendulum-v1"]),
        (
            ["environment=Pendulum-v1", "environment.native=false", "environment.backend=gymnasium"],
            ["environment=HostParts-v1"],
        ),
    ],
    ids=["native", "gymnasium"],
)
def test_parts_are_learned_as_the_whole_is(learner, whole, parts):
    expected, rows = trained(*LEARNERS[learner], *whole)
    state, others = trained(*LEARNERS[learner], *parts)
    leaves, wanted = (jax.tree.leaves(each.agents.params) for each in (state, expected))
    same(leaves, wanted, 1e-5)
    assert max(float(np.abs(x[0, 0] - x[0, 1]).max()) for x in wanted) > 1e-5, "something was learned"
    np.testing.assert_allclose(others["return"], rows["return"], rtol=1e-4)


@pytest.mark.training
def test_a_federation_of_nodes_computes_what_the_simulation_does(tmp_path):
    settings = [*SETTINGS, *LEARNERS["td3"], "environment=HostParts-v1", "runtime.shared_seeds=true", "seeds=1"]
    expected, _ = simulated(resolve({}, settings), 2)
    federation, _, _ = distributed(resolve({}, settings), tmp_path)
    state, _ = rounds_of(federation, 2)
    same(state.server, expected.server)


@pytest.mark.training
def test_an_image_and_a_number_are_learned_from_evaluated_and_rendered(tmp_path):
    overrides = [*SETTINGS, *LEARNERS["td3"], "environment=OddParts-v1", "environment.backend=gymnasium"]
    run = fedrax.train(None, [*overrides, "learner.torso=cnn"], out=tmp_path / "run", progress=False)
    np.testing.assert_array_equal(run.evaluate(episodes=2)[0].returns, 8.0)
    (video,) = render(tmp_path / "run", formats=["gif"], out=tmp_path / "video")
    assert video.stat().st_size > 0


PIXELS = Box((2, 2, 3), (0,) * 12, (255,) * 12, "uint8")
MIXED = Spaces(Dict.of({"image": PIXELS, "words": Tokens(3, 9), "own": SPEED}), Box((2,), (-1.0,) * 2, (1.0,) * 2))


@settings(max_examples=20)
@given(st.integers(0, 2**31 - 1))
def test_a_replay_gives_back_what_it_was_transitionsin_its_types(seed):
    generator = np.random.default_rng(seed)

    def drawn(part):
        if part.seen == np.float32:
            return generator.normal(size=(5, *part.shape)).astype(np.float32)
        return generator.integers(0, 9, (5, *part.shape)).astype(part.seen)

    before, after = (jax.tree.map(drawn, MIXED.observation.tree) for _ in range(2))
    number = np.arange(5, dtype=np.float32)
    action = np.stack([number, -number], 1)
    transitions = Transitions(before, action, number, after, number % 2)
    replay = empty_replay(MIXED, 8).add(jax.tree.map(jnp.asarray, transitions), jnp.ones(5, bool))
    sample = replay.sample(jax.random.key(seed), (3, 4))
    index = np.asarray(sample.reward).astype(int)
    for part, put in zip(sample, transitions, strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y[index]), part, put)
    assert jax.tree.map(lambda x: x.dtype, sample.observation) == jax.tree.map(
        lambda part: part.seen, MIXED.observation.tree
    )
    held = sum(x.nbytes for x in jax.tree.leaves((replay.rows, replay.images)))
    assert held == replay_bytes(MIXED, 8)


def test_every_part_counts_and_the_padding_of_words_does_not():
    encoder, size = make_encoder(jax.random.key(0), "mlp", MIXED.observation, "uniform")
    zeros = jax.tree.map(jnp.asarray, zero_observations(MIXED.observation, (4,)))
    np.testing.assert_array_equal(encoder(zeros), np.zeros((4, size)))
    for name, x in zeros.items():
        assert float(jnp.abs(encoder(zeros | {name: x + 1})).max()) > 0
    first = zeros | {"words": jnp.asarray([[1, 2, 0]] * 4)}
    assert not np.allclose(encoder(first), encoder(zeros | {"words": jnp.asarray([[2, 1, 0]] * 4)}))


def test_parts_are_described(capsys):
    spaces = describe_environment("HostParts-v1").spaces
    assert shapes(spaces.observation) == {"angle": (2,), "speed": (1,)}
    assert "angle: 2 numbers, -1 to 1; speed: 1 number, -8 to 8" in describe("PartsPendulum-v1")


def test_a_number_that_is_not_finite_in_any_part_is_found():
    sound = np.zeros((2, 3), np.float32)
    no = np.zeros((2, 3), bool)
    observation = jax.tree.map(lambda x: np.zeros((3, 3, *x.shape), x.seen), MIXED.observation.tree)
    steps = Steps(observation, (), sound, sound, ~no, no, no, sound)
    assert int(first_fault(steps).kind) == 0
    broken = observation["own"].copy()
    broken[2, 1] = np.inf
    fault = first_fault(dataclasses.replace(steps, observation=observation | {"own": broken}))
    assert (int(fault.kind), int(fault.step), int(fault.copy)) == (1, 2, 1)


@pytest.mark.training
def test_a_round_with_such_a_number_is_dropped_and_the_next_goes_on():
    overrides = [*LEARNERS["td3"], "environment=OddParts-v1", "environment.kwargs.fault='not finite'"]
    _, rows = trained(*overrides, "environment.horizon=2")
    assert rows["dropped"].sum() == 0, "two steps do not reach it"
    _, rows = trained(*overrides, "environment.horizon=8")
    assert (rows["dropped"][..., 0] == 1).any()
    assert (rows["dropped"][..., 2][rows["dropped"][..., 0] == 1] == 3).all()


@pytest.mark.training
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["environment.kwargs.fault=missing"], r"observation of \['image'\], and its observation space has \['image'"),
        (["environment.kwargs.fault=shape"], r"observation 'own' of shape \(2,\), and its observation space has \(1,"),
        (["environment.heterogeneity.observation_noise_std=[0.1, 0.2]"], "real numbers in one array"),
        (["environment.heterogeneity.sides=[8, 16]"], "makes environments of different forms"),
        (["learner.torso=cnn", "environment=HostParts-v1"], "'cnn' needs images"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(overrides, words):
    with pytest.raises(FedraxError, match=words) as error:
        trained(*LEARNERS["td3"], "environment=OddParts-v1", *overrides)
    assert "\n" not in str(error.value)


def test_noise_on_parts_is_refused_in_jax_too():
    with pytest.raises(FedraxError, match="real numbers in one array"):
        make_runtime(
            resolve({}, [*TINY, "environment=PartsPendulum-v1", "environment.heterogeneity.observation_noise_std=0.1"])
        )


def test_a_dict_of_other_than_boxes_is_refused():
    mixed = gymnasium.spaces.Dict({"own": gymnasium.spaces.Box(-1, 1, (1,)), "kind": gymnasium.spaces.Discrete(3)})
    gymnasium.register("DiscretePart-v0", type("Discretes", (Odd,), {"observation_space": mixed}), max_episode_steps=9)
    with pytest.raises(FedraxError, match="only a Box or a Dict of Boxes"):
        describe_environment("DiscretePart-v0")
