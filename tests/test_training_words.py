"""What training says in its display before the first round."""

import pytest

from fedrax.config import resolve
from fedrax.runtime.training import _first_rounds


@pytest.mark.parametrize(
    ("budget", "first", "said"),
    [
        (["budget.rounds=39"], 0, "rounds 1 to 39"),
        (["budget.rounds=390"], 125, "rounds 126 to 250"),
        (["budget.steps=1000"], 0, "rounds 1 to 125, or to the end of the budget"),
    ],
)
def test_no_more_rounds_are_announced_than_a_run_has(budget, first, said):
    config = resolve("fedpg-br/cartpole", ["budget.trajectories=none", *budget])
    assert _first_rounds(config, first, 125) == said
