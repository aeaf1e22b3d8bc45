"""Runs that start from an earlier run's networks, by learner, strategy, seed and agent; and policies that are kept."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedrax
from fedrax.cli import main
from fedrax.errors import FedraxError
from fedrax.learners.base import Learner
from fedrax.learners.moments import Moments, Normaliser
from fedrax.records.checkpoint import save_policy
from fedrax.records.manifest import check_unchanged
from fedrax.records.rundir import RunDirectory
from fedrax.runtime.continuation import begin_manifest
from fedrax.runtime.initial import initial_networks, start_from
from fedrax.runtime.make import make_runtime

NATIVE = ["environment.num_envs=2", "environment.horizon=10", "evaluation.episodes=2", "budget.rounds=2"]
TD3 = [
    *("environment=PointReach-v0", "learner=td3", "learner.actor_layers=[8]", "learner.feature_layers=[8]"),
    *("learner.head_layers=[8]", "learner.num_steps=2", "learner.buffer_size=100", "federation.agents=2"),
    "learner.learning_starts=8",
]
PPO = ["environment=CartPole-v1", "learner=ppo", "learner.hidden=[8]", "learner.num_steps=8", "federation.agents=2"]
EPISODES = ["environment=CartPole-v1", "learner.hidden=[8]", "federation.agents=2", "strategy.batch=2"]
HOST = ["environment.native=false", "environment.backend=gymnasium"]
SETUPS = {
    "td3 fedavg": [*TD3, "strategy=fedavg"],
    "td3 local": [*TD3, "strategy=local"],
    "td3 fedper": [*TD3, "strategy=fedper", 'strategy.average=["features"]'],
    "td3 scaffold": [*TD3, "strategy=scaffold"],
    "td3 targets averaged": [*TD3, "strategy=fedavg", "strategy.average_targets=true"],
    "td3 distillation": [*TD3, "strategy=distillation"],
    "td3 central": [*TD3, "strategy=central"],
    "td3 normalised": [*TD3, "strategy=fedavg", "learner.normalise=true"],
    "ppo fedavg": [*PPO, "strategy=fedavg"],
    "ppo neighbours": [*PPO, "strategy=neighbours"],
    "ppo host": [*PPO, "strategy=fedavg", *HOST],
    "gradients": [*EPISODES, "strategy=gpomdp"],
    "variance reduced": [
        *EPISODES[:3],
        *("strategy=fedpg-br", "strategy.batch_min=2", "strategy.batch_max=2", "strategy.minibatch=1"),
    ],
}


def config_of(*settings):
    return fedrax.resolve({}, [*NATIVE, *settings])


def network_of(config, seed=7):
    """Fresh networks of the configuration's learner, which no run of these tests draws."""
    runtime = make_runtime(config)
    params = runtime.federation.learner.init_params(jax.random.key(seed), runtime.federation.spaces)
    runtime.close()
    return params


def saved(path, params, *axes):
    save_policy(path, jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (*axes, *x.shape)), params))
    return path


def started(config):
    runtime = make_runtime(config)
    try:
        return runtime, start_from(runtime, initial_networks(config, runtime.federation))
    finally:
        runtime.close()


def assert_equal(ours, theirs):
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    for mine, other in pairs:
        np.testing.assert_array_equal(np.asarray(mine), np.broadcast_to(np.asarray(other), mine.shape))


@pytest.mark.training
@pytest.mark.parametrize("setup", SETUPS)
def test_all_agents_start_from_the_networks(setup, tmp_path):
    settings = [*SETUPS[setup], "seeds=2"]
    network = network_of(config_of(*settings))
    path = saved(tmp_path / "policy.safetensors", network, 1)
    runtime, state = started(config_of(*settings, f"learner.initial={path}"))
    assert_equal(runtime.outputs(state), network)
    if setup.startswith("td3"):
        assert_equal(state.agents.params, network)
        assert_equal(state.agents.memory.target, network)
    fresh = runtime.init()
    assert_equal(state.agents.optimizer, fresh.agents.optimizer)
    different = [
        not np.array_equal(x, y)
        for x, y in zip(jax.tree.leaves(fresh.agents.params), jax.tree.leaves(state.agents.params), strict=True)
    ]
    assert any(different) or "gradients" in setup or "variance" in setup


