"""Rounds under protection: what changes nothing changes nothing, and what is refused says why."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax import api
from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.federation import Cohort
from fedrax.message import Message
from fedrax.runtime.make import make_runtime
from fedrax.strategies.base import strategies

CARTPOLE = [
    *("environment=CartPole-v1", "environment.horizon=20", "federation.agents=3", "budget.rounds=2"),
    *("checkpoint.every=2", "evaluation.every=2", "evaluation.episodes=2", "learner=policy-gradient"),
    *("learner.hidden=[4]", "learner.normalisation=trajectories", "learner.baseline=none", "strategy=gpomdp"),
    "strategy.batch=4",
]
PENDULUM = [
    *("environment=Pendulum-v1", "environment.horizon=20", "environment.num_envs=2", "federation.agents=2"),
    *("budget.rounds=1", "checkpoint.every=1", "evaluation.episodes=2", "learner=td3", "strategy=fedavg"),
    *("learner.actor_layers=[4]", "learner.feature_layers=[4]", "learner.head_layers=[4]"),
    *("learner.batch_size=4", "learner.num_steps=4", "learner.buffer_size=100"),
    "learner.learning_starts=8",
]


def after(*overrides, source=CARTPOLE):
    """The policy that a small run hands out, as a vector."""
    runtime = make_runtime(resolve({}, [*source, *overrides]))
    state = runtime.init()
    runtime.compile(state)
    for latest, _ in runtime.advance(state, 0):
        state = latest
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(runtime.outputs(state))])


def refused(*overrides, source=CARTPOLE):
    """The line that refuses a configuration."""
    with pytest.raises(FedraxError) as error:
        make_runtime(resolve({}, [*source, *overrides]))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.training
@pytest.mark.parametrize("unit", ["agent", "trajectory"])
@pytest.mark.parametrize("model", ["central", "local"])
def test_a_bound_that_nothing_reaches_and_no_noise_change_nothing(unit, model):
    plain = after()
    protected = after(f"privacy.unit={unit}", f"privacy.model={model}", "privacy.clip=1e6")
    np.testing.assert_allclose(protected, plain, atol=1e-6)
    assert np.abs(after("privacy.unit=agent", "privacy.clip=1e-3") - plain).max() > 1e-6


@pytest.mark.training
@pytest.mark.parametrize("engine", ["true", "false"])
def test_noise_is_drawn_anew_in_every_run_of_another_seed(engine):
    noisy = ["privacy.unit=agent", "privacy.clip=1", "privacy.noise=1", f"environment.native={engine}"]
    noisy.append("environment.backend=gymnasium")
    first = after(*noisy)
    np.testing.assert_array_equal(after(*noisy), first)
    assert np.abs(after(*noisy, "privacy.noise=0") - first).max() > 1e-3


@pytest.mark.training
@pytest.mark.parametrize("native", ["true", "false"])
def test_a_clip_moves_in_rounds_and_is_resumed(native, tmp_path):
    """Nothing is as long as 1e3, so it falls by exp(-0.2 / 2) a round; a run that goes on knows where it was."""
    settings = [*CARTPOLE, "privacy.clip=1e3", "privacy.clip_quantile=0.5", f"environment.native={native}"]
    settings += ["environment.backend=gymnasium", "checkpoint.every=1"]
    run = api.train({}, settings, out=tmp_path / "run", progress=False)
    run = api.resume(run.path, ["budget.rounds=3"], progress=False)
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    np.testing.assert_allclose([row["clip"] for row in rows], 1e3 * np.exp(-0.1 * np.arange(3)), rtol=1e-5)


@pytest.mark.training
def test_a_secure_sum_below_its_threshold_is_lost_in_a_simulation_too():
    settings = ["privacy.clip=1", "privacy.secure_sum=true", "privacy.threshold=1.0", "federation.dropout=0.5"]
    settings += ["federation.agents=8", "budget.rounds=1", "checkpoint.every=1", "federation.max_lost_rounds=none"]
    start = after(*settings, "learner.learning_rate=0")
    np.testing.assert_array_equal(after(*settings), start)


@pytest.mark.training
def test_agents_that_do_not_clip_are_clipped_by_the_server():
    """However long an update of theirs, the step of plain descent is no longer than the bound."""
    settings = ["attack=large-noise", "attack.agents=1", "learner.optimizer=sgd"]
    settings += ["learner.learning_rate=1", "budget.rounds=1", "checkpoint.every=1", "evaluation.every=1"]
    start = after("learner.optimizer=sgd", "learner.learning_rate=0", "budget.rounds=1", "checkpoint.every=1")
    bounded = after(*settings, "privacy.clip=0.01")
    assert np.linalg.norm(bounded - start) <= 0.01
    assert np.linalg.norm(after(*settings) - start) > 0.01


@pytest.mark.training
@pytest.mark.parametrize("strategy", [name for name in strategies if strategies[name].averages])
def test_servers_that_average_know_no_more_than_the_mean(strategy):
    """Other updates of the same mean come to the same server: what the strategy declares is true."""
    own = ["strategy.batch=4"] if strategy in ("gpomdp", "svrpg") else []
    own += ["strategy.batch_min=4", "strategy.batch_max=4"] if strategy == "fedpg-br" else []
    source = [x for x in CARTPOLE if not x.startswith("strategy")]
    if not strategies[strategy].means_of_episodes:
        source = PENDULUM
        own += ['strategy.average=["features"]'] if strategy in ("fedper", "fedrep") else []
        own += ["federation.local_updates=2"] if strategy == "fedrep" else []
    runtime = make_runtime(
        resolve({}, [*source, *own, f"strategy={strategy}", "aggregator=mean", "federation.agents=3"])
    )
    federation, key = runtime.federation, jax.random.key(0)
    server = federation.init(key).server
    downlink = federation.broadcast(server, key, jnp.asarray(0))
    shapes, _ = federation.shapes()
    everyone = jnp.ones(3, bool)

    def server_after(weights):
        """From rows that are the same random one, by so much."""
        rows = jax.tree.map(
            lambda x: (
                jnp.asarray(weights).reshape(-1, *[1] * len(x.shape)) * jax.random.normal(key, x.shape)
                if jnp.issubdtype(x.dtype, jnp.floating)
                else jnp.zeros((3, *x.shape), x.dtype)
            ),
            shapes.update,
        )
        beside = jax.tree.map(lambda x: jnp.zeros((3, *x.shape), x.dtype), (shapes.statistics, shapes.individual))
        messages = Message(rows, *beside)
        cohort = Cohort(jnp.arange(3), ~everyone, everyone)
        return jax.tree.leaves(federation.exchange(server, downlink, cohort, messages, key, jnp.asarray(0))[0])

    one, other, longer = (server_after(weights) for weights in ([3.0, 0.0, 0.0], [-1.0, 2.0, 2.0], [3.0, 3.0, 0.0]))
    for x, y in zip(one, other, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
    assert any(not np.allclose(x, y, rtol=1e-4, atol=1e-5) for x, y in zip(one, longer, strict=True))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["privacy.noise=1"], "privacy.unit"),
        (["privacy.epsilon=1"], "privacy.unit"),
        (["privacy.unit=agent"], "privacy.clip"),
        (["privacy.secure_sum=true"], "privacy.clip"),
        (["privacy.unit=agent", "privacy.clip=1", "aggregator=krum"], "aggregator=mean"),
        (["privacy.unit=agent", "privacy.clip=1", "preaggregator=bucketing"], "preaggregator=none"),
        (["privacy.unit=agent", "privacy.clip=1", "privacy.model=distributed"], "privacy.secure_sum"),
        (["privacy.unit=trajectory", "privacy.clip=1", "learner.normalisation=steps"], "normalisation=trajectories"),
        (["privacy.unit=trajectory", "privacy.clip=1", "learner.baseline=average"], "learner.baseline=none"),
        (["privacy.unit=agent", "privacy.clip=1", "strategy=local"], "send nothing"),
        (["privacy.unit=agent", "privacy.clip=1", "privacy.epsilon=1", "privacy.noise=0.1"], "raise privacy.noise"),
        (["privacy.model=local", "privacy.clip=1"], "privacy.unit"),
        (["privacy.clip=1", "privacy.bits=16"], "privacy.secure_sum=true"),
        (["privacy.unit=trajectory", "privacy.clip=1", "privacy.clip_by=layer"], "privacy.clip_by=flat"),
        (["privacy.unit=trajectory", "privacy.clip=1", "privacy.clip_quantile=0.5"], "privacy.unit=agent"),
        (["privacy.clip_quantile=0.5"], "privacy.clip"),
        (["privacy.clip=1", "privacy.clip_noise=5"], "privacy.clip_quantile"),
        (["privacy.clip=1", "privacy.clip_quantile=0.5", "compression=int8"], "compression=none"),
        (["privacy.unit=agent", "privacy.clip=1", "privacy.noise=inf"], "privacy.noise"),
        (
            [
                *("privacy.unit=agent", "privacy.clip=1", "privacy.model=distributed", "privacy.secure_sum=true"),
                *("privacy.noise=1000", "privacy.bits=29"),
            ],
            "set privacy.bits to 18 or less",
        ),
        (
            [
                *("privacy.unit=agent", "privacy.clip=1", "privacy.model=distributed", "privacy.secure_sum=true"),
                *("privacy.noise=1", "learner.hidden=[256, 256]", "privacy.bits=8"),
            ],
            "set privacy.bits to 11 or more",
        ),
        (
            [
                *("privacy.unit=trajectory", "privacy.clip=1", "privacy.model=distributed", "privacy.secure_sum=true"),
                *("privacy.noise=1", "strategy.batch=1000", "privacy.bits=9"),
            ],
            "set privacy.bits to 16 or more",
        ),
        (
            [
                *("privacy.secure_sum=true", "privacy.clip=1", "federation.sampling=poisson"),
                "federation.participation=0.5",
            ],
            "federation.sampling=uniform",
        ),
        (["privacy.unit=agent", "privacy.clip=1e-38", "privacy.noise=1"], "privacy.clip"),
        (["privacy.unit=agent", "privacy.clip=1e40"], "privacy.clip"),
        (["privacy.unit=agent", "privacy.clip=1", "privacy.noise=1e-9"], "1e-06 to 1e+06"),
        (["privacy.unit=agent", "privacy.clip=1", "privacy.epsilon=1e300"], "1e-06 to 1e+06"),
        (
            [
                *("privacy.unit=agent", "privacy.clip=1", "privacy.noise=2", "privacy.clip_quantile=0.5"),
                "privacy.clip_noise=1",
            ],
            "set it to more than 1",
        ),
        (["privacy.clip=1", "privacy.clip_rate=1"], "privacy.clip_quantile"),
        (["privacy.clip_by=layer"], "set privacy.clip"),
        (
            [
                *("privacy.unit=agent", "privacy.clip=1", "privacy.model=local", "privacy.noise=1"),
                "privacy.neighbours=add-or-remove",
            ],
            "privacy.neighbours=replace",
        ),
        (["privacy.unit=transition", "privacy.clip=1"], "'agent' or 'trajectory'"),
        (["privacy.unit=agent", "privacy.clip=0"], "privacy.clip"),
        (["privacy.unit=agent", "privacy.clip=1", "aggregator=fedpg-filter"], "aggregator=mean"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(overrides, words):
    assert words in refused(*overrides)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["privacy.unit=trajectory", "privacy.clip=1"], "privacy.unit=agent"),
        (["privacy.unit=agent", "privacy.clip=1", "learner.normalise=true"], "learner.normalise=false"),
        (["privacy.unit=agent", "privacy.clip=1", "strategy=distillation"], "distillation"),
        (["privacy.unit=agent", "privacy.clip=1", "strategy=clustered"], "clustered"),
        (["privacy.unit=agent", "privacy.clip=1", "strategy.return_temperature=1"], "return_temperature"),
    ],
)
def test_what_off_policy_learners_cannot_have_is_refused_too(overrides, words):
    assert words in refused(*overrides, source=PENDULUM)


def test_robust_rules_work_behind_noise_of_the_agents_own():
    make_runtime(
        resolve({}, [*CARTPOLE, "privacy.unit=agent", "privacy.model=local", "privacy.clip=1", "aggregator=median"])
    )
