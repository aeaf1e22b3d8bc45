"""Where policies are evaluated: everybody's in every agent's environment where these differ."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedrax
from fedrax.cli import main
from fedrax.config import resolve
from fedrax.environments.actions import TransformActions
from fedrax.environments.native.pendulum import Pendulum
from fedrax.environments.native_collector import episode_returns
from fedrax.errors import FedraxError
from fedrax.evaluation.pairs import Evaluation, choose_pairs, full_pairs, scores
from fedrax.printing import evaluation_lines
from fedrax.runtime.counters import Counters
from fedrax.runtime.make import make_runtime

GRAVITIES = (2.0, 10.0, 18.0)
SMALL = [
    "environment=Pendulum-v1",
    f"environment.heterogeneity.g={list(GRAVITIES)}",
    "environment.num_envs=2",
    "environment.horizon=30",
    "learner=ppo",
    "learner.hidden=[8]",
    "learner.num_steps=8",
    "learner.update_epochs=1",
    "learner.learning_rate=0.05",
    "federation.agents=3",
    "budget.rounds=4",
    "checkpoint.every=4",
    "evaluation.episodes=6",
    "evaluation.every=2",
]


@pytest.fixture(scope="module", params=["fedavg", "local"])
def run(request, tmp_path_factory):
    """Three pendulums under different gravity; one policy for all, or one of each."""
    out = tmp_path_factory.mktemp(request.param) / "run"
    return fedrax.train({}, [*SMALL, f"strategy={request.param}"], seeds=2, out=out, progress=False)


def by_hand(run, policy, gravity, episodes=2):
    """Mean return of one policy in one pendulum, from the run's evaluation seed."""
    learner = run.config.component("learner")
    environment = TransformActions(Pendulum(), learner.actions(Pendulum.spaces))
    physics = environment.physics() | {"g": gravity}
    act = jax.jit(lambda observation: learner.act(learner.acting(policy), observation, None))
    key = jax.random.key(run.config.evaluation.seed)
    measured = episode_returns(
        environment, physics, lambda observation, _: act(observation), key, episodes=episodes, horizon=30
    )
    return float(measured["return"].mean())


def table_by_hand(run, policy):
    """``[policies, environments]``; a shared policy is one row."""
    if run.config.strategy["kind"] == "fedavg":
        return np.array([[by_hand(run, policy, gravity) for gravity in GRAVITIES]])
    each = [jax.tree.map(lambda x, k=k: x[k], policy) for k in range(3)]
    return np.array([[by_hand(run, one, gravity) for gravity in GRAVITIES] for one in each])


@pytest.mark.training
def test_every_policy_is_evaluated_in_every_agents_environment(run):
    """One yardstick: FedAvg's policy and agents' own are measured on the same three pendulums, six episodes each."""
    assert run.config.evaluation.environments == "all"
    for seed, policy in run.policies().items():
        expected = table_by_hand(run, policy)
        row = [row for row in run.metrics() if row["seed"] == seed][-1]
        shared = len(expected) == 1
        agents = expected[0] if shared else expected.mean(1)
        assert row["return"] == pytest.approx(expected.mean(), rel=1e-4)
        assert row["agent_returns"] == pytest.approx(agents.tolist(), rel=1e-4)
        assert row["return_worst"] == pytest.approx(agents.min(), rel=1e-4)
        assert ("agent_own_returns" in row) is not shared
        if not shared:
            assert row["agent_own_returns"] == pytest.approx(np.diag(expected).tolist(), rel=1e-4)
        again = run.evaluate(episodes=6)[seed]
        np.testing.assert_allclose(again.returns.mean(-1), expected[0] if shared else expected, rtol=1e-4)
        assert again.returns.shape[-1] == 2, "six episodes spread over three environments"
        np.testing.assert_allclose(again.agents, agents, rtol=1e-4)
        assert np.ptp(expected, axis=1).min() > 1, "gravity tells"


