"""What training says in its display before the first round."""

import json

import pytest

from fedrax.config import resolve
from fedrax.records.metrics import rounds_recorded
from fedrax.records.rundir import RunDirectory
from fedrax.runtime.telling import differing, first_rounds, going_on


@pytest.mark.parametrize(
    ("budget", "first", "said"),
    [
        (["budget.rounds=39"], 0, "training rounds 1 to 39"),
        (["budget.rounds=390"], 125, "training rounds 126 to 250"),
        (["budget.steps=1000"], 0, "training rounds 1 to 125, or fewer if the budget is used up before"),
    ],
)
def test_no_more_rounds_are_announced_than_a_run_has(budget, first, said):
    config = resolve("fedpg-br/cartpole", ["budget.trajectories=none", *budget])
    assert first_rounds(config, first, first + 125) == said


@pytest.mark.parametrize(
    ("first", "recorded", "said"),
    [
        (0, 0, "no checkpoint yet: starts anew"),
        (80, 80, "goes on after round 80"),
        (80, 85, "goes on after round 80, the last checkpoint that it can start from; rounds 81 to 85 are done again"),
        (80, 81, "goes on after round 80, the last checkpoint that it can start from; round 81 is done again"),
    ],
)
def test_rounds_that_are_done_again_are_named(first, recorded, said):
    assert going_on(first, recorded) == said


def test_how_environments_differ_is_said_with_what_the_numbers_are():
    assert differing({"mass": 1.3412, "gravity": 0.2, "lava (bits)": 0.5}) == (
        "agents' environments differ; standard deviation over the default value, if that is not 0: mass 1.34, "
        "gravity 0.2; Jensen-Shannon divergence in bits: lava 0.5"
    )


def test_rounds_recorded_are_those_of_the_seed_with_most(tmp_path):
    run = RunDirectory(tmp_path)
    assert rounds_recorded(run) == 0
    rows = [{"seed": seed, "round": number} for number in range(5) for seed in (0, 1) if number < 4 or seed]
    run.metrics_jsonl.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert rounds_recorded(run) == 5
