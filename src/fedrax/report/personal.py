"""Whose policy an agent's return is of, and in whose environments: what tables say where agents keep their own."""

from __future__ import annotations

from collections.abc import Sequence

from fedrax.errors import FedraxError
from fedrax.report.runs import Group

OWN = {
    "all": "each agent's own policy over all agents' environments",
    "own": "each agent's own policy in that agent's environment",
    "registered": "each agent's own policy in the registered environment",
}
"""What a group's return is the mean of where agents keep their own policies, by ``evaluation.environments``."""
AGENT = {
    "all": "agent k's own policy over all agents' environments",
    "own": "agent k's own policy in its environment",
    "registered": "agent k's own policy in the registered environment",
}
"""The same of one agent's return."""
SHARED_BY_ALL = "the policy that all agents share"
SHARED = "the shared policy in agent k's environment"
PAGE = "table Agents of the HTML report"
"""Where the mean of each policy in its own agent's environment is, for who reads no page."""


def keeps_own(group: Group) -> bool:
    """Whether a group's runs hand out a policy of every agent; no where their components are not known here."""
    from fedrax.config import COMPONENT_KINDS

    # Recorded of agents' own policies only; it needs none of the plugins that the runs were trained with.
    if any("agent_own_returns" in row for history in group.histories for row in history.rows):
        return True
    run = group.runs[0]
    settings = dict(run.config.get("strategy") or {})
    try:
        strategy = COMPONENT_KINDS["strategy"].build(settings.pop("kind", ""), settings)
        return bool(strategy.hands_out_own(COMPONENT_KINDS["learner"][run.kind("learner") or ""]))
    except FedraxError:
        return False


def agent_is(group: Group) -> str:
    """What the return of agent k is of."""
    return AGENT[group.measure["evaluation.environments"]] if keeps_own(group) else SHARED


def return_of(group: Group, elsewhere: str = PAGE) -> str:
    """What the return of a group with own policies is the mean of, and where the other number is; else empty.

    Args:
        group: whose.
        elsewhere: the place of the mean of each policy in its own agent's environment; empty: it is not told.
    """
    if not keeps_own(group):
        return ""
    where = group.measure["evaluation.environments"]
    other = f"; of each in its own agent's environment alone: {elsewhere}" if where == "all" and elsewhere else ""
    return f"the mean of {OWN[where]}{other}"


def returns_of(groups: Sequence[Group], elsewhere: str = PAGE) -> list[str]:
    """A line for each kind of :func:`return_of` among the groups, with their labels; none without such groups."""
    found: dict[str, list[str]] = {}
    for group in groups:
        if told := return_of(group, elsewhere):
            found.setdefault(told, []).append(group.label)
    return [f"{', '.join(labels)}: the return is {told}" for told, labels in found.items()]