@pytest.mark.training
def test_best_is_chosen_by_the_same_measure(run):
    for index, (seed, policy) in enumerate(run.policies("best").items()):
        returns = [row["return"] for row in run.metrics() if row["seed"] == seed and "return" in row]
        assert len(returns) == 2
        assert run.summary()["best_return"][index] == max(returns)
        assert table_by_hand(run, policy).mean() == pytest.approx(max(returns), rel=1e-4)


def test_a_summary_names_seeds_and_the_worst_agent(run, capsys):
    summary = json.loads((run.path / "summary.json").read_text())
    last = {row["seed"]: row for row in run.metrics()}
    for index, seed in enumerate((0, 1)):
        assert summary["by_seed"][str(seed)] == {
            name: summary[name][index] for name in ("final_return", "final_return_worst", "best_return")
        }
        assert summary["final_return_worst"][index] == pytest.approx(last[seed]["return_worst"], rel=1e-5)
    assert main(["resume", str(run.path), "--quiet"]) == 0
    printed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert printed["seeds"] == "0, 1; where a line has several values, one of each seed"
    assert printed["final_return_worst"] == ", ".join(f"{last[seed]['return_worst']:,.1f}" for seed in (0, 1))
    assert printed["rounds"] == "4, 4"
    assert printed["evaluated"].endswith("every agent's environment")


@pytest.mark.training
def test_own_and_registered_are_there_on_request(run, capsys):
    policy = run.policies()[1]
    expected = table_by_hand(run, policy)
    own = run.evaluate(episodes=2, environments="own")[1]
    assert own.returns.shape == (3, 2)
    diagonal = expected[0] if len(expected) == 1 else np.diag(expected)
    np.testing.assert_allclose(own.returns.mean(1), diagonal, rtol=1e-4)
    registered = run.evaluate(episodes=2, environments="registered")[1]
    np.testing.assert_allclose(registered.returns.mean(-1), expected[..., 1].squeeze(), rtol=1e-4)
    assert main(["evaluate", str(run.path), "--episodes", "6"]) == 0
    shown = capsys.readouterr().out
    assert f"seed 1: return {expected.mean():.2f}" in shown
    agents = expected[0] if len(expected) == 1 else expected.mean(1)
    assert f"worst {agents.min():.2f}" in shown


def test_rounds_without_an_evaluation_record_none(run):
    first = run.metrics()[0]
    assert not {"return", "return_worst", "agent_returns", "agent_own_returns", "episode_length"} & set(first)


def test_what_a_checkpoint_does_not_know_yet_is_not_a_number():
    """JSON has no NaN, and a run without agents to tell apart never has a worst one."""
    restored = Counters.restored({"rounds": 3, "final_return": None, "best_return": None, "final_worst": None})
    assert all(math.isnan(value) for value in (restored.final_return, restored.best_return, restored.final_worst))
    restored.note({"return": 2.0, "episode_length": 1.0})
    assert (restored.final_return, restored.best_return) == (2.0, 2.0)


HETEROGENEOUS = "environment.heterogeneity.m=[0.5, 1.0, 2.0]"


@pytest.mark.parametrize(
    ("overrides", "where"),
    [
        (["strategy=fedavg", HETEROGENEOUS], "all"),
        (["strategy=local", HETEROGENEOUS], "all"),
        (["strategy=central", HETEROGENEOUS], "all"),
        (["strategy=fedavg"], "registered"),
        (["strategy=local"], "registered"),
        (["strategy=local", HETEROGENEOUS, "evaluation.environments=own"], "own"),
        (["strategy=fedavg", HETEROGENEOUS, "runtime=flower"], "all"),
        (["strategy=local", HETEROGENEOUS, "runtime=flower"], "own"),
        (["strategy=local", "runtime=flower"], "own"),
    ],
)
def test_the_default_is_one_measure_for_all_strategies(overrides, where):
    table = {"environment": {"id": "Pendulum-v1"}, "learner": {"kind": "ppo"}, "federation": {"agents": 3}}
    config = resolve(table, ["budget.rounds=1", *overrides])
    assert config.evaluation.environments == where
    assert f'environments = "{where}"' in config.to_toml()


