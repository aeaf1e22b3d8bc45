"""Attacks on physics, words, seeds and critics: exact where something is known, and where each does not apply."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.audit.base import Effort
from fedrax.audit.canaries import Participation
from fedrax.audit.critics import SentCritics
from fedrax.audit.physics import EnvironmentParameters, determination, ranked, ridge
from fedrax.audit.recomputation import Recomputation, equal
from fedrax.audit.words import EmbeddingRows, touched, words_at

from audited import CARTPOLE, FORCES, PENDULUM, TRAJECTORY, setting_of

KEY = jax.random.key(0)
GOSSIP = [
    *("environment=CartPole-v1", "environment.num_envs=2", "federation.agents=2", "budget.rounds=1"),
    *("learner=ppo", "learner.num_steps=16", "strategy=gossip"),
]


def test_a_linear_dependence_is_found_and_chance_is_not():
    draws = np.random.default_rng(0)
    features = draws.normal(size=(90, 200))
    values = features[:, :3] @ np.array([1.0, -2.0, 0.5])
    few = features[:, :40]
    guessed = ridge(few[:60], values[:60], few[60:])
    assert determination(values[60:], guessed) > 0.95
    assert ranked(values[60:], guessed) > 0.9
    nothing = draws.normal(size=90)
    assert determination(nothing[60:], ridge(features[:60], nothing[:60], features[60:])) < 0.2


def test_shares_of_variance_and_of_pairs_by_hand():
    values = np.array([1.0, 2.0, 4.0])
    assert determination(values, values) == 1.0
    assert determination(values, np.full(3, values.mean())) == 0.0
    assert ranked(values, np.array([0.1, 0.2, 0.3])) == 1.0
    assert ranked(values, -values) == 0.0
    assert ranked(values, np.array([1.0, 3.0, 2.0])) == pytest.approx(2 / 3)


@pytest.mark.training
def test_messages_tell_the_physics_until_there_is_noise():
    settings = [FORCES, "environment.horizon=50", "learner.hidden=[16]", "strategy.batch=16"]
    plain = EnvironmentParameters().answers(setting_of(*settings), Effort(shadows=120), KEY)
    assert plain["r2"] > 0.4
    assert plain["ranked"] > 0.7
    noisy = setting_of(*settings, *TRAJECTORY, "privacy.noise=8")
    assert EnvironmentParameters().answers(noisy, Effort(shadows=120), KEY)["r2"] < 0.2


def test_words_and_rows_by_hand():
    tokens = jnp.array([[2, 0], [2, 1]])
    expected = np.zeros((2, 3), bool)
    expected[0, 2] = expected[1, 1] = True
    np.testing.assert_array_equal(words_at(tokens, 3), expected)
    table = jnp.zeros((2, 3, 4)).at[0, 2, 1].set(1e-7)
    np.testing.assert_array_equal(touched(table, 0.0), expected & [[True], [False]])
    assert not touched(table, 1.0).any()


def test_noise_alone_is_rarely_taken_for_a_word():
    table = 0.5 * jax.random.normal(KEY, (10, 1000, 32))
    assert float(touched(table, 0.5).mean()) == pytest.approx(0.01, abs=0.003)


@pytest.mark.training
def test_words_are_read_from_embeddings_until_there_is_noise():
    pytest.importorskip("minigrid")
    grid = ["environment=MiniGrid-GoToDoor-6x6-v0", "environment.mission=true", "environment.backend=gymnasium"]
    plain = EmbeddingRows().answers(setting_of(*grid), Effort(), KEY)
    assert (plain["precision"], plain["recall"]) == (1.0, 1.0)
    noisy = EmbeddingRows().answers(setting_of(*grid, *TRAJECTORY, "privacy.noise=2"), Effort(), KEY)
    assert noisy["recall"] < 0.2


@pytest.mark.training
@pytest.mark.parametrize(
    ("overrides", "as_run"), [([], True), (["runtime=flower"], False), (["runtime.shared_seeds=true"], True)]
)
def test_the_configuration_yields_what_a_simulation_does_and_not_what_a_node_does(overrides, as_run):
    answers = Recomputation().answers(setting_of(*overrides), Effort(), KEY)
    assert answers == {"as_run": as_run, "on_nodes_with_secrets": False}


def test_messages_are_the_same_but_for_rounding():
    one = np.array([1.0, -3.0, 0.0])
    assert equal(one, one + 1e-5)
    assert not equal(one, one + 1e-3)


@pytest.mark.training
def test_a_critic_that_has_learned_its_steps_by_heart_gives_them_away():
    plain = SentCritics().answers(setting_of(source=PENDULUM), Effort(), KEY)
    assert plain["auc"] > 0.8
    assert plain["steps"] > 20
    noisy = setting_of("privacy.unit=agent", "privacy.clip=0.1", "privacy.noise=8", source=PENDULUM)
    assert SentCritics().answers(noisy, Effort(), KEY)["auc"] < 0.75


@pytest.mark.training
@pytest.mark.parametrize("settings", [["strategy=clustered"], ["strategy=scaffold"], ["strategy.average_targets=true"]])
def test_the_critic_is_found_in_the_messages_of_every_strategy_that_averages_it(settings):
    assert SentCritics().answers(setting_of(*settings, source=PENDULUM), Effort(), KEY)["auc"] > 0.8


@pytest.mark.training
@pytest.mark.parametrize(
    ("leak", "source", "overrides", "words"),
    [
        (EnvironmentParameters(), CARTPOLE, [], "do not differ"),
        (EnvironmentParameters(), CARTPOLE, ["environment.heterogeneity.length=[0.5,0.4,0.8]"], "can be drawn"),
        (Participation(), GOSSIP, [], "the server has each agent's own"),
        (EmbeddingRows(), CARTPOLE, [], "no words"),
        (SentCritics(), CARTPOLE, [], "no critics"),
        (SentCritics(), PENDULUM, ["strategy=distillation"], "does not average critics"),
        (Recomputation(), PENDULUM, ["strategy=local"], "send nothing"),
    ],
)
def test_where_an_attack_does_not_apply_it_says_why(leak, source, overrides, words):
    reason = leak.inapplicable(setting_of(*overrides, source=source))
    assert words in reason
    assert "\n" not in reason
