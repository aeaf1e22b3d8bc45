"""Where rewards alone say nothing, hindsight finds the way: bit flipping (Andrychowicz et al., 2017), a fine reach."""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import pytest

import fedrax
from fedrax.environments.base import Box, Dict, Discrete, NativeEnvironment, Spaces, Transition
from fedrax.environments.goals import ACHIEVED, DESIRED, OBSERVATION, Goal
from fedrax.environments.native import native_environments
from fedrax.environments.native.point import PointReach, spaces_of
from fedrax.environments.success import SUCCESS

BITS = 10
GOAL = Goal("sparse", 0.5)
"""Bits that are not all right are at least 1 away."""


class Bits(NamedTuple):
    now: jax.Array
    goal: jax.Array


def word():
    return Box((BITS,), (0.0,) * BITS, (1.0,) * BITS)


class BitFlip(NativeEnvironment):
    """The largest of the action's numbers says which bit is flipped; as many steps as bits."""

    spaces: ClassVar[Spaces] = Spaces(
        Dict.of({OBSERVATION: word(), ACHIEVED: word(), DESIRED: word()}),
        Box((BITS,), (-1.0,) * BITS, (1.0,) * BITS),
        GOAL,
    )
    time_limit: ClassVar[int] = BITS

    def physics(self):
        return {}

    def reset(self, key, physics):
        now, goal = jax.random.bernoulli(key, shape=(2, BITS)).astype(jnp.float32)
        return Bits(now, goal), self._observe(Bits(now, goal))

    def step(self, state, action, key, physics):
        which = jnp.argmax(action)
        after = Bits(state.now.at[which].set(1 - state.now[which]), state.goal)
        reward, success = GOAL.reward(*after), GOAL.success(*after)
        return Transition(after, self._observe(after), reward, jnp.zeros((), bool), success)

    def _observe(self, state):
        return {OBSERVATION: state.now, ACHIEVED: state.now, DESIRED: state.goal}


class Numbered(BitFlip):
    """The action is the number of the bit."""

    spaces: ClassVar[Spaces] = Spaces(BitFlip.spaces.observation, Discrete(BITS), GOAL)

    def step(self, state, action, key, physics):
        return super().step(state, jax.nn.one_hot(action, BITS), key, physics)


class FineReach(PointReach):
    """The goal is so small that a random walk does not meet it."""

    spaces: ClassVar[Spaces] = spaces_of(2, Goal("sparse", 0.02))


native_environments.register("TestBitFlip-v0")(BitFlip)
native_environments.register("TestBitFlipNumbered-v0")(Numbered)
native_environments.register("TestFineReach-v0")(FineReach)

RUN = [
    *("environment.num_envs=16", "federation.agents=1", "strategy=local"),
    *("learner.num_steps=10", "learner.updates_per_step=2", "learner.learning_starts=500"),
    *("learner.discount=0.95", "learner.tau=0.05", "learner.learning_rate=0.001"),
    *("learner.batch_size=64", "learner.buffer_size=50000"),
    *("learner.actor_layers=[64, 64]", "learner.feature_layers=[64]", "learner.head_layers=[64]"),
    *("budget.steps_per_agent=48000", "evaluation.every=100", "evaluation.episodes=100", "checkpoint.every=100"),
]


LEARNERS = {
    "td3": [
        *("environment=TestBitFlip-v0", "learner.clip_values=true", "learner.exploration_noise=0.2"),
        *("learner.action_penalty=0.1", "learner.random_actions=0.3"),
    ],
    "sac-discrete": ["environment=TestBitFlipNumbered-v0", "learner.random_actions=0.3"],
    # Not on bits: the largest of ten numbers is what its entropy blurs.
    "sac": ["environment=TestFineReach-v0", "budget.steps_per_agent=32000"],
}


@pytest.mark.training
@pytest.mark.parametrize(
    ("learner", "hindsight", "low", "high"),
    [
        ("td3", "future", 0.9, 1.0),
        ("td3", "none", 0.0, 0.1),
        ("sac-discrete", "future", 0.9, 1.0),
        pytest.param("sac", "future", 0.9, 1.0, marks=pytest.mark.slow),
        pytest.param("sac", "none", 0.0, 0.1, marks=pytest.mark.slow),
    ],
)
def test_hindsight_learns_what_rewards_alone_do_not_tell(learner, hindsight, low, high, tmp_path):
    settings = [*RUN, f"learner={learner}", *LEARNERS[learner], f"learner.hindsight={hindsight}"]
    run = fedrax.train({}, settings, out=tmp_path / "run", progress=False)
    assert low <= run.evaluate(episodes=200, evaluation_seed=7)[0].table[SUCCESS].mean() <= high
