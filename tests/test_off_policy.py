"""TD3 in a federation: strategies train, and count what they cost."""

import pytest

import fedrax
from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.runtime.make import make_runtime
from fedrax.runtime.memory import size_text

SMALL = [
    "federation.agents=3",
    "federation.local_updates=8",
    "budget.steps_per_agent=96",
    "evaluation.every=3",
    "evaluation.episodes=2",
    "checkpoint.every=3",
    "learner.batch_size=8",
    "learner.learning_starts=8",
    "learner.buffer_size=64",
    "learner.actor_layers=[8]",
    "learner.feature_layers=[8]",
    "learner.head_layers=[8]",
]


def trained(path, *overrides):
    return fedrax.train("fedtd3/pendulum", [*SMALL, *overrides], out=path, progress=False)


@pytest.mark.training
@pytest.mark.parametrize(
    "overrides",
    [
        ["strategy.version=statistics", "strategy.rank=4"],
        ["strategy=scaffold"],
        ["strategy=moon", "aggregator=median", "attack=sign-flipping", "attack.agents=1"],
        ["strategy=central"],
    ],
)
def test_strategies_train_with_td3(overrides, tmp_path):
    run = trained(tmp_path / "run", *overrides)
    rows = run.metrics()
    assert rows[-1]["agent_steps"] >= 3 * 96
    assert rows[-1]["critic_loss"] is not None
    assert rows[0]["critic_loss"] != rows[-1]["critic_loss"]


@pytest.mark.training
def test_what_is_sent_is_counted(tmp_path):
    bytes_up = {}
    for version in ("sccd", "statistics"):
        run = trained(tmp_path / version, f"strategy.version={version}", "strategy.rank=2", "budget.steps_per_agent=16")
        bytes_up[version] = run.metrics()[-1]["bytes_up"]
    assert bytes_up["statistics"] < bytes_up["sccd"]


def test_replays_that_do_not_fit_are_refused_with_their_size():
    with pytest.raises(FedraxError) as error:
        make_runtime(resolve("fedtd3/pendulum", ["learner.buffer_size=2_000_000_000"]))
    assert "the replays take 360 GB (72 GB for each of 5 agents, times 1 seeds)" in str(error.value)
    assert "lower learner.buffer_size" in str(error.value)
    assert make_runtime(resolve("fedtd3/pendulum", [])).replay_bytes == 5 * 10_000 * 9 * 4


@pytest.mark.parametrize(("count", "text"), [(12, "12 bytes"), (3400, "3.4 kB"), (7.25e9, "7.25 GB"), (2e13, "20 TB")])
def test_sizes_are_readable(count, text):
    assert size_text(count) == text


@pytest.mark.training
@pytest.mark.parametrize("native", ["true", pytest.param("false", marks=pytest.mark.slow)])
def test_however_many_agents_are_computed_together_they_learn_the_same(native, tmp_path):
    """Distillation begins, works and emits per agent; 3 agents are one call, a call of 2 and one of 1, or 3 calls."""
    settings = ["environment=Pendulum-v1", f"environment.native={native}", "learner=td3", "learner.num_steps=2"]
    settings += ["environment.heterogeneity.observation_noise_std=0.1", "environment.num_envs=1", "strategy.epochs=2"]
    settings += ["strategy=distillation"]
    ends = []
    for batch in (3, 2, 1):
        together = f"runtime.agents_per_batch={batch}"
        run = fedrax.train({}, [*SMALL, *settings, together], out=tmp_path / str(batch), progress=False)
        ends.append(run.metrics()[-1])
    assert ends[0]["critic_loss"] > 0
    for end in ends[1:]:
        for name in ("critic_loss", "value", "actor_loss", "agent_returns"):
            assert end[name] == pytest.approx(ends[0][name], rel=2e-3), name
