"""Each agent takes part in a round by a chance of its own: how many do, and that the others are not there."""

from fractions import Fraction
from math import comb

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.federation import Cohort, Federation
from fedrax.participation import RARE, fewest_participants, most_participants
from fedrax.runtime.library import Programs
from fedrax.runtime.make import make_runtime
from fedrax.runtime.native import NativeRuntime
from fedrax.seeds import derive

POISSON = ("federation.sampling=poisson", "federation.participation=0.5")
SMALL = (
    *("budget.trajectories=none", "budget.rounds=4", "checkpoint.every=1", "evaluation.every=4"),
    *("evaluation.episodes=2", "environment=CartPole-v1", "environment.num_envs=2", "environment.horizon=20"),
)
STEPS = ("strategy=fedavg", "learner=ppo", "learner.num_steps=8", "federation.local_updates=2")
EPISODES = ("strategy=gpomdp", "learner=policy-gradient", "strategy.batch=3")
GYMNASIUM = ("environment.native=false", "environment.backend=gymnasium")
CASES = {
    "native steps": STEPS,
    "native episodes": EPISODES,
    "host steps": (*STEPS, *GYMNASIUM),
    "host episodes": (*EPISODES, *GYMNASIUM),
}


def made(*settings, agents=5):
    return make_runtime(resolve({}, [*SMALL, f"federation.agents={agents}", *settings]))


def one_round(runtime):
    """The state before the first round, the one after it, and its metrics."""
    before = jax.tree.map(np.array, runtime.init())
    *_, (state, rows) = runtime.advance(runtime.init(), 0)
    return before, state, rows


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def forced(monkeypatch, ids, selected):
    """Every round has these places, of which the selected are taken."""

    def cohort(self, key):
        taking = jnp.asarray(selected)
        return Cohort(jnp.asarray(ids), jnp.zeros(len(ids), bool), taking, taking)

    monkeypatch.setattr(Federation, "cohort", cohort)


@pytest.mark.parametrize(("agents", "chance"), [(1, 0.3), (5, 0.5), (40, 0.125), (60, 0.875)])
def test_the_bounds_of_a_rounds_size(agents, chance):
    """Against exact tails of the binomial distribution."""
    q = Fraction(chance)
    mass = [comb(agents, k) * q**k * (1 - q) ** (agents - k) for k in range(agents + 1)]
    above = [sum(mass[k + 1 :]) for k in range(agents + 1)]
    below = [sum(mass[:k]) for k in range(agents + 1)]
    assert most_participants(agents, chance) == next(k for k in range(agents + 1) if above[k] < RARE)
    assert fewest_participants(agents, chance) == max(k for k in range(agents + 1) if below[k] < RARE)


def test_a_round_has_a_place_however_rare_its_use():
    assert most_participants(1, 1e-15) == most_participants(3, 1e-15) == 1


def test_large_federations_are_padded_by_little():
    most = most_participants(1_000_000, 0.001)
    assert 1000 < most < 1300
    assert 700 < fewest_participants(1_000_000, 0.001) < 1000


@pytest.mark.parametrize(("agents", "chance"), [(6, 0.4), (200, 0.05)])
def test_cohorts_are_drawn_agent_by_agent(agents, chance):
    runtime = made("strategy=local", f"federation.participation={chance}", POISSON[0], agents=agents)
    federation, rounds = runtime.federation, 4000
    keys = jax.vmap(lambda index: derive(jax.random.key(0), "round", index))(jnp.arange(rounds))
    cohorts = jax.jit(jax.vmap(federation.cohort))(keys)
    assert cohorts.ids.shape == (rounds, most_participants(agents, chance))
    assert (np.diff(cohorts.ids, axis=1) > 0).all()
    assert not (np.asarray(cohorts.answers) & ~np.asarray(cohorts.selected)).any()
    taking = np.zeros((rounds, agents), bool)
    np.put_along_axis(taking, np.asarray(cohorts.ids), np.asarray(cohorts.selected), 1)
    sizes, deviation = taking.sum(1), np.sqrt(agents * chance * (1 - chance))
    assert sizes.mean() == pytest.approx(agents * chance, abs=5 * deviation / np.sqrt(rounds))
    # The variance of a sample variance is below 2.5 sigma^4 / rounds here.
    assert sizes.var() == pytest.approx(deviation**2, abs=5 * np.sqrt(2.5 / rounds) * deviation**2)
    each = np.sqrt(chance * (1 - chance) / rounds)
    np.testing.assert_allclose(taking.mean(0), chance, atol=5 * each)
    together = (taking[:, 0] & taking[:, -1]).mean()
    assert together == pytest.approx(chance**2, abs=5 * chance / np.sqrt(rounds))


