"""Every learner on environments with one difficulty each: what the critics expect, and what the policies prefer."""

import jax
import numpy as np
import pytest
from probes import DISCOUNT, HORIZON, learnt, observed

SMALL = (("learning_rate", 0.01), ("hidden", (16,)))
PPO = (*SMALL, ("num_steps", 16), ("anneal_learning_rate", False), ("num_minibatches", 2), ("entropy_coefficient", 0.0))
TD3 = (
    ("learning_rate", 3e-3),
    ("actor_layers", (16,)),
    ("feature_layers", (16,)),
    ("head_layers", (16,)),
    ("num_steps", 4),
    ("batch_size", 64),
    ("buffer_size", 4096),
    ("tau", 0.05),
    ("exploration_noise", 0.5),
)
SOFT = (*TD3[:-1], ("temperature", 1e-3), ("learn_temperature", False), ("random_actions", 0.3))
GRADIENTS = {
    "default": (),
    "gpomdp": (("estimator", "gpomdp"), ("baseline", "none")),
    "reinforce": (("estimator", "reinforce"), ("baseline", "leave-one-out")),
}
PPOS = {
    "none": (("objective", "none"), ("update_epochs", 1)),
    "clip": (("objective", "clip"),),
    "kl": (("objective", "kl"),),
    "mdpo": (("objective", "mdpo"),),
}


def gradient(name, continuous=False):
    return learnt("policy-gradient", SMALL + GRADIENTS[name], continuous=continuous, updates=150, num_envs=32)


def ppo(name, continuous=False):
    return learnt("ppo", PPO + PPOS[name], continuous=continuous, updates=60, num_envs=8)


def td3():
    return learnt("td3", TD3, continuous=True, updates=300, num_envs=4)


def sac():
    return learnt("sac", SOFT, continuous=True, updates=300, num_envs=4)


def discrete_sac():
    return learnt("sac-discrete", SOFT, continuous=False, updates=300, num_envs=4)


LEARNERS = {
    **{f"policy-gradient {name}": (gradient, name) for name in GRADIENTS},
    **{f"ppo {name}": (ppo, name) for name in PPOS},
    "policy-gradient continuous": (gradient, "default", True),
    "ppo continuous": (ppo, "clip", True),
    "td3 continuous": (td3,),
    "sac continuous": (sac,),
    "sac-discrete": (discrete_sac,),
}


def goodness(learner, agent, observation):
    """The probability of the good action; of continuous ones the greedy action, -1 to 1."""
    policy = getattr(agent.params, "policy", agent.params)
    if callable(policy) and hasattr(policy(observation), "logits"):
        return float(jax.nn.softmax(policy(observation).logits)[0, 1])
    return float(learner.act(agent.params, observation, None)[0, 0])


@pytest.mark.training
@pytest.mark.parametrize("probe", ["action", "late", "limit"])
@pytest.mark.parametrize("name", LEARNERS)
def test_the_rewarded_action_is_learnt(name, probe):
    """Also where the reward comes last, after steps without: the probe that whitening fails."""
    make, *arguments = LEARNERS[name]
    learner, agents = make(*arguments)
    assert goodness(learner, agents[probe], observed()) > 0.9


@pytest.mark.training
@pytest.mark.parametrize("name", LEARNERS)
def test_the_action_follows_the_observation(name):
    make, *arguments = LEARNERS[name]
    learner, agents = make(*arguments)
    worst = -0.9 if "continuous" in name else 0.1
    assert goodness(learner, agents["matching"], observed(signal=1.0)) > 0.9
    assert goodness(learner, agents["matching"], observed(signal=-1.0)) < worst


def value(learner, agent, observation):
    if hasattr(agent.params, "both"):
        return float(agent.params.both(observation)[1][0])
    if hasattr(agent.params, "all_values"):
        return float(agent.params.all_values(observation)[0].max())
    return float(agent.params.value(observation, agent.params.act(observation))[0])


@pytest.mark.training
@pytest.mark.parametrize("name", [name for name in LEARNERS if not name.startswith("policy")])
def test_critics_expect_what_comes(name):
    make, *arguments = LEARNERS[name]
    learner, agents = make(*arguments)
    expected = {
        ("constant", 0, 1.0): 1.0,
        ("observation", 0, 1.0): 1.0,
        ("observation", 0, -1.0): -1.0,
        ("delayed", 0, 1.0): DISCOUNT,
        ("delayed", 1, 1.0): 1.0,
        # What the time limit cuts off still counts: in the episode's last step too.
        ("limit", 0, 1.0): 1 / (1 - DISCOUNT),
        ("limit", HORIZON - 1, 1.0): 1 / (1 - DISCOUNT),
    }
    for (probe, step, signal), wanted in expected.items():
        first = 0.0 if step == 0 or probe == "delayed" else 1.0
        got = value(learner, agents[probe], observed(step, signal, first))
        assert got == pytest.approx(wanted, abs=0.15 * max(wanted, 1)), (probe, step, signal)


@pytest.mark.training
def test_equal_rewards_move_no_policy_that_has_a_baseline():
    """Leaving one out of equal rewards leaves nothing, so that the policy is as it began."""
    _, agents = gradient("default")
    _, fresh = learnt("policy-gradient", SMALL, continuous=False, updates=0, num_envs=32)
    before, after = (jax.tree.leaves(each["constant"].params) for each in (fresh, agents))
    for start, end in zip(before, after, strict=True):
        np.testing.assert_array_equal(start, end)


def test_whitening_learns_the_opposite_where_reward_comes_late():
    """Why it is nobody's default but the reference's."""
    whitened = (("estimator", "whitened"), ("baseline", "none"))
    learner, agents = learnt("policy-gradient", SMALL + whitened, continuous=False, updates=150, num_envs=32)
    assert goodness(learner, agents["late"], observed()) < 0.1
    assert goodness(learner, agents["limit"], observed()) > 0.9
