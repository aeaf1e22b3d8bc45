"""A run whose learning rate falls over its budget says that it rises again where the budget grows."""

import json

import pytest

from fedrax.config import resolve
from fedrax.records.rundir import RunDirectory
from fedrax.runtime.continuation import continued

RISES = "the learning rate rises again, to {} of learner.learning_rate"


@pytest.mark.parametrize(
    ("settings", "override", "said"),
    [
        (["learner=ppo", "learner.anneal_learning_rate=true"], "budget.steps_per_agent=2500", RISES.format("60%")),
        (["learner=ppo", "learner.anneal_learning_rate=true"], "evaluation.every=2", None),
        (["learner=ppo", "learner.anneal_learning_rate=false"], "budget.steps_per_agent=2500", None),
        (["learner=sac-discrete"], "budget.steps_per_agent=2500", None),
    ],
)
def test_a_learning_rate_that_rises_again_is_told(tmp_path, settings, override, said):
    base = ["strategy=fedavg", "budget.steps_per_agent=1000", "federation.agents=2", "seeds=2"]
    directory = RunDirectory.create(tmp_path / "run")
    directory.write_config(resolve(None, [*base, *settings]).to_toml())
    rows = [{"seed": seed, "round": 4, "agent_steps": 2000 + 40 * seed} for seed in (0, 1)]
    directory.metrics_jsonl.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    _, told = continued(directory, [override])
    first, *rest = told.splitlines()
    assert first.startswith(f"{directory.path} goes on with {override.partition('=')[0]} = ")
    assert len(rest) == (said is not None)
    assert said is None or rest[0].startswith(said)
