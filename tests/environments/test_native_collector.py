"""Native collection on a probe environment whose every number is known."""

import re
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.environments.base import Box, NativeEnvironment, Spaces, Transition
from fedrax.environments.native import native_environments
from fedrax.environments.native_collector import collect_episodes, episode_returns

HORIZON = 8


class Probe(NativeEnvironment):
    """Episodes of 1 to ``longest`` steps with reward 1; observed are step, length and sqrt(length - step).

    Stepped on after its end, it would observe NaN.
    """

    spaces: ClassVar[Spaces] = Spaces(Box((3,), (0.0,) * 3, (9.0,) * 3), Box((2,), (-1.0,) * 2, (1.0,) * 2))
    time_limit: ClassVar[int] = 100

    def physics(self):
        return {"longest": 6.0}

    def reset(self, key, physics):
        state = jnp.zeros(()), jnp.ceil(jax.random.uniform(key, minval=0.01) * physics["longest"])
        return state, self.observe(state)

    def step(self, state, action, key, physics):
        state = state[0] + 1, state[1]
        return Transition(state, self.observe(state), jnp.ones(()), state[0] >= state[1])

    @staticmethod
    def observe(state):
        step, length = state
        return jnp.stack([step, length, jnp.sqrt(length - step)])


def act(observation, key):
    return jnp.stack([observation[:, 0] * 10, jax.random.uniform(key, observation.shape[:1])], -1)


def collect(key, count=5, max_count=5, horizon=HORIZON, axis_names=(), longest=6.0):
    return collect_episodes(
        Probe(),
        {"longest": longest},
        act,
        key,
        count=count,
        max_count=max_count,
        horizon=horizon,
        axis_names=axis_names,
    )


COLLECT = jax.jit(collect, static_argnames=("max_count", "horizon", "axis_names"))


def lengths_of(episodes):
    """The lengths that the environment announced in its first observation."""
    return np.asarray(episodes.observation[0, :, 1]).astype(int)


def test_whole_episodes_are_collected():
    episodes = COLLECT(jax.random.key(0))
    lengths = lengths_of(episodes)
    assert len(set(lengths.tolist())) > 1
    time = np.arange(HORIZON)[:, None]
    np.testing.assert_array_equal(episodes.valid, time < lengths)
    np.testing.assert_array_equal(episodes.returns, lengths)
    np.testing.assert_array_equal(episodes.reward.sum(0), lengths)
    assert np.asarray(episodes.terminated).all()
    assert int(episodes.count) == 5
    assert int(episodes.steps) == lengths.sum()
    valid = np.asarray(episodes.valid)
    np.testing.assert_array_equal(episodes.observation[..., 0][valid], (time * np.ones(5))[valid])
    np.testing.assert_array_equal(episodes.action[..., 0][valid], 10 * (time * np.ones(5))[valid])


def test_episodes_are_truncated_at_the_horizon():
    episodes = COLLECT(jax.random.key(1), horizon=3, count=20, max_count=20)
    lengths = lengths_of(episodes)
    assert lengths.max() > 3
    np.testing.assert_array_equal(episodes.returns, np.minimum(lengths, 3))
    np.testing.assert_array_equal(episodes.terminated, lengths <= 3)


def test_every_action_has_its_own_randomness():
    episodes = COLLECT(jax.random.key(0))
    noise = np.asarray(episodes.action[..., 1])[np.asarray(episodes.valid)]
    assert len(np.unique(noise)) == len(noise)


def test_a_traced_count_leaves_the_rest_as_padding():
    episodes = COLLECT(jax.random.key(0), count=2)
    whole = COLLECT(jax.random.key(0))
    assert int(episodes.count) == 2
    np.testing.assert_array_equal(episodes.valid[:, 2:], False)
    np.testing.assert_array_equal(episodes.returns, np.where(np.arange(5) < 2, whole.returns, 0))
    np.testing.assert_array_equal(episodes.terminated, [True, True, False, False, False])
    assert int(COLLECT(jax.random.key(0), count=0).steps) == 0


def test_padding_is_finite_and_the_loop_ends_with_the_longest_episode():
    episodes = COLLECT(jax.random.key(0))
    assert np.isfinite(episodes.observation).all()
    longest = lengths_of(episodes).max()
    assert longest < HORIZON
    np.testing.assert_array_equal(episodes.observation[longest:], 0)
    assert (episodes.observation[longest - 1, :, 1] > 0).all()


