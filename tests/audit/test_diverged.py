"""Audits of networks that are no numbers any more: every attack that looks at them says so in one line."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from fedrax.audit.auditing import LEAKS, result_of
from fedrax.audit.base import Effort
from fedrax.audit.sight import check_finite
from fedrax.errors import FedraxError
from fedrax.message import is_real

from audited import FORCES, PENDULUM, setting_of

LITTLE = Effort(repetitions=100, shadows=12, steps=4, iterations=3, restarts=1)


def diverged(*overrides, **source):
    setting = setting_of(*overrides, **source)

    def lost(x):
        return jnp.full_like(x, jnp.nan) if is_real(x) else x

    server, agents = jax.tree.map(lost, (setting.server, setting.agents))
    return dataclasses.replace(setting, server=server, agents=agents)


def attacked(setting, *ids):
    return {leak.id: result_of(leak, setting, LITTLE, 0, lambda text: None) for leak in LEAKS if leak.id in ids}


def test_what_is_not_finite_is_refused():
    check_finite({"a": jnp.zeros(2), "b": jnp.arange(3)})
    with pytest.raises(FedraxError, match="messages hold numbers that are not finite, as after a training that"):
        check_finite({"a": jnp.zeros(2), "b": jnp.array([0, jnp.inf])})


def test_no_episode_is_made_again_from_a_message_that_is_not_finite():
    assert "not finite" in attacked(diverged(), "A3")["A3"]["inapplicable"]


@pytest.mark.training
def test_a_round_that_its_agent_lost_is_not_compared():
    setting = setting_of("learner.learning_rate=1e38", source=PENDULUM)
    assert "not finite" in attacked(setting, "A6")["A6"]["inapplicable"]


@pytest.mark.training
def test_no_attack_takes_what_is_not_finite_for_a_finding():
    results = attacked(diverged(FORCES), "A3", "A4") | attacked(diverged(source=PENDULUM), "A7")
    assert {id: "not finite" in result.get("inapplicable", "") for id, result in results.items()} == {
        "A3": True,
        "A4": True,
        "A7": True,
    }
    # Canaries take the place of all that the networks say.
    assert attacked(diverged(), "A2")["A2"]["answers"]["auc"] == 1.0


@pytest.mark.training
def test_no_word_is_read_from_what_is_not_finite():
    pytest.importorskip("minigrid")
    grid = ["environment=MiniGrid-GoToDoor-6x6-v0", "environment.mission=true", "environment.backend=gymnasium"]
    assert "not finite" in attacked(diverged(*grid), "A5")["A5"]["inapplicable"]
