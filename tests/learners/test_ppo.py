"""PPO: its objectives against their formulas, and what one update does."""

import dataclasses
import shutil
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedrax
from fedrax.environments.base import Box, Discrete, Spaces, Steps
from fedrax.errors import FedraxError
from fedrax.learners.base import Objective, UpdateContext, learners
from fedrax.learners.distributions import Categorical, Gaussian, kl_divergence
from fedrax.learners.ppo import Extras
from fedrax.trees import ravel_rows

from own_files import project

__all__ = ["project"]

POINT_MASS = Path(__file__).parents[2] / "examples" / "point-mass"
UNBOUNDED = Box((2,), (-np.inf, -np.inf), (np.inf, np.inf))
DISCRETE = Spaces(UNBOUNDED, Discrete(3))
CONTINUOUS = Spaces(UNBOUNDED, Box((2,), (-1, -1), (1, 1)))
PLAIN = {
    "optimizer": "sgd",
    "learning_rate": 1.0,
    "max_gradient_norm": None,
    "num_steps": 8,
    "num_minibatches": 1,
    "update_epochs": 1,
    "normalise_advantages": False,
    "anneal_learning_rate": False,
    "entropy_coefficient": 0.0,
    "value_coefficient": 0.0,
    "hidden": (8,),
}


def make(spaces=DISCRETE, **changes):
    learner = learners.build("ppo", {**PLAIN, **changes})
    return learner, learner.init(jax.random.key(1), spaces)


def collected(learner, agent, spaces=DISCRETE, *, num_envs=4, seed=0, reward=None):
    """Steps of a policy in an environment whose observations are noise; the first action is rewarded."""
    keys = jax.random.split(jax.random.key(seed), 3)
    shape = (learner.num_steps, num_envs)
    observation = jax.random.normal(keys[0], (shape[0] + 1, num_envs, 2))
    action = learner.act(agent.params, observation[:-1].reshape(-1, 2), keys[1])
    action = action.reshape(*shape, *action.shape[1:])
    if reward is None:
        reward = jax.random.normal(keys[2], shape)
    no = jnp.zeros(shape, bool)
    return Steps(observation, Extras(*agent.params.both(observation)), action, reward, ~no, no, no, jnp.zeros(shape))


def update_context(progress=0.0, seed=3):
    return UpdateContext(jax.random.key(seed), jnp.asarray(progress))


def vector(tree):
    return ravel_rows(jax.tree.map(lambda x: x[None], tree))[0]


@pytest.mark.training
@pytest.mark.parametrize("objective", ["none", "clip", "kl", "mdpo"])
@pytest.mark.parametrize("spaces", [DISCRETE, CONTINUOUS])
def test_the_first_step_of_every_objective_is_the_policy_gradient(objective, spaces):
    """At the policy that collected, ratios are 1, nothing is clipped and the gradient of either KL is 0."""
    learner, agent = make(spaces, objective=objective, kl_coefficient=7.0)
    steps = collected(learner, agent, spaces)
    stepped, _ = learner.learn(agent, steps, Objective(), update_context())

    def surrogate(params):
        distribution, values = params.both(steps.observation)
        values = jax.lax.stop_gradient(values)
        error = steps.reward + learner.discount * values[1:] - values[:-1]
        advantage, later = [], 0.0
        for delta in error[::-1]:
            later = delta + learner.discount * learner.gae_lambda * later
            advantage.append(later)
        advantage = jnp.stack(advantage[::-1])
        policy = jax.tree.map(lambda x: x[:-1], distribution)
        return -(advantage * policy.log_prob(steps.action)).mean()

    expected = vector(agent.params) - vector(jax.grad(surrogate)(agent.params))
    np.testing.assert_allclose(vector(stepped.params), expected, atol=2e-5)


def test_invalid_steps_change_nothing():
    learner, agent = make()
    steps = collected(learner, agent)
    valid = jnp.ones((8, 4), bool).at[3].set(False)
    steps = dataclasses.replace(steps, valid=valid, terminated=jnp.zeros((8, 4), bool).at[2].set(True))
    noisy = dataclasses.replace(steps, action=steps.action.at[3].set((steps.action[3] + 1) % 3))
    one, _ = learner.learn(agent, steps, Objective(), update_context())
    other, _ = learner.learn(agent, noisy, Objective(), update_context())
    np.testing.assert_array_equal(vector(one.params), vector(other.params))


@pytest.mark.parametrize("objective", ["kl", "mdpo"])
def test_a_large_coefficient_holds_the_policy_back(objective):
    moved = {}
    for coefficient in (0.0, 100.0):
        learner, agent = make(
            objective=objective, kl_coefficient=coefficient, update_epochs=20, learning_rate=0.05, optimizer="sgd"
        )
        steps = collected(learner, agent)
        after, _ = learner.learn(agent, steps, Objective(), update_context())
        flat = steps.observation[:-1].reshape(-1, 2)
        moved[coefficient] = float(kl_divergence(agent.params(flat), after.params(flat)).mean())
    assert moved[100.0] < 0.3 * moved[0.0]


@pytest.mark.parametrize(
    "old", [Categorical(jnp.array([0.3, -1.0, 0.7])), Gaussian(jnp.array([0.2]), jnp.array([0.6]))]
)
@pytest.mark.parametrize("mdpo", [True, False])
def test_the_exact_divergence_is_the_mean_of_log_ratios(old, mdpo):
    new = jax.tree.map(lambda x: x * 1.4, old)
    p, q = (new, old) if mdpo else (old, new)
    sample = jax.vmap(p.sample)(jax.random.split(jax.random.key(0), 200_000))
    estimate = (p.log_prob(sample) - q.log_prob(sample)).mean()
    np.testing.assert_allclose(kl_divergence(p, q), estimate, rtol=0.05, atol=2e-3)


