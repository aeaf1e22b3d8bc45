"""What training says while it goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fedrax.config import Config
from fedrax.privacy.guarantee import Guarantee
from fedrax.records.progress import Progress
from fedrax.runtime.base import Runtime
from fedrax.runtime.counters import Counters
from fedrax.runtime.lost_rounds import troubles

BITS = " (bits)"
"""What names of divergences between distributions end with."""


def going_on(first: int, recorded: int) -> str:
    """Where a run goes on that has done ``recorded`` rounds, and which of them are done again."""
    if not first:
        return "no checkpoint yet: starts anew"
    if recorded <= first:
        return f"goes on after round {first}"
    again = f"round {recorded} is" if recorded == first + 1 else f"rounds {first + 1} to {recorded} are"
    return f"goes on after round {first}, the last checkpoint that it can start from; {again} done again"


def first_rounds(config: Config, first: int, last: int) -> str:
    """Which rounds are computed before any is shown; of a budget in other units it is not known how many it has."""
    limit = config.budget.rounds
    if limit is not None:
        return f"training rounds {first + 1} to {min(last, limit)}"
    return f"training rounds {first + 1} to {last}, or fewer if the budget is used up before"


def promise(config: Config, bound: Guarantee) -> str:
    """What training is going to cost, as far as it is known how many rounds it has."""
    rounds = [limit for limit in (config.budget.rounds, bound.limit) if limit is not None]
    if not rounds:
        return f"privacy, after the first round: {bound.text(1)}"
    return f"privacy, after {min(rounds)} rounds: {bound.text(min(rounds))}"


def goal(config: Config) -> tuple[float | None, str]:
    """The budget to show progress against; none when several limits compete."""
    budget = config.budget
    limits = {
        "round": budget.rounds,
        "trajectories/agent": budget.trajectories,
        "steps": budget.steps,
        "steps/agent": budget.steps_per_agent,
    }
    known = [(float(limit), unit) for unit, limit in limits.items() if limit is not None]
    return known[0] if len(known) == 1 else (None, "round")


def show(runtime: Runtime, display: Progress, counters: list[Counters], rows: list[dict[str, Any]]) -> None:
    """Updates the display with the mean over seeds."""

    def mean(values: list[float]) -> float:
        known = [value for value in values if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan

    fractions = [
        runtime.fraction_done(c.rounds, c.trajectories, c.agent_steps + c.server_steps, c.agent_steps) for c in counters
    ]
    display.update(
        fraction=min(fractions),
        round=max(c.rounds for c in counters),
        evaluation=mean([c.final_return for c in counters]),
        # Seeds may end after other rounds; each was then evaluated at its end.
        evaluated=max((c.evaluated for c in counters if c.evaluated != c.rounds), default=0),
        steps=sum(c.agent_steps + c.server_steps for c in counters),
        seconds=train_seconds(counters),
    )
    for row in rows:
        for trouble in troubles(row):
            display.note(f"round {row['round'] + 1}, seed {row['seed']}: {trouble}")


def train_seconds(counters: list[Counters]) -> float:
    """``seconds_train``: of the rounds, whose seeds are trained together."""
    return max(counter.seconds for counter in counters)


def differing(differences: Mapping[str, float]) -> str:
    """How much the agents' environments differ, by what :func:`.environment_divergence` calls it."""
    bits = {name.removesuffix(BITS): value for name, value in differences.items() if name.endswith(BITS)}
    spread = {name: value for name, value in differences.items() if not name.endswith(BITS)}
    each = {
        "standard deviation over the default value, if that is not 0": spread,
        "Jensen-Shannon divergence in bits": bits,
    }
    said = [f"{what}: {', '.join(f'{k} {v:.3g}' for k, v in some.items())}" for what, some in each.items() if some]
    return f"agents' environments differ; {'; '.join(said)}"