def nested(keys, longest, axis_names):
    agents = jax.vmap(lambda key, longest: collect(key, longest=longest, axis_names=axis_names), axis_name="agents")
    return jax.vmap(agents, in_axes=(0, None), axis_name="seeds")(keys, longest)


def nested_inputs():
    return jax.random.split(jax.random.key(3), (2, 3)), jnp.asarray([1.0, 4.0, 8.0])


@pytest.mark.training
def test_mapped_copies_collect_what_each_would_alone():
    keys, longest = nested_inputs()
    mapped = jax.jit(partial(nested, axis_names=("seeds", "agents")))(keys, longest)
    for seed in range(2):
        for agent in range(3):
            alone = COLLECT(keys[seed, agent], longest=longest[agent])
            one = jax.tree.map(lambda x, at=(seed, agent): x[at], mapped)
            np.testing.assert_array_equal(one.valid, alone.valid)
            np.testing.assert_array_equal(one.terminated, alone.terminated)
            np.testing.assert_array_equal(one.reward, alone.reward)
            valid = np.asarray(alone.valid)
            np.testing.assert_array_equal(one.observation[valid], alone.observation[valid])
            np.testing.assert_array_equal(one.action[valid], alone.action[valid])


def test_buffers_are_never_selected_between():
    keys, longest = nested_inputs()

    def selects(axis_names):
        program = jax.jit(partial(nested, axis_names=axis_names)).lower(keys, longest).as_text()
        return len(re.findall(rf"stablehlo\.select .*tensor<(\d+x)*{HORIZON}x5x", program))

    assert selects(("seeds", "agents")) == 0
    assert selects(()) == 3  # What naming the axes avoids; this also shows that the pattern finds them.


def test_it_runs_inside_scan_and_while():
    keys = jax.random.split(jax.random.key(5), 3)
    expected = np.stack([COLLECT(key).returns for key in keys])
    _, scanned = jax.jit(lambda ks: jax.lax.scan(lambda c, k: (c, collect(k).returns), 0, ks))(keys)
    np.testing.assert_array_equal(scanned, expected)

    def body(carry):
        index, total = carry
        mapped = jax.vmap(lambda key: collect(key, axis_names=("agents",)).returns, axis_name="agents")
        return index + 1, total + mapped(keys).sum()

    _, total = jax.jit(lambda: jax.lax.while_loop(lambda c: c[0] < 2, body, (0, 0.0)))()
    assert float(total) == 2 * expected.sum()


@pytest.mark.parametrize("horizon", [1, 3, 4, 8])
def test_episode_returns_are_those_of_the_same_episodes(horizon):
    arguments = (Probe(), {"longest": 6.0}, act, jax.random.key(0))
    measured = jax.jit(lambda: episode_returns(*arguments, episodes=5, horizon=horizon))()
    returns, lengths = measured["return"], measured["length"]
    episodes = COLLECT(jax.random.key(0), horizon=horizon)
    np.testing.assert_array_equal(returns, episodes.returns)
    np.testing.assert_array_equal(lengths, episodes.valid.sum(0))


def test_episode_returns_under_a_map():
    keys = jax.random.split(jax.random.key(0), 3)

    def one(key):
        return episode_returns(Probe(), {"longest": 6.0}, act, key, episodes=5, horizon=8, axis_names=("seeds",))

    measured = jax.jit(jax.vmap(one, axis_name="seeds"))(keys)
    returns, lengths = measured["return"], measured["length"]
    np.testing.assert_array_equal(returns, lengths)
    np.testing.assert_array_equal(returns, np.stack([COLLECT(key).returns for key in keys]))


@pytest.mark.parametrize("balanced", [True, False])
def test_cartpole_is_truncated_at_its_limit_or_falls(balanced):
    environment = native_environments["CartPole-v1"]()

    def balance(observation, key):
        lean = observation @ jnp.asarray([0.02, 0.05, 1.0, 0.5])
        return ((lean > 0) == balanced).astype(jnp.int32)

    episodes = jax.jit(
        lambda key: collect_episodes(
            environment, environment.physics(), balance, key, count=4, max_count=4, horizon=500
        )
    )(jax.random.key(0))
    assert np.asarray(episodes.terminated).all() == (not balanced)
    assert episodes.action.dtype == jnp.int32
    if balanced:
        np.testing.assert_array_equal(episodes.returns, 500)
    else:
        assert episodes.returns.max() < 20
