"""TD3: its formulas against plain ones, its schedule, and what it learns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.environments.base import Box, Discrete, Spaces, Steps
from fedrax.errors import FedraxError
from fedrax.learners.base import Objective, UpdateContext, learners
from fedrax.learners.off_policy import Training
from fedrax.learners.replay import Transitions
from fedrax.trees import ravel_rows

SPACES = Spaces(Box((3,), (-1.0,) * 3, (1.0,) * 3), Box((2,), (-2.0, 0.0), (2.0, 1.0)))
SMALL = {
    "actor_layers": (16,),
    "feature_layers": (16,),
    "head_layers": (8,),
    "num_steps": 2,
    "batch_size": 8,
    "learning_starts": 4,
    "scale_actions": False,
}


def make(spaces=SPACES, **changes):
    learner = learners.build("td3", {**SMALL, **changes})
    learner.check(spaces)
    return learner, learner.init(jax.random.key(1), spaces)


def batch_of(count=8, seed=0):
    keys = jax.random.split(jax.random.key(seed), 5)
    return Transitions(
        jax.random.normal(keys[0], (count, 3)),
        jax.random.uniform(keys[1], (count, 2)),
        jax.random.normal(keys[2], (count,)),
        jax.random.normal(keys[3], (count, 3)),
        jax.random.bernoulli(keys[4], 0.3, (count,)).astype(jnp.float32),
    )


def training_of(learner, agent):
    return Training(agent.params, agent.optimizer, agent.memory.target, ())


def steps_of(rewards, seed=0, spaces=SPACES):
    """One copy's steps with these rewards, observations and actions noise."""
    count = len(rewards)
    keys = jax.random.split(jax.random.key(seed), 2)
    observation = jax.random.normal(keys[0], (count + 1, 1, *spaces.observation.shape))
    action = jax.random.uniform(keys[1], (count, 1, *spaces.action.shape))
    no = jnp.zeros((count, 1), bool)
    reward = jnp.asarray(rewards, jnp.float32)[:, None]
    return Steps(observation, (), action, reward, ~no, no, no, 0 * reward)


def update_context(seed=3):
    return UpdateContext(jax.random.key(seed), jnp.asarray(0.0))


def vector(tree):
    return ravel_rows(jax.tree.map(lambda x: x[None], tree))[0]


def mlp(layers, x):
    """A plain network of numpy: relu between, nothing after the last."""
    for index, layer in enumerate(layers):
        weight = np.asarray(layer.weight).T if layer.by_output else np.asarray(layer.weight)
        x = x @ weight + np.asarray(layer.bias)
        if index < len(layers) - 1:
            x = np.maximum(x, 0)
    return x


def plain_value(params, which, observation, action):
    x = np.concatenate([observation, action], -1)
    return mlp((*params.features[which].layers, *params.head[which].layers), x)[:, 0]


def plain_action(params, observation):
    return np.array([0.0, 0.5]) + np.array([2.0, 0.5]) * np.tanh(mlp(params.actor.layers, observation))


@pytest.mark.parametrize("scaled", [True, False])
def test_targets_are_the_papers(scaled):
    learner, agent = make(scale_target_noise=scaled, target_noise=0.6, target_noise_clip=0.5, discount=0.9)
    batch, noise = batch_of(64), jax.random.normal(jax.random.key(5), (64, 2))
    reach = np.array([2.0, 0.5]) if scaled else 1.0
    target = agent.memory.target
    following = np.asarray(batch.next_observation)
    action = plain_action(target, following) + reach * np.clip(0.6 * np.asarray(noise), -0.5, 0.5)
    action = np.clip(action, [-2, 0], [2, 1])
    least = np.minimum(*(plain_value(target, which, following, action) for which in (0, 1)))
    expected = np.asarray(batch.reward) + 0.9 * (1 - np.asarray(batch.terminated)) * least
    np.testing.assert_allclose(
        learner.targets(training_of(learner, agent), batch, noise), expected, rtol=1e-5, atol=1e-5
    )


