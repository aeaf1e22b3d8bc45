"""What a server sees, and whether canaries are found as often as the mechanism says, and no more than it claims."""

import dataclasses
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.audit.base import Effort
from fedrax.audit.canaries import Canary, Participation, Trajectories, told_apart
from fedrax.audit.sight import seen_of
from fedrax.trees import unravel_like

from audited import AGENT, CARTPOLE, TRAJECTORY, setting_of

KEY = jax.random.key(0)


def seen_rows(setting, rows):
    """What the server gets of updates that are these rows."""
    updates = unravel_like(setting.update_shapes, jnp.asarray(rows))
    episodes = jnp.asarray(setting.episodes)
    return np.asarray(seen_of(setting.federation, setting.fresh, updates, episodes, KEY, setting.whole_round))


def rows_of(setting, *lengths):
    """An update of each length in a direction of its own."""
    return np.eye(len(lengths), setting.dimension) * np.array(lengths)[:, None]


def test_without_protection_a_server_sees_every_update():
    setting = setting_of()
    rows = rows_of(setting, 3.0, 0.1, 2.0)
    np.testing.assert_array_equal(seen_rows(setting, rows), rows.astype(np.float32))


def test_clipping_shortens_what_it_sees():
    setting = setting_of("privacy.clip=0.5")
    seen = seen_rows(setting, rows_of(setting, 3.0, 0.1, 2.0))
    np.testing.assert_allclose(np.linalg.norm(seen, axis=1), [0.5, 0.1, 0.5], rtol=1e-4)


@pytest.mark.parametrize("overrides", [AGENT, ["privacy.clip=0.5", "privacy.secure_sum=true"]])
def test_of_a_sum_it_sees_the_sum_alone(overrides):
    setting = setting_of(*overrides)
    seen = seen_rows(setting, rows_of(setting, 3.0, 0.1, 2.0))
    assert seen.shape == (1, setting.dimension)
    np.testing.assert_allclose(seen[0, :3], [0.5, 0.1, 0.5], rtol=1e-4)


def test_noise_is_in_what_it_sees():
    setting = setting_of(*TRAJECTORY, "privacy.noise=8")
    seen = seen_rows(setting, np.zeros((3, setting.dimension)))
    assert np.std(seen) == pytest.approx(8 * 0.5 / 4, rel=0.5)
    local = setting_of(*AGENT, "privacy.noise=8", "privacy.model=local")
    assert np.std(seen_rows(local, np.zeros((3, setting.dimension)))) == pytest.approx(4, rel=0.3)


@pytest.mark.training
@pytest.mark.parametrize("noise", [1.0, 8.0])
def test_canaries_are_found_as_often_as_two_normal_distributions_are_told_apart(noise):
    """Neighbours by replacement are two clips apart: AUC = Phi(2 / (z sqrt 2))."""
    setting = setting_of(*TRAJECTORY, f"privacy.noise={noise}")
    answers = Trajectories().answers(setting, Effort(), KEY)
    assert answers["auc"] == pytest.approx(NormalDist().cdf(2 / noise / 2**0.5), abs=1.5 * answers["auc_margin"])
    assert answers["epsilon_at_least"] <= answers["epsilon_claimed"] < 10


@pytest.mark.training
@pytest.mark.parametrize(
    ("leak", "overrides", "guaranteed", "attacked"),
    [(Participation(), AGENT, 17, 16), (Trajectories(), TRAJECTORY, 1, 1)],
)
def test_an_answer_says_of_how_many_releases_the_guarantee_is(leak, overrides, guaranteed, attacked):
    setting = setting_of(*overrides, "privacy.noise=4", "budget.rounds=17")
    answers = leak.answers(setting, Effort(repetitions=100), KEY)
    assert (answers["releases"], answers["releases_guaranteed"]) == (attacked, guaranteed)
    assert answers["epsilon_claimed"] == setting.bound.epsilon(attacked)


@pytest.mark.training
def test_much_noise_hides_a_canary():
    setting = setting_of(*TRAJECTORY, "privacy.noise=8", "privacy.neighbours=add-or-remove")
    answers = Trajectories().answers(setting, Effort(repetitions=200), KEY)
    assert abs(answers["auc"] - 0.5) <= answers["auc_margin"]
    assert answers["epsilon_at_least"] == 0.0


@pytest.mark.training
@pytest.mark.parametrize(
    ("leak", "overrides"),
    [
        (Trajectories(), [*TRAJECTORY, "privacy.noise=1"]),
        (Participation(), [*AGENT, "privacy.noise=1", "privacy.model=local"]),
    ],
)
def test_what_follows_is_never_more_than_what_is_claimed(leak, overrides):
    setting = setting_of(*overrides)
    each = [leak.answers(setting, Effort(repetitions=800), jax.random.key(run)) for run in range(20)]
    assert all(answers["epsilon_at_least"] <= answers["epsilon_claimed"] for answers in each)
    assert max(answers["epsilon_at_least"] for answers in each) > 1.5


@pytest.mark.training
def test_noise_that_is_left_out_is_found_out():
    """A mechanism that adds a fifth of the noise that it is counted with."""
    setting = setting_of(*TRAJECTORY, "privacy.noise=4")
    weak = dataclasses.replace(setting.federation.protection, noise=0.8)
    broken = dataclasses.replace(setting, federation=dataclasses.replace(setting.federation, protection=weak))
    answers = Trajectories().answers(broken, Effort(repetitions=4000), KEY)
    assert answers["epsilon_at_least"] > answers["epsilon_claimed"]


@pytest.mark.training
def test_releases_of_an_agent_add_up():
    setting = setting_of(*AGENT, "privacy.noise=4")
    one, four = (told_apart(setting, Canary(0.5, False, releases), Effort(), KEY) for releases in (1, 4))
    for answers, apart in ((one, 1 / 4), (four, 2 / 4)):
        assert answers["auc"] == pytest.approx(NormalDist().cdf(apart / 2**0.5), abs=1.5 * answers["auc_margin"])


@pytest.mark.parametrize(
    ("leak", "overrides", "words"),
    [
        (Trajectories(), AGENT, "privacy.unit=agent"),
        (Trajectories(), ["strategy=fedavg", "strategy.batch=4"], "no means over episodes"),
        (Trajectories(), ["strategy=local", "strategy.batch=4"], "send nothing"),
        (Participation(), ["strategy=local", "strategy.batch=4"], "send nothing"),
    ],
)
def test_where_an_attack_does_not_apply_it_says_why(leak, overrides, words):
    source = [x for x in CARTPOLE if not (x.startswith("strategy") and overrides[0].startswith("strategy"))]
    assert words in leak.inapplicable(setting_of(*overrides, source=source))