@pytest.mark.parametrize(
    ("strategy", "former", "heterogeneity", "where"),
    [
        ("fedavg", False, {"m": [0.5, 1.0]}, "registered"),
        ("fedavg", True, {"m": [0.5, 1.0]}, "own"),
        ("local", False, {"m": [0.5, 1.0]}, "own"),
        ("local", True, {"m": [0.5, 1.0]}, "own"),
        ("central", False, {"m": [0.5, 1.0]}, "registered"),
        ("fedavg", False, {}, "registered"),
        ("local", False, {}, "registered"),
    ],
)
def test_runs_of_earlier_versions_are_read_as_what_they_measured(strategy, former, heterogeneity, where):
    table = {
        "environment": {"id": "Pendulum-v1", "heterogeneity": heterogeneity},
        "learner": {"kind": "ppo"},
        "federation": {"agents": 2},
        "strategy": {"kind": strategy},
        "evaluation": {"per_agent": former},
        "budget": {"rounds": 1},
    }
    assert resolve(table).evaluation.environments == where


def test_the_former_option_is_refused_by_its_new_name():
    with pytest.raises(
        FedraxError, match=r"the option is now evaluation.environments; set evaluation.environments=own"
    ):
        resolve({}, ["budget.rounds=1", "evaluation.per_agent=true"])


@given(
    agents=st.integers(1, 40),
    episodes=st.integers(1, 50),
    seed=st.integers(0, 2**31 - 1),
    personal=st.booleans(),
)
def test_pairs_are_balanced(agents, episodes, seed, personal):
    pairs = choose_pairs("all", personal=personal, agents=agents, episodes=episodes, seed=seed)
    counted = pairs.environments[:, list(pairs.counted)]
    policies, met = counted.shape
    assert policies == (agents if personal else 1)
    assert met == (min(agents, episodes) if personal else agents)
    assert met * (pairs.episodes - 1) < max(episodes, met) <= met * pairs.episodes, "no more than it takes"
    assert all(len(set(row)) == met for row in counted), "no environment twice"
    visits = np.bincount(counted.ravel(), minlength=agents)
    assert set(visits) == {met if personal else 1}, "every environment meets equally many policies"
    if personal and pairs.own is not None:
        np.testing.assert_array_equal(pairs.environments[np.arange(agents), pairs.own], np.arange(agents))
    same = choose_pairs("all", personal=personal, agents=agents, episodes=episodes, seed=seed)
    np.testing.assert_array_equal(pairs.environments, same.environments)


def test_nobodys_own_environment_is_favoured():
    """Twenty agents meet five environments each: over seeds, every offset is drawn about a quarter of the time."""
    drawn = [choose_pairs("all", personal=True, agents=20, episodes=5, seed=seed) for seed in range(400)]
    offsets = np.concatenate([pairs.environments[0, list(pairs.counted)] for pairs in drawn])
    counts = np.bincount(offsets, minlength=20)
    assert counts.sum() == 2000
    assert np.abs(counts - 100).max() < 40, "four standard deviations"


@pytest.mark.parametrize(
    ("shape", "personal", "asked", "said"),
    [
        ((3,), False, 3, None),
        ((2, 2), False, 4, None),
        ((2, 2), False, 3, "4 episodes of the policy where 3 were asked for: as many in each of 2 environments, 2"),
        ((5, 3), True, 3, None),
        ((5, 2, 2), True, 3, "4 episodes of each policy where 3 were asked for: as many in each of 2 environments, 2"),
    ],
)
def test_more_episodes_than_were_asked_for_are_explained(shape, personal, asked, said):
    result = Evaluation({"return": np.zeros(shape), "length": np.ones(shape)})
    lines = [line.strip() for line in evaluation_lines(0, result, personal=personal, asked=asked)]
    assert (said in lines) is (said is not None)
    assert any("were asked for" in line for line in lines) is (said is not None)