def test_with_everyone_it_is_the_same_as_uniform():
    federation = made(*STEPS, "federation.sampling=poisson").federation
    assert federation.chance is None
    assert federation.participants == 5


@pytest.mark.training
@pytest.mark.parametrize("case", CASES)
def test_who_does_not_take_part_is_not_touched(case):
    runtime = made(*CASES[case], *POISSON)
    cohort = runtime.federation.cohort(derive(jax.random.key(0), "round", 0))
    taking = np.zeros(5, bool)
    taking[np.asarray(cohort.ids)[np.asarray(cohort.selected)]] = True
    assert 0 < taking.sum() < 5
    before, state, rows = one_round(runtime)

    def idle(tree):
        return jax.tree.map(lambda x: np.array(x[0])[~taking], tree)

    equal(idle((state.agents, state.environments)), idle((before.agents, before.environments)))
    if case == "host steps":
        groups = runtime.seed_environments[0].agents.collector.groups
        assert [group.observation is not None for group in groups] == taking.tolist()
    assert rows["participants"][0, 0] == rows["present"][0, 0] == taking.sum()
    assert (~np.isnan(rows["agent_train_success"][0, 0]) <= taking).all()
    assert rows["agent_steps"][0, 0] > 0
    runtime.close()


@pytest.mark.training
@pytest.mark.parametrize("case", ["native episodes", "host steps"])
def test_who_only_fills_a_place_changes_nothing(case, monkeypatch):
    """A round of three places, one of them empty, is that of two agents; the server counts the same."""
    results = []
    for ids, selected, participants in (([0, 2, 3], [True, False, True], 3), ([0, 3], [True, True], 2)):
        forced(monkeypatch, ids, selected)
        runtime = made(*CASES[case], *POISSON)
        object.__setattr__(runtime.federation, "participants", participants)
        if isinstance(runtime, NativeRuntime):
            runtime.prepare(Programs())
        results.append(one_round(runtime)[1:])
        runtime.close()
    (state, rows), (expected, wanted) = results
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
        (state.server, state.agents.params, state.tally),
        (expected.server, expected.agents.params, expected.tally),
    )
    for name in rows.keys() - {"seconds"}:
        np.testing.assert_allclose(rows[name], wanted[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.training
@pytest.mark.parametrize("case", CASES)
def test_a_round_of_nobody_changes_nothing(case, monkeypatch):
    forced(monkeypatch, range(5), [False] * 5)
    runtime = made(*CASES[case], *POISSON)
    before, state, rows = one_round(runtime)
    runtime.close()
    # The rounds that a server counts go on.
    servers = [eqx.filter(server, eqx.is_inexact_array_like) for server in (state.server, before.server)]
    equal(*servers)
    equal(jax.tree.map(np.array, state.agents), before.agents)
    assert [int(x[0]) for x in jax.tree.leaves(state.tally)] == [1, 0, 0, 0, 0]
    counted = ("present", "accepted", "participants", "agent_steps", "agent_trajectories")
    assert {name: int(rows[name][0, 0]) for name in counted} == dict.fromkeys(counted, 0)
    assert not rows["excluded"].any()
    assert not rows["dropped"].any()


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        (("strategy=central",), "one learner has all agents' environments"),
        (("strategy=fedavg", "attack=alie", "attack.agents=1"), "attack 'alie', which reckons with the honest"),
        (
            ("strategy=gpomdp", "aggregator=krum", "attack=random-noise", "attack.agents=1"),
            "may leave 1 of the agents in a round: aggregator 'krum' needs",
        ),
    ],
)
def test_what_cannot_be_is_one_line(settings, what):
    with pytest.raises(FedraxError, match=what) as error:
        made(*settings, *POISSON)
    assert "\n" not in str(error.value)


def test_a_rule_whose_bound_holds_for_the_fewest_is_taken():
    settings = ("strategy=gpomdp", "aggregator=krum", "attack=sign-flipping", "attack.agents=3")
    federation = made(*settings, *POISSON, agents=100).federation
    assert fewest_participants(100, 0.5) >= 2 * 3 + 3
    assert federation.aggregator.f == 3
    with pytest.raises(FedraxError, match="krum"):
        made(*settings[:-1], "attack.agents=20", *POISSON, agents=100)