def test_the_sampled_divergence_is_the_references():
    learner, _ = make(objective="kl", kl_estimator="sampled")
    old, new = Categorical(jnp.array([[0.0, 1.0, 2.0]])), Categorical(jnp.array([[1.0, 1.0, 0.0]]))
    log_ratio = new.log_prob(jnp.array([2])) - old.log_prob(jnp.array([2]))
    np.testing.assert_allclose(learner._divergence(new, old, log_ratio), jnp.exp(log_ratio) - 1 - log_ratio, rtol=1e-6)


def test_the_coefficient_adapts_to_its_target():
    for target, factor in ((1e-9, 2.0), (1e9, 0.5)):
        learner, agent = make(objective="kl", kl_target=target, update_epochs=4, kl_coefficient=0.5)
        after, metrics = learner.learn(agent, collected(learner, agent), Objective(), update_context())
        assert float(after.memory.kl_coefficient) == 0.5 * factor
        assert float(metrics["kl_coefficient"]) == 0.5 * factor


@pytest.mark.training
def test_target_kl_ends_an_update_after_the_epoch_that_exceeds_it():
    common = {"update_epochs": 3, "learning_rate": 0.5}
    one, agent = make(**{**common, "update_epochs": 2})
    stopped, _ = make(**common, target_kl=1e-12)
    free, _ = make(**common)
    steps = collected(one, agent)
    # Before the first step there is no divergence, so it is the second epoch that exceeds the target.
    keys = [learner.learn(agent, steps, Objective(), update_context())[0] for learner in (one, stopped, free)]
    assert not np.allclose(vector(keys[1].params), vector(keys[2].params))
    np.testing.assert_allclose(vector(keys[0].params), vector(keys[1].params), atol=1e-6)


def test_annealing_shortens_the_step_linearly():
    learner, agent = make(anneal_learning_rate=True, optimizer="adam", learning_rate=1e-3)
    steps = collected(learner, agent)
    moves = [
        vector(learner.learn(agent, steps, Objective(), update_context(progress))[0].params) - vector(agent.params)
        for progress in (0.0, 0.75, 1.0)
    ]
    np.testing.assert_allclose(moves[1], 0.25 * moves[0], atol=1e-6)
    assert not moves[2].any()


def test_a_rewarded_action_becomes_the_likely_one():
    learner, agent = make(
        objective="clip",
        optimizer="adam",
        learning_rate=0.01,
        update_epochs=4,
        num_minibatches=2,
        num_steps=32,
        value_coefficient=0.5,
    )

    @jax.jit
    def update(agent, key):
        steps = collected(learner, agent, seed=0)
        action = learner.act(agent.params, steps.observation[:-1].reshape(-1, 2), key).reshape(32, 4)
        rewarded = dataclasses.replace(
            steps, action=action, reward=(action == 2).astype(jnp.float32), terminated=jnp.ones((32, 4), bool)
        )
        return learner.learn(agent, rewarded, Objective(), UpdateContext(key, jnp.asarray(0.0)))[0]

    for key in jax.random.split(jax.random.key(5), 40):
        agent = update(agent, key)
    assert jax.nn.softmax(agent.params(jnp.zeros(2)).logits)[2] > 0.95


@pytest.mark.parametrize("torso", ["separate", "shared"])
def test_values_move_the_policy_through_a_shared_torso_alone(torso):
    """Rewards of a thousand, and a loss of values alone."""
    changes = {"value_coefficient": 0.5, "learning_rate": 1e-6, "critic_torso": torso}
    learner, agent = make(**changes, objective="none", discount=0.0)
    steps = collected(learner, agent, reward=jnp.full((learner.num_steps, 4), 1000.0))
    # Values as they were when acting make every advantage 0, and so the policy's own gradient.
    acted = steps.extras._replace(value=jnp.full((learner.num_steps + 1, 4), 1000.0))
    steps = dataclasses.replace(steps, extras=acted)
    after, _ = learner.learn(agent, steps, Objective(), UpdateContext(jax.random.key(3), jnp.asarray(0.0)))
    moved = {
        name: not eqx.tree_equal(getattr(after.params, name), getattr(agent.params, name))
        for name in ("torso", "actor", "critic")
    }
    assert moved == {"torso": torso == "shared", "actor": False, "critic": True}


@pytest.mark.training
def test_ppo_pushes_a_mass_to_the_middle_whatever_the_scale_of_its_returns(project):
    """Returns begin at -150. A critic on the actor's torso, whose value moves by 0.2 an update, left them at -200."""
    # A copy, whose module the fixture makes this process forget.
    shutil.copytree(POINT_MASS, project.path, dirs_exist_ok=True)
    settings = ["environment.heterogeneity=none", "federation.agents=1", "evaluation.every=100", "seeds=3"]
    run = fedrax.train("experiment.toml", settings, out="run", progress=False)
    assert max(run.summary()["final_return"]) < 0
    assert min(run.summary()["final_return"]) > -15


def test_minibatches_must_divide_the_steps():
    learner, _ = make(num_minibatches=3)
    with pytest.raises(FedraxError, match="num_minibatches = 3 does not divide the 32 steps of an update"):
        learner.bind(DISCRETE, 4, 200)


def test_a_grid_torso_needs_a_grid():
    learner, _ = make()
    with pytest.raises(FedraxError, match=r"needs observations of shape \(7, 7, 3\)"):
        dataclasses.replace(learner, torso="grid").check(DISCRETE)