@pytest.mark.parametrize(("shape", "said"), [((3, 2), True), ((3,), False)])
def test_agents_tasks_are_named_where_agents_have_values(shape, said):
    result = Evaluation({"return": np.zeros(shape), "length": np.ones(shape)})
    lines = evaluation_lines(0, result, personal=True, asked=2, tasks=["PointReach-v0", "PointPush-v0"])
    assert ("  agents have the tasks in turn: PointReach-v0, PointPush-v0" in list(lines)) is said
    assert not any("tasks" in line for line in evaluation_lines(0, result, personal=True, asked=2))


def test_scores_leave_out_an_own_environment_that_was_not_drawn():
    """Two of three environments are drawn, and each agent's own is measured beside them."""
    seed = next(
        seed
        for seed in range(100)
        if 0 not in choose_pairs("all", personal=True, agents=3, episodes=2, seed=seed).counted
    )
    pairs = choose_pairs("all", personal=True, agents=3, episodes=2, seed=seed)
    assert pairs.counted == (1, 2)
    truth = np.array([[100.0, 1, 2], [3, 100, 4], [5, 6, 100]])
    returns = np.take_along_axis(truth, pairs.environments, axis=1)[..., None]
    found = scores({"return": returns, "length": np.ones_like(returns)}, pairs)
    assert found["return"] == pytest.approx(21 / 6)
    np.testing.assert_allclose(found["agent_returns"], [1.5, 3.5, 5.5])
    assert found["return_worst"] == 1.5
    np.testing.assert_array_equal(found["agent_own_returns"], [100, 100, 100])


def test_all_pairs_by_policy_and_environment():
    truth = jnp.array([[1.0, 2.0], [3.0, 8.0]])[..., None]
    table = {"return": truth, "length": truth, "success": truth > 2}
    found = scores(table, full_pairs(2, 2, 1, personal=True), mean=jnp.mean, least=jnp.min)
    assert float(found["return"]) == 3.5
    np.testing.assert_allclose(found["agent_returns"], [1.5, 5.5])
    np.testing.assert_allclose(found["agent_own_returns"], [1.0, 8.0])
    np.testing.assert_allclose(found["agent_success"], [0.0, 1.0])
    np.testing.assert_allclose(found["agent_own_success"], [0.0, 1.0])


@pytest.mark.training
def test_what_was_evaluated_before_goes_on_alike(tmp_path):
    """A run whose config.toml an earlier version wrote still loads, and is evaluated as it was."""
    run = fedrax.train({}, [*SMALL, "strategy=local", "budget.rounds=1"], out=tmp_path / "run", progress=False)
    path = run.path / "config.toml"
    path.write_text(path.read_text().replace('environments = "all"', "per_agent = false"))
    former = fedrax.load(run.path)
    assert former.config.evaluation.environments == "own"
    assert former.evaluate(episodes=2)[0].returns.shape == (3, 2)


def test_one_measure_on_host_environments_too():
    """As natively: by policy and environment, whether all at once or one policy after the other."""
    from fedrax.runtime import host

    settings = [text for text in SMALL if "heterogeneity" not in text]
    settings += ["environment.native=false", "environment.heterogeneity.observation_noise_mean=[0.0, 1.0, -1.0]"]
    runtime = make_runtime(resolve({}, [*settings, "strategy=local", "environment.horizon=5"]))
    policies = jax.tree.map(lambda x: x[0], runtime.outputs(runtime.init()))
    together = runtime.evaluate(policies, episodes=6, seed=3)
    across = runtime.evaluate_across(policies, episodes=2, seed=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host, "TOGETHER", 1)
        apart = runtime.evaluate(policies, episodes=6, seed=3)
    own = runtime.evaluate_pairs(policies, choose_pairs("own", personal=True, agents=3, episodes=2, seed=3), seed=3)
    runtime.close()
    assert together.returns.shape == (3, 3, 2)
    np.testing.assert_allclose(together.returns, across.returns, rtol=1e-5)
    np.testing.assert_allclose(together.returns, apart.returns, rtol=1e-5)
    np.testing.assert_allclose(together.own, own["return"][:, 0], rtol=1e-5)
    assert len(np.unique(together.returns)) == 18