def test_policies_of_agents_are_theirs(tmp_path):
    config = config_of(*SETUPS["td3 local"])
    network = network_of(config)
    each = jax.tree.map(lambda x: np.stack([np.asarray(x), 2 * np.asarray(x)])[None], network)
    save_policy(tmp_path / "each.safetensors", each)
    _, state = started(config_of(*SETUPS["td3 local"], f"learner.initial={tmp_path}/each.safetensors"))
    assert_equal(state.agents.params, each)


def test_policies_of_seeds_are_theirs(tmp_path):
    network = network_of(config_of(*SETUPS["ppo fedavg"]))
    each = jax.tree.map(lambda x: np.stack([np.asarray(x), 2 * np.asarray(x)]), network)
    save_policy(tmp_path / "each.safetensors", each)
    settings = [*SETUPS["ppo fedavg"], f"learner.initial={tmp_path}/each.safetensors"]
    runtime, state = started(config_of(*settings, "seeds=2"))
    assert_equal(runtime.outputs(state), each)
    with pytest.raises(FedraxError, match="holds policies of 2 seeds, and this run has 3"):
        started(config_of(*settings, "seeds=3"))


@pytest.mark.parametrize(
    ("setup", "axes", "changes", "why"),
    [
        ("td3 fedavg", (1, 2), [], "policies of 2 agents, and agents of strategy 'fedavg' start alike"),
        ("td3 local", (1, 3), [], "policies of 3 agents, and this run has 2 that learn"),
        ("td3 local", (1,), ["learner.actor_layers=[9]"], r"\.actor\.layers\[0\]\.weight is float32\[8, 6\] there and"),
        ("td3 local", (1,), ["learner.normalise=true"], r"\.normaliser.* is in the other alone"),
    ],
)
def test_other_networks_are_refused_in_one_line(setup, axes, changes, why, tmp_path):
    path = saved(tmp_path / "p.safetensors", network_of(config_of(*SETUPS[setup])), *axes)
    with pytest.raises(FedraxError, match=why) as error:
        started(config_of(*SETUPS[setup], *changes, f"learner.initial={path}"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "there is no run at"),
        (lambda path: path.mkdir(), "is not a run"),
        (lambda path: path.write_text("no policy"), "is damaged"),
    ],
)
def test_what_is_no_policy_is_refused_in_one_line(make, why, tmp_path, capsys):
    make(tmp_path / "policy")
    words = [*NATIVE, *SETUPS["td3 local"], f"learner.initial={tmp_path}/policy", "--out", str(tmp_path / "run")]
    assert main(["train", *words, "--quiet"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert why in line
    assert not (tmp_path / "run" / "config.toml").exists()


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    network = jax.tree.map(lambda x: np.full(x.shape, np.nan, x.dtype), network_of(config_of(*SETUPS["td3 local"])))
    path = saved(tmp_path / "p.safetensors", network, 1)
    with pytest.raises(FedraxError, match="numbers that are not finite"):
        started(config_of(*SETUPS["td3 local"], f"learner.initial={path}"))


def test_a_run_that_begins_again_starts_from_the_same_networks(tmp_path):
    network = network_of(config_of(*SETUPS["td3 local"]))
    path = saved(tmp_path / "p.safetensors", network, 1)
    directory = RunDirectory.create(tmp_path / "run")
    begin_manifest(directory, config_of(*SETUPS["td3 local"]), files=[path])
    check_unchanged(directory, [path])
    saved(path, jax.tree.map(lambda x: x + 1, network), 1)
    with pytest.raises(FedraxError, match=r"has changed since, .*; restore it, or start a new run"):
        check_unchanged(directory, [path])


def test_a_learner_that_draws_its_own_networks_is_refused(tmp_path, monkeypatch):
    """As a plugin may that does not know of ``first_params``."""
    path = saved(tmp_path / "p.safetensors", network_of(config_of(*SETUPS["td3 local"])), 1)
    monkeypatch.setattr(Learner, "first_params", lambda self, key, spaces: self.init_params(key, spaces))
    with pytest.raises(FedraxError, match=r"learner\.initial is not allowed with learner 'td3' and strategy 'local'"):
        started(config_of(*SETUPS["td3 local"], f"learner.initial={path}"))


def test_nodes_draw_their_own():
    from fedrax.runtime.distributed.allowed import check_distributed

    config = config_of(*SETUPS["td3 fedavg"], "learner.initial=somewhere")
    with pytest.raises(FedraxError, match=r"learner\.initial is not allowed with runtime=flower"):
        check_distributed(config, make_runtime(config).federation)


def test_a_relative_path_in_a_file_is_relative_to_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    file = tmp_path / "sub" / "run.toml"
    file.write_text('budget.rounds = 1\n[learner]\nkind = "ppo"\n[learner.ppo]\ninitial = "earlier"\n')
    assert fedrax.resolve(file).learner["initial"] == str(tmp_path / "sub" / "earlier")
    assert fedrax.resolve(file, ["learner.initial=other"]).learner["initial"] == str(tmp_path / "other")
    assert fedrax.resolve(file, ["learner.initial=none"]).learner["initial"] is None


def test_moments_that_others_start_from_are_merged():
    """By hand: 1 and 3 received, 8 observed since: three observations of mean 4."""
    received, own = (Moments.of(jnp.array([[x] for x in xs]), jnp.ones(len(xs), bool)) for xs in ([1.0, 3.0], [8.0]))
    settled = Normaliser(received, own).settled()
    np.testing.assert_allclose([settled.shared.count[0], settled.shared.mean[0], settled.own.count[0]], [3, 4, 0])
    np.testing.assert_allclose(settled.shared.spread[0], 9 + 1 + 16)


@pytest.mark.training
def test_training_starts_there_and_keeps_the_policy_of_every_checkpoint(tmp_path, capsys):
    """Without learning, what is kept is what the run started from; the file may be gone when it is resumed."""
    settings = [*NATIVE, *SETUPS["ppo fedavg"], "learner.learning_rate=0", "checkpoint.every=1"]
    first = fedrax.train({}, settings, out=tmp_path / "first", progress=False)
    assert not first.directory.policies.exists()
    again = [*settings, "seed=5", f"learner.initial={first.path}", "checkpoint.keep_policies=true"]
    second = fedrax.train({}, again, out=tmp_path / "second", progress=False)
    (policy,) = first.policies().values()
    assert_equal(second.policies()[5], policy)
    assert second.directory.kept_rounds() == [1, 2]
    assert_equal(second.policies(1)[5], policy)

    shutil.rmtree(first.path)
    resumed = fedrax.resume(second.path, ["budget.rounds=3"], progress=False)
    assert resumed.directory.kept_rounds() == [1, 2, 3]
    assert main(["evaluate", str(second.path), "--policy", "2", "--episodes", "2"]) == 0
    assert "seed 5: return" in capsys.readouterr().out
    assert main(["evaluate", str(second.path), "--policy", "9"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "holds no policy after 9 rounds; kept are those after 1, 2, 3" in line


@pytest.mark.training
def test_what_is_kept_is_the_policy_of_that_round(tmp_path):
    settings = [*NATIVE, *SETUPS["ppo fedavg"], "checkpoint.every=1", "checkpoint.keep_policies=true"]
    two = fedrax.train({}, settings, out=tmp_path / "two", progress=False)
    one = fedrax.train({}, [*settings, "budget.rounds=1"], out=tmp_path / "one", progress=False)
    assert_equal(two.policies(1)[0], one.policies()[0])
    assert_equal(two.policies(2)[0], two.policies()[0])
