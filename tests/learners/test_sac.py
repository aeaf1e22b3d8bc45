"""SAC and its discrete version: their formulas against plain ones in double precision, and what their options do."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import learnt, observed
from test_td3 import SPACES, batch_of, plain_value, training_of, update_context, vector
from test_td3 import steps_of as real_steps

from fedrax.environments.base import Box, Discrete, Spaces
from fedrax.errors import FedraxError
from fedrax.learners.base import Objective, learners

SMALL = {
    "actor_layers": (16,),
    "feature_layers": (16,),
    "head_layers": (8,),
    "num_steps": 2,
    "batch_size": 8,
    "learning_starts": 4,
    "temperature": 0.3,
}
DISCRETE = Spaces(SPACES.observation, Discrete(4))
CENTRE, REACH = np.array([0.0, 0.5]), np.array([2.0, 0.5])


def make(name="sac", spaces=SPACES, **changes):
    learner = learners.build(name, {**SMALL, **changes})
    learner.check(spaces)
    return learner, learner.init(jax.random.key(1), spaces)


def batch_with_numbers(count=8):
    """Discrete actions by their number."""
    action = jax.random.randint(jax.random.key(7), (count, 1), 0, 4).astype(jnp.float32)
    return batch_of(count)._replace(action=action)


def plain_draw(params, observation, noise):
    """Actions in units, and log-densities of their shares, in double precision."""
    output = np.asarray(params.actor(jnp.asarray(observation)), np.float64)
    mean, log_deviation = np.split(output, 2, -1)
    deviation = np.exp(np.clip(log_deviation, -20, 2))
    share = np.tanh(mean + deviation * noise)
    normal = -0.5 * noise**2 - np.log(deviation) - 0.5 * np.log(2 * np.pi)
    return CENTRE + REACH * share, (normal - np.log(1 - share**2)).sum(-1)


def plain_least(params, observation, action):
    shares = (action - CENTRE) / REACH
    return np.minimum(*(plain_value(params, which, observation, shares) for which in (0, 1)))


def noise_of(learner, batch, seed=5):
    return learner.noise(jax.random.key(seed), batch)


def test_the_density_of_an_action_integrates_to_one():
    _, agent = make(spaces=Spaces(SPACES.observation, Box((1,), (-3.0,), (5.0,))))
    observation = batch_of(1).observation
    before = np.linspace(-12, 12, 20001)
    policy = agent.params.policy(observation)
    noise = (before[:, None] - np.asarray(policy.mean)) / np.asarray(policy.deviation)
    action, log_prob = agent.params.drawn(jnp.broadcast_to(observation, (20001, 3)), jnp.asarray(noise, jnp.float32))
    shares = (np.asarray(action, np.float64)[:, 0] - 1.0) / 4.0
    assert np.trapezoid(np.exp(np.asarray(log_prob, np.float64)), shares) == pytest.approx(1.0, abs=1e-3)


def test_densities_are_finite_where_tanh_is_one():
    _, agent = make()
    far = jnp.full((1, 2), 40.0)
    value, slope = jax.value_and_grad(lambda x: agent.params.drawn(batch_of(1).observation, x)[1].sum())(far)
    assert np.isfinite(value)
    assert np.isfinite(slope).all()


def test_targets_are_the_papers():
    learner, agent = make(discount=0.9)
    target = jax.tree.map(lambda x: x + 0.1, agent.memory.target)
    training = training_of(learner, agent)._replace(target=target)
    batch = batch_of(64)
    noise = noise_of(learner, batch)
    following = np.asarray(batch.next_observation)
    action, log_prob = plain_draw(agent.params, following, np.asarray(noise["next"], np.float64))
    value = plain_least(target, following, action) - 0.3 * log_prob
    expected = np.asarray(batch.reward) + 0.9 * (1 - np.asarray(batch.terminated)) * value
    np.testing.assert_allclose(learner.targets(training, batch, noise), expected, rtol=1e-4, atol=1e-4)


def test_targets_of_discrete_actions_are_expectations():
    learner, agent = make("sac-discrete", DISCRETE, discount=0.9)
    target = jax.tree.map(lambda x: x + 0.1, agent.memory.target)
    training = training_of(learner, agent)._replace(target=target)
    batch = batch_with_numbers(32)
    following = batch.next_observation
    policy = np.asarray(jax.nn.softmax(agent.params.policy(following).logits), np.float64)
    value = 0.0
    for number in range(4):
        action = jnp.full((32, 1), float(number))
        least = np.minimum(*(np.asarray(each) for each in target.values(following, action)))
        value += policy[:, number] * (least - 0.3 * np.log(policy[:, number]))
    expected = np.asarray(batch.reward) + 0.9 * (1 - np.asarray(batch.terminated)) * value
    np.testing.assert_allclose(learner.targets(training, batch, {}), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.training
@pytest.mark.parametrize("actor_first", [False, True])
def test_an_actor_step_climbs_the_soft_value(actor_first):
    learner, agent = make(optimizer="sgd", learning_rate=0.1, tau=0.25, actor_first=actor_first)
    before = jax.tree.map(lambda x: x * 0.5, agent.params)
    batch = batch_of()
    noise = noise_of(learner, batch)

    def value(actor):
        params = dataclasses.replace(agent.params, actor=actor)
        action, log_prob = params.drawn(batch.observation, noise["now"])
        critics = before if actor_first else agent.params
        return (jnp.minimum(*critics.values(batch.observation, action)) - 0.3 * log_prob).mean()

    after, report = learner.actor_step(training_of(learner, agent), batch, noise, Objective(), before)
    moved = vector(after.params.actor) - vector(agent.params.actor)
    np.testing.assert_allclose(moved, 0.1 * vector(jax.grad(value)(agent.params.actor)), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(report["actor_loss"], -value(agent.params.actor), rtol=1e-4)
    for part in ("features", "head"):
        np.testing.assert_array_equal(vector(getattr(after.params, part)), vector(getattr(agent.params, part)))
    expected = 0.75 * vector(agent.memory.target) + 0.25 * vector(after.params)
    np.testing.assert_allclose(vector(after.target), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.training
@pytest.mark.parametrize(("name", "spaces"), [("sac", SPACES), ("sac-discrete", DISCRETE)])
@pytest.mark.parametrize("learns", [True, False])
def test_the_temperature_rises_while_entropy_is_too_low(name, spaces, learns):
    for target, direction in ((-50.0, -1), (50.0, 1)):
        aim = {"target_entropy": target} if learns else {"learn_temperature": False}
        learner, agent = make(name, spaces, **aim, learning_rate=0.01)
        batch = batch_of() if name == "sac" else batch_with_numbers()
        training = training_of(learner, agent)
        after, _ = learner.actor_step(training, batch, noise_of(learner, batch), Objective(), agent.params)
        moved = float(after.params.temperature - agent.params.temperature)
        assert moved == pytest.approx(0.01 * direction if learns else 0.0, abs=1e-5)


@pytest.mark.training
def test_the_temperature_may_have_a_step_size_of_its_own():
    learner, agent = make(target_entropy=50.0, learning_rate=0.01, temperature_rate=0.003)
    batch = batch_of()
    noise = noise_of(learner, batch)
    after, _ = learner.actor_step(training_of(learner, agent), batch, noise, Objective(), agent.params)
    assert float(after.params.temperature - agent.params.temperature) == pytest.approx(0.003, abs=1e-5)


def test_a_critic_step_descends_the_error_of_the_actions_taken():
    learner, agent = make("sac-discrete", DISCRETE, optimizer="sgd", learning_rate=0.1)
    batch = batch_with_numbers()
    wanted = learner.targets(training_of(learner, agent), batch, {})

    def error(head):
        params = dataclasses.replace(agent.params, head=head)
        each = params.all_values(batch.observation)
        rows = jnp.arange(8), batch.action[:, 0].astype(int)
        return sum(((values[rows] - wanted) ** 2).mean() for values in each)

    after, report = learner.critic_step(training_of(learner, agent), batch, wanted, Objective())
    gradient = vector(jax.grad(error)(agent.params.head))
    np.testing.assert_allclose(vector(after.params.head) - vector(agent.params.head), -0.1 * gradient, atol=1e-5)
    np.testing.assert_allclose(report["critic_loss"], error(agent.params.head), rtol=1e-5)


@pytest.mark.training
def test_entropy_ends_near_its_target():
    settings = (
        *(("learning_rate", 3e-3), ("actor_layers", (16,)), ("feature_layers", (16,)), ("head_layers", (16,))),
        *(("num_steps", 4), ("batch_size", 64), ("buffer_size", 4096), ("tau", 0.05), ("target_entropy", -0.5)),
    )
    _, agents = learnt("sac", settings, continuous=True, updates=300, num_envs=4)
    observation = jnp.repeat(observed(), 512, 0)
    _, log_prob = agents["action"].params.drawn(observation, jax.random.normal(jax.random.key(0), (512, 1)))
    assert -float(log_prob.mean()) == pytest.approx(-0.5, abs=0.3)


def test_drawn_actions_keep_to_their_bounds_and_greedy_ones_are_the_means():
    learner, agent = make(random_actions=0.5)
    observation = batch_of(256).observation
    drawn = learner.act(agent.params, observation, jax.random.key(0))
    assert (drawn >= CENTRE - REACH - 1e-6).all()
    assert (drawn <= CENTRE + REACH + 1e-6).all()
    mean = np.split(np.asarray(agent.params.actor(observation)), 2, -1)[0]
    np.testing.assert_allclose(learner.act(agent.params, observation, None), CENTRE + REACH * np.tanh(mean), atol=1e-5)


def test_random_discrete_actions_are_as_many_as_asked_for():
    learner, agent = make("sac-discrete", DISCRETE, random_actions=0.4)
    sure = jax.tree.map(lambda x: x * 0.0, agent.params.actor)
    last = dataclasses.replace(sure.layers[-1], bias=jnp.array([0.0, 50.0, 0.0, 0.0]))
    params = dataclasses.replace(agent.params, actor=dataclasses.replace(sure, layers=(*sure.layers[:-1], last)))
    action = np.asarray(learner.act(params, batch_of(4000).observation, jax.random.key(0)))
    assert (action != 1).mean() == pytest.approx(0.4 * 3 / 4, abs=0.03)
    assert action.dtype == np.int32


@pytest.mark.training
def test_updates_change_every_part_and_nothing_before_the_replay_is_filled():
    learner, agent = make()
    steps = real_steps([1.0, 0.0, 1.0])
    first, report = learner.learn(agent, real_steps([1.0]), Objective(), update_context())
    np.testing.assert_array_equal(vector(first.params), vector(agent.params))
    assert np.isnan(report["critic_loss"])
    second, report = learner.learn(first, steps, Objective(), update_context())
    for part in ("features", "head", "actor"):
        assert (vector(getattr(second.params, part)) != vector(getattr(agent.params, part))).any()
    assert second.params.temperature != agent.params.temperature
    assert {"critic_loss", "actor_loss", "entropy", "temperature"} <= report.keys()


@pytest.mark.parametrize(
    ("name", "spaces", "changes", "words"),
    [
        ("sac", DISCRETE, {}, "learner=sac-discrete"),
        ("sac-discrete", SPACES, {}, "learner=sac"),
        ("sac", SPACES, {"temperature": 0.0}, "more than 0"),
        ("sac", SPACES, {"hindsight": "future"}, "needs a goal environment"),
        ("sac", SPACES, {"learn_temperature": False, "target_entropy": -1.0}, "target_entropy is for a temperature"),
        ("sac", SPACES, {"learn_temperature": False, "temperature_rate": 0.1}, "temperature_rate is for a temper"),
        ("sac", SPACES, {"deviation_bounds": (2.0, -20.0)}, "learner.deviation_bounds"),
        ("sac", Spaces(SPACES.observation, Box((1,), (-np.inf,), (np.inf,))), {}, "unbounded"),
    ],
)
def test_what_does_not_fit_is_refused(name, spaces, changes, words):
    with pytest.raises(FedraxError, match=words):
        make(name, spaces, **changes)
