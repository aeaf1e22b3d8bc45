"""Every agent's networks tested just before and just after those of the next broadcast arrive."""

import jax
import numpy as np
import pytest

import fedrax
from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.report.aggregation import aggregation_table, around_of
from fedrax.report.runs import Group, History, Run
from fedrax.runtime.make import make_runtime

RUN = [
    *("environment=CartPole-v1", "environment.num_envs=2", "environment.horizon=30", "federation.agents=2"),
    *("learner=ppo", "learner.num_steps=16", "learner.hidden=[8]", "learner.learning_rate=0.05", "budget.rounds=4"),
    *("evaluation.every=2", "evaluation.episodes=6", "evaluation.environments=own", "checkpoint.every=2"),
    "evaluation.aggregation=true",
]
NATIVE = "environment.heterogeneity.length=[0.5, 2.0]"
HOST = "environment.heterogeneity.observation_noise_std=[0.0, 0.1]"


def rows(*overrides):
    """One seed's evaluated rows, by name of the metric, and the state after the last of them."""
    runtime = make_runtime(resolve({}, [*RUN, *overrides]))
    state, found = runtime.init(), []
    for first in (0, 2):
        for after, metrics in runtime.advance(state, first):
            state = after
            found.append({name: np.asarray(x)[0, -1] for name, x in metrics.items()})
    runtime.close()
    evaluated = [row for row in found if not np.isnan(row["return"])]
    assert len(evaluated) == 2
    return evaluated, jax.tree.map(lambda x: x[0], state)


@pytest.mark.training
@pytest.mark.parametrize("environment", [(NATIVE,), (HOST, "environment.native=false")])
def test_what_a_shared_policy_replaces_is_tested_beside_it(environment):
    """After the broadcast every agent acts by the average, which the evaluation tests in each one's environment."""
    (_, last), _ = rows("strategy=fedavg", *environment)
    np.testing.assert_allclose(last["agent_returns_after"], last["agent_returns"], rtol=1e-6)
    assert (last["agent_returns_before"] != last["agent_returns"]).any()
    assert last["return_before"] == pytest.approx(np.mean(last["agent_returns_before"]))
    assert last["return_after"] == pytest.approx(np.mean(last["agent_returns_after"]))


@pytest.mark.training
def test_own_policies_are_tested_as_they_were_and_as_they_become():
    """Without averages both are what is handed out; models of clusters arrive after what is handed out was tested."""
    (_, last), _ = rows("strategy=local", NATIVE)
    for when in ("before", "after"):
        np.testing.assert_allclose(last[f"agent_returns_{when}"], last["agent_returns"], rtol=1e-6)
    (_, last), _ = rows("strategy=clustered", "strategy.warmup=100", NATIVE)
    np.testing.assert_allclose(last["agent_returns_before"], last["agent_returns"], rtol=1e-6)
    assert (last["agent_returns_after"] != last["agent_returns"]).any()


@pytest.mark.training
def test_success_and_only_evaluated_rounds_are_recorded(tmp_path):
    run = fedrax.train(
        "td3-her/point-push",
        [
            *('environment.tasks=["PointReach-v0", "PointPush-v0"]', "federation.agents=2", "strategy=fedavg"),
            *("budget.steps_per_agent=none", "budget.rounds=2", "evaluation.every=2", "evaluation.episodes=4"),
            *("checkpoint.every=2", "learner.buffer_size=4000", "evaluation.aggregation=true"),
        ],
        out=tmp_path / "run",
        progress=False,
    )
    first, last = run.metrics()
    assert not [name for name in first if name.endswith(("_before", "_after"))]
    for when in ("before", "after"):
        for kind in ("success", "success_last"):
            assert last[f"{kind}_{when}"] == pytest.approx(np.mean(last[f"agent_{kind}_{when}"]))
    assert fedrax.resume(run.path, ["budget.rounds=3", "evaluation.aggregation=false"], progress=False)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["strategy=central"], "strategy 'central' has one learner for all"),
        (["learner=policy-gradient", "strategy=gpomdp"], "strategy 'gpomdp' averages gradients, and no networks"),
    ],
)
def test_where_no_networks_are_averaged_it_is_refused(overrides, words):
    run = [each for each in RUN if not each.startswith("learner")]
    with pytest.raises(FedraxError, match=words) as caught:
        make_runtime(resolve({}, [*run, *overrides]))
    assert "\n" not in str(caught.value)
    assert "evaluation.aggregation=false" in str(caught.value)


def test_nodes_keep_what_they_learned():
    from fedrax.runtime.distributed.allowed import check_distributed

    config = resolve({}, [*RUN, "strategy=fedavg", "runtime=flower"])
    federation = make_runtime(resolve({}, [*RUN, "strategy=fedavg"])).federation
    with pytest.raises(FedraxError, match=r"evaluation\.aggregation = true is not allowed with runtime=flower"):
        check_distributed(config, federation)


def test_it_makes_no_other_experiment():
    without = resolve({}, [*RUN, "strategy=fedavg", "evaluation.aggregation=false"])
    assert resolve({}, [*RUN, "strategy=fedavg"]).digest() == without.digest()


def group(label, *seeds):
    histories = tuple(History(seed, tuple(rows), 2) for seed, rows in enumerate(seeds))
    return Group(label, (Run("run", {}, {}, {}, histories),))


def around(before, after):
    return {"agent_returns_before": before, "agent_returns_after": after}


def test_the_table_has_the_ends_and_the_mean_change_of_the_last_half():
    seed = [{}, around([9.0, 9.0], [0.0, 0.0]), {}, around([10.0, 4.0], [8.0, 4.0]), around([12.0, 6.0], [8.0, 6.0])]
    other = [around([2.0, 2.0], [2.0, 0.0])]
    before, after, change = around_of(group("a", seed, other), "agent_returns")
    np.testing.assert_array_equal(before, [[12, 6], [2, 2]])
    np.testing.assert_array_equal(after, [[8, 6], [2, 0]])
    np.testing.assert_array_equal(change, [[-3, 0], [0, -2]])
    headings, (line,) = aggregation_table([group("a", seed, other), group("b", [{"return": 1.0}])], "mean")
    assert headings[2:6] == ["before", "after", "change", "change of the agent that loses most"]
    assert line[:2] == ["a", "return"]
    assert [cell.split(" ")[0] for cell in line[2:6]] == ["5.5", "4", "-1.25", "-2.5"]
    assert line[6:] == ["-1.5", "-1.0"]
    assert aggregation_table([group("b", [{"return": 1.0}])], "mean") is None
