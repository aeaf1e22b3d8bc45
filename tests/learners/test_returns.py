"""Step weights against values worked out by hand and against a literal transcription of the formulas."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.learners.returns import rewards_to_go, step_weights


def literal(rewards, gamma, estimator, baseline="none"):
    """The formulas of one batch of unpadded episodes, as loops over Python lists in float64."""
    discounted = [[gamma**t * r for t, r in enumerate(episode)] for episode in rewards]
    weights = []
    for i, episode in enumerate(rewards):
        if estimator == "reinforce":
            total = sum(discounted[i])
            if baseline == "leave-one-out":
                total -= np.mean([sum(d) for j, d in enumerate(discounted) if j != i])
            elif baseline != "none":
                total -= sum(sum(d) for d in discounted) / len(rewards)
            weights.append([total] * len(episode))
            continue
        if estimator == "whitened":
            g = [sum(gamma ** (u - t) * episode[u] for u in range(t, len(episode))) for t in range(len(episode))]
            deviation = np.std(g, ddof=1) if len(g) > 1 else 0.0
            weights.append([(x - np.mean(g)) / deviation if deviation > 0 else 0.0 for x in g])
            continue
        if baseline == "leave-one-out":
            others = [d for j, d in enumerate(discounted) if j != i]
            reach = [[sum(d[t:]) for d in others if len(d) > t] for t in range(len(episode))]
            weights.append([sum(discounted[i][t:]) - (np.mean(r) if r else 0.0) for t, r in enumerate(reach)])
            continue
        steps = sum(len(d) for d in discounted)
        constant = sum(sum(d) for d in discounted) / steps
        average = lambda h: np.mean([d[h] for d in discounted if len(d) > h])  # noqa: E731
        c = {"none": lambda h: 0.0, "constant": lambda h, c=constant: c, "average": average}[baseline]
        weights.append([sum(discounted[i][h] - c(h) for h in range(t, len(episode))) for t in range(len(episode))])
    return weights


def pad(rows, length=6):
    return jnp.asarray([[row[t] if t < len(row) else 0.0 for row in rows] for t in range(length)], jnp.float32)


EPISODES = [[1.0, 2.0, -1.0], [0.5, 0.0, 3.0, 1.0, -2.0], [4.0]]
VALID = jnp.asarray([[t < len(e) for e in EPISODES] for t in range(6)])


def test_rewards_to_go_known_value():
    assert rewards_to_go(jnp.asarray([[1.0], [2.0], [4.0]]), 0.5)[:, 0].tolist() == [3.0, 4.0, 4.0]


@pytest.mark.parametrize("estimator", ["reinforce", "gpomdp", "whitened"])
@pytest.mark.parametrize("baseline", ["none", "constant", "average", "leave-one-out"])
def test_weights_equal_the_formulas(estimator, baseline):
    rewards = pad(EPISODES) + 7.0 * ~VALID  # whatever padding holds must not matter
    got = step_weights(rewards, VALID, estimator=estimator, discount=0.9, baseline=baseline)
    np.testing.assert_allclose(got, pad(literal(EPISODES, 0.9, estimator, baseline)), atol=2e-6)


def test_whitening_turns_a_flipped_reward_into_the_opposite_weight():
    weights = step_weights(pad(EPISODES), VALID, estimator="whitened", discount=0.99)
    flipped = step_weights(-pad(EPISODES), VALID, estimator="whitened", discount=0.99)
    np.testing.assert_allclose(flipped, -weights, atol=1e-6)


def test_whitening_of_one_step_or_equal_returns_is_zero_not_nan():
    rewards = jnp.asarray([[5.0, 3.0], [0.0, 3.0], [0.0, 3.0]])
    valid = jnp.asarray([[True, True], [False, True], [False, True]])
    weights = step_weights(rewards, valid, estimator="whitened", discount=0.0)
    assert weights.tolist() == [[0.0, 0.0]] * 3


@pytest.mark.parametrize("estimator", ["reinforce", "gpomdp"])
@pytest.mark.parametrize(("baseline", "biased"), [("none", False), ("leave-one-out", False), ("average", True)])
def test_which_baselines_leave_the_gradient_alone(estimator, baseline, biased):
    """All batches of two episodes of up to two steps, enumerated: the mean estimate is the derivative of the return.

    Action 1 has probability p, gives reward 1, and ends the episode; action 0 gives 0 and ends it in the second step.
    """
    p, gamma = 0.3, 0.5
    episodes = [([1.0], [1], p), ([0.0, 1.0], [0, 1], (1 - p) * p), ([0.0, 0.0], [0, 0], (1 - p) ** 2)]
    score = {1: 1 / p, 0: -1 / (1 - p)}
    mean = 0.0
    for (first, first_actions, q), (second, second_actions, r) in itertools.product(episodes, repeat=2):
        valid = jnp.asarray([[len(e) > t for e in (first, second)] for t in range(2)])
        weights = step_weights(pad([first, second], 2), valid, estimator=estimator, discount=gamma, baseline=baseline)
        for i, actions in enumerate((first_actions, second_actions)):
            mean += q * r * sum(float(weights[t, i]) * score[a] for t, a in enumerate(actions)) / 2
    derivative = 1 + gamma * (1 - 2 * p)
    assert (abs(mean - derivative) > 0.01) == biased
