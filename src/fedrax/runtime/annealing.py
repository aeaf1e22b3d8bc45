"""What is lowered over a budget, where the budget grows."""

from __future__ import annotations

from fedrax.config import Config
from fedrax.records.rows import read_tail, seed_of
from fedrax.records.rundir import RunDirectory
from fedrax.records.standing import fraction_done

ANNEALS = "anneal_learning_rate"
"""The option of learners that lower their step size linearly over the budget."""
TAIL_BYTES = 1 << 16


def rising(directory: RunDirectory, before: Config, after: Config) -> str:
    """A line where the learning rate rises again, as less of the new budget is used; empty where it does not."""
    last = {seed_of(row): row for row in read_tail(directory.metrics_jsonl, TAIL_BYTES)}.values()
    if not after.learner.get(ANNEALS) or not last:
        return ""

    def used(config: Config) -> float:
        return min(fraction_done(row, config.budget.model_dump(), config.federation.agents) for row in last)

    if used(after) >= used(before):
        return ""
    return (
        f"the learning rate rises again, to {1 - used(after):.0%} of learner.learning_rate: learner.{ANNEALS} lowers "
        f"it over the whole budget, of which {used(after):.0%} is used so far"
    )