def test_critics_see_actions_as_shares_of_their_range():
    _, plain = make()
    _, scaled = make(scale_actions=True)
    batch = batch_of()
    shares = (batch.action - jnp.array([0.0, 0.5])) / jnp.array([2.0, 0.5])
    for one, other in zip(
        scaled.params.values(batch.observation, batch.action),
        plain.params.values(batch.observation, shares),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.training
def test_a_critic_step_descends_the_error_of_both_critics():
    learner, agent = make(optimizer="sgd", learning_rate=0.1)
    batch, noise = batch_of(), jnp.zeros((8, 2))
    wanted = learner.targets(training_of(learner, agent), batch, noise)
    after, report = learner.critic_step(training_of(learner, agent), batch, wanted, Objective())

    def error(which):
        def loss(parts):
            features, head = parts
            x = jnp.concatenate([batch.observation, batch.action], 1)
            return jnp.mean((head(features(x))[:, 0] - wanted) ** 2)

        return loss

    total = 0.0
    for which in (0, 1):
        before = (agent.params.features[which], agent.params.head[which])
        value, gradient = jax.value_and_grad(error(which))(before)
        total += value
        moved = (after.params.features[which], after.params.head[which])
        np.testing.assert_allclose(vector(before) - vector(moved), 0.1 * vector(gradient), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(report["critic_loss"], total, rtol=1e-5)
    np.testing.assert_array_equal(vector(after.params.actor), vector(agent.params.actor))


def test_an_actor_step_climbs_the_first_critic_and_all_targets_follow():
    learner, agent = make(optimizer="sgd", learning_rate=0.1, tau=0.25)
    agent = dataclasses.replace(
        agent, memory=dataclasses.replace(agent.memory, target=jax.tree.map(lambda x: x + 1.0, agent.params))
    )
    batch = batch_of()

    def value(actor):
        params = dataclasses.replace(agent.params, actor=actor)
        return params.values(batch.observation, params.act(batch.observation))[0].mean()

    before = training_of(learner, agent)
    after, report = learner.actor_step(before, batch, (), Objective(), before.params)
    gradient = jax.grad(value)(agent.params.actor)
    np.testing.assert_allclose(
        vector(after.params.actor) - vector(agent.params.actor), 0.1 * vector(gradient), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(report["actor_loss"], -value(agent.params.actor), rtol=1e-5)
    for part in ("features", "head"):
        np.testing.assert_array_equal(vector(getattr(after.params, part)), vector(getattr(agent.params, part)))
    expected = 0.75 * vector(agent.memory.target) + 0.25 * vector(after.params)
    np.testing.assert_allclose(vector(after.target), expected, rtol=1e-5, atol=1e-6)


def test_actions_keep_to_their_bounds_and_explore_in_units_of_their_range():
    learner, agent = make(exploration_noise=0.1)
    observation = jnp.zeros((4000, 3))
    greedy = learner.act(agent.params, observation, None)
    noise = learner.act(agent.params, observation, jax.random.key(0)) - greedy
    np.testing.assert_allclose(noise.std(0), [0.2, 0.05], rtol=0.05)
    wild, _ = make(exploration_noise=10.0)
    action = wild.act(agent.params, observation, jax.random.key(0))
    assert action.min(0).tolist() == [-2.0, 0.0]
    assert action.max(0).tolist() == [2.0, 1.0]
    acting = learner.acting(agent.params)
    np.testing.assert_allclose(learner.act(acting, observation, None), greedy, rtol=1e-6)


@pytest.mark.training
def test_nothing_is_learned_before_the_replay_is_filled():
    learner, agent = make(num_steps=2, learning_starts=4)
    first, report = learner.learn(agent, steps_of([1.0, 2.0]), Objective(), update_context())
    assert int(first.memory.replay.size) == 2
    np.testing.assert_array_equal(vector(first.params), vector(agent.params))
    assert np.isnan(report["critic_loss"])
    second, report = learner.learn(first, steps_of([1.0, 2.0]), Objective(), update_context())
    assert not np.array_equal(vector(second.params), vector(agent.params))
    assert np.isfinite(report["critic_loss"])


@pytest.mark.training
@pytest.mark.parametrize(
    ("num_steps", "per_step", "delay"), [(2, 1, 2), (1, 4, 2), (4, 1, 1), (4, 1.5, 2), (4, 0.25, 1)]
)
def test_an_update_makes_so_many_steps(num_steps, per_step, delay):
    learner, agent = make(num_steps=num_steps, updates_per_step=per_step, policy_delay=delay, learning_starts=1)
    after, _ = learner.learn(agent, steps_of([0.0] * num_steps), Objective(), update_context())
    counts = {which: int(after.optimizer[which][0].count) for which in ("critic", "actor")}
    assert counts == {"critic": num_steps * per_step, "actor": num_steps * per_step // delay}
    assert learner.gradient_steps == sum(counts.values())


@pytest.mark.training
def test_low_rewards_are_raised_where_they_are_stored():
    learner, agent = make(minimum_reward=-1.0, num_steps=3, policy_delay=1)
    after, _ = learner.learn(agent, steps_of([-100.0, -0.5, 2.0]), Objective(), update_context())
    assert after.memory.replay.sample(jax.random.key(0), (50,)).reward.min() == -1.0
    assert after.memory.replay.rows[:3, 5].tolist() == [-1.0, -0.5, 2.0]


@pytest.mark.training
def test_it_learns_the_best_action_of_a_bandit():
    """Every episode is one step, and the reward is highest at action (1, 0.25), measured in half ranges."""
    wide = {"actor_layers": (32,), "feature_layers": (32,), "head_layers": (32,)}
    learner, agent = make(**wide, num_steps=2, learning_rate=1e-3, batch_size=64, exploration_noise=0.5)

    @jax.jit
    def update(agent, key):
        act_key, learn_key, state_key = jax.random.split(key, 3)
        observation = jax.random.normal(state_key, (3, 1, 3))
        action = learner.act(agent.params, observation[:2, 0], act_key)[:, None]
        reward = -(((action - jnp.array([1.0, 0.25])) / jnp.array([2.0, 0.5])) ** 2).sum(-1)
        yes = jnp.ones((2, 1), bool)
        steps = Steps(observation, (), action, reward, yes, yes, ~yes, reward)
        return learner.learn(agent, steps, Objective(), UpdateContext(learn_key, jnp.asarray(0.0)))[0], None

    agent, _ = jax.lax.scan(update, agent, jax.random.split(jax.random.key(7), 1500))
    chosen = learner.act(agent.params, jax.random.normal(jax.random.key(8), (20, 3)), None)
    assert np.abs((chosen - np.array([1.0, 0.25])) / np.array([2.0, 0.5])).max() < 0.15


@pytest.mark.parametrize(
    ("changes", "spaces", "message"),
    [
        ({}, Spaces(SPACES.observation, Discrete(2)), "real actions"),
        ({}, Spaces(SPACES.observation, Box((1,), (-np.inf,), (1.0,))), "unbounded"),
        ({"feature_layers": ()}, SPACES, "feature_layers = [] is not allowed"),
        ({"num_steps": 3, "updates_per_step": 0.5}, SPACES, "makes 1.5 critic updates of learner.num_steps = 3"),
        ({"num_steps": 3, "updates_per_step": 0}, SPACES, "makes 0 critic updates"),
        ({"num_steps": 3}, SPACES, "policy_delay = 2 does not divide the 3 critic updates"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(changes, spaces, message):
    learner = learners.build("td3", {**SMALL, **changes})
    with pytest.raises(FedraxError, match=None) as error:
        learner.check(spaces)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_replay_smaller_than_one_update_is_refused():
    learner = learners.build("td3", {**SMALL, "buffer_size": 10})
    learner.bind(SPACES, 5, 200)
    with pytest.raises(FedraxError, match="buffer_size = 10 is less than the 12 transitions"):
        learner.bind(SPACES, 6, 200)
