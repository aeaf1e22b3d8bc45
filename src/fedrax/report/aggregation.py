"""What agents lose, or gain, when the networks of an aggregation arrive (``evaluation.aggregation``)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from fedrax.environments.success import LAST, SUCCESS
from fedrax.evaluation.pairs import AFTER, BEFORE
from fedrax.report.agents import COLUMNS, agent_names
from fedrax.report.runs import Group
from fedrax.report.tables import MISSING, Estimate, columns_alike, estimates

MEASURES = {
    "agent_returns": "return",
    f"agent_{SUCCESS}": "success in any step",
    f"agent_{LAST}": "success in the last step",
}
"""Columns of a row without their endings, and how a table calls them."""
LATE = 0.5
"""Share of the evaluations, the last ones, that the change is a mean over."""
NOTE = (
    "Every agent's networks in its own environment, on the same initial states: as they left its learning, and as the "
    "next broadcast made them. Before and after are of the last evaluation; the change is the mean over the last half "
    "of the evaluations, of the mean agent, of the agent that loses most and of each agent. Brackets are over seeds."
)

Around = tuple[Float[np.ndarray, "seeds agents"], Float[np.ndarray, "seeds agents"], Float[np.ndarray, "seeds agents"]]
"""Before and after at the end, and the mean change over the last half of the evaluations."""


def aggregation_table(groups: Sequence[Group], statistic: str) -> tuple[list[str], list[list[str]]] | None:
    """Headings and lines, one for each group and measure; None where nothing was tested around aggregations."""
    known = [(group, name, found) for group in groups for name in MEASURES if (found := around_of(group, name))]
    if not known:
        return None
    agents = max(change.shape[1] for _, _, (_, _, change) in known)
    shown = agents if agents <= COLUMNS else 0
    headings = ["", "", "before", "after", "change", "change of the agent that loses most"]
    headings += [f"change of {name}" for name in agent_names([group for group, _, _ in known], shown)]
    lines: list[list[str]] = [[group.label, MEASURES[name]] for group, name, _ in known]
    # Numbers are compared within a measure: returns need other digits than shares.
    for measure in MEASURES:
        rows = [(line, found) for line, (_, name, found) in zip(lines, known, strict=True) if name == measure]
        columns = [
            estimates([Estimate.of(before.mean(1), statistic) for _, (before, _, _) in rows]),
            estimates([Estimate.of(after.mean(1), statistic) for _, (_, after, _) in rows]),
            estimates([Estimate.of(change.mean(1), statistic) for _, (_, _, change) in rows]),
            estimates([Estimate.of(change.min(1), statistic) for _, (_, _, change) in rows]),
        ]
        means = [change.mean(0) for _, (_, _, change) in rows]
        columns += columns_alike(
            [[float(mean[k]) if k < mean.size else float("nan") for mean in means] for k in range(shown)]
        )
        for number, (line, _) in enumerate(rows):
            line += [column[number] if column else MISSING for column in columns]
    return headings, lines


def around_of(group: Group, name: str) -> Around | None:
    """Of every seed that was tested around aggregations; None where none was."""
    each = []
    for history in group.histories:
        pairs = [
            (row[f"{name}_{BEFORE}"], row[f"{name}_{AFTER}"])
            for row in history.rows
            if row.get(f"{name}_{BEFORE}") is not None and row.get(f"{name}_{AFTER}") is not None
        ]
        if pairs:
            before, after = (np.array(values, float) for values in zip(*pairs, strict=True))
            late = (after - before)[len(pairs) - max(1, round(LATE * len(pairs))) :]
            each.append((before[-1], after[-1], late.mean(0)))
    if not each:
        return None
    before, after, change = (np.array(values) for values in zip(*each, strict=True))
    return before, after, change
