"""Environments with one difficulty each, whose values and best actions are known, and a loop that learns them all.

After Andy Jones, "Debugging RL, without the agonizing pain" (2021): a learner that fails one is broken in the part
that this one needs. All are one environment whose parameter ``probe`` says which it is, so that one compiled program
learns all of them side by side.
"""

import functools
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from fedrax.environments.base import Box, Discrete, NativeEnvironment, Spaces, Transition
from fedrax.environments.native_collector import collect_episodes
from fedrax.environments.native_steps import collect_steps, start_steps
from fedrax.learners.base import Objective, UpdateContext, learners

PROBES = {
    "constant": 1,  # reward 1
    "observation": 1,  # the reward is what is observed, -1 or 1
    "delayed": 2,  # reward 0, then 1
    "action": 1,  # a good action is rewarded
    "matching": 1,  # the good action has the sign of what is observed
    "late": 5,  # rewards 0, and at last the first action's
    "limit": 10**6,  # good actions are rewarded, and only the time limit ends the episode
}
"""Lengths in steps, by name."""
HORIZON = 8
DISCOUNT = 0.8


class ProbeState(NamedTuple):
    step: jax.Array
    signal: jax.Array
    first: jax.Array
    """The goodness of the first action."""


class Probe(NativeEnvironment):
    """Observed are step, signal and the first action's goodness, so that all is Markov. Action 1 is the good one."""

    spaces: ClassVar[Spaces] = Spaces(Box((3,), (-1.0, -1.0, -1.0), (2.0, 1.0, 1.0)), Discrete(2))
    time_limit: ClassVar[int] = HORIZON

    def physics(self):
        return {"probe": 0.0}

    def reset(self, key, physics):
        signal = jnp.where(jax.random.bernoulli(key), 1.0, -1.0)
        state = ProbeState(jnp.asarray(0), signal, jnp.asarray(0.0))
        return state, observe(state)

    def goodness(self, action):
        return action.astype(jnp.float32)

    def opposite(self, goodness):
        return 1.0 - goodness

    def step(self, state, action, key, physics):
        good = self.goodness(action)
        first = jnp.where(state.step == 0, good, state.first)
        count = state.step + 1
        index = jnp.asarray(physics["probe"], jnp.int32)
        last = count >= jnp.asarray(list(PROBES.values()))[index]
        matching = jnp.where(state.signal > 0, good, self.opposite(good))
        rewards = jnp.stack([1.0, state.signal, 1.0 * last, good, matching, first * last, good])
        after = ProbeState(count, state.signal, first)
        return Transition(after, observe(after), rewards[index], last)


class ContinuousProbe(Probe):
    """An action's goodness is its value, between -1 and 1."""

    spaces: ClassVar[Spaces] = Spaces(Probe.spaces.observation, Box((1,), (-1.0,), (1.0,)))

    def goodness(self, action):
        return jnp.clip(action[..., 0], -1.0, 1.0)

    def opposite(self, goodness):
        return -goodness


def observe(state):
    return jnp.stack([state.step / HORIZON, state.signal, state.first])


def observed(step=0, signal=1.0, first=0.0):
    """What is observed at a step, as a batch of one."""
    return jnp.asarray([[step / HORIZON, signal, first]], jnp.float32)


@functools.cache
def learnt(kind, options, *, continuous, updates, num_envs):
    """The learner, and by probe the agent after so many updates; ``options`` are pairs, which can be cached."""
    environment = ContinuousProbe() if continuous else Probe()
    learner = learners.build(kind, {"discount": DISCOUNT, **dict(options)})
    learner.check(environment.spaces)
    keys = jax.random.split(jax.random.key(0), len(PROBES))
    train = _train_steps if learner.steps else _train_episodes
    agents = jax.jit(jax.vmap(functools.partial(train, learner, environment, updates, num_envs), axis_name="probe"))(
        jnp.arange(len(PROBES), dtype=jnp.float32), keys
    )
    return learner, {name: jax.tree.map(lambda x, i=i: x[i], agents) for i, name in enumerate(PROBES)}


def _train_episodes(learner, environment, updates, num_envs, probe, key):
    def update(agent, key):
        collect, learn = jax.random.split(key)
        episodes = collect_episodes(
            environment,
            {"probe": probe},
            lambda observation, key: learner.act(agent.params, observation, key),
            collect,
            count=num_envs,
            max_count=num_envs,
            horizon=HORIZON,
            axis_names=("probe",),
        )
        return learner.learn(agent, episodes, Objective(), UpdateContext(learn, jnp.asarray(0.0)))[0], None

    start, run = jax.random.split(key)
    return jax.lax.scan(update, learner.init(start, environment.spaces), jax.random.split(run, updates))[0]


def _train_steps(learner, environment, updates, num_envs, probe, key):
    physics = {"probe": probe}

    def update(carry, keys):
        agent, collector_state = carry
        experience, collector_state = collect_steps(
            environment,
            physics,
            lambda observation, key: learner.decide(agent.params, observation, key),
            keys[0],
            collector_state,
            steps=learner.steps,
            horizon=HORIZON,
        )
        agent = learner.learn(agent, experience, Objective(), UpdateContext(keys[1], jnp.asarray(0.0)))[0]
        return (agent, collector_state), None

    start, reset, run = jax.random.split(key, 3)
    collector_state = start_steps(environment, physics, reset, num_envs=num_envs, per_copy=False)
    carry = (learner.init(start, environment.spaces), collector_state)
    return jax.lax.scan(update, carry, jax.random.split(run, (updates, 2)))[0][0]
