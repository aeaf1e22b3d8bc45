"""A round's verbs for agents whose environments Python steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from fedrax.environments.base import Experience
from fedrax.environments.faults import NOTHING, Fault, earliest, masked, stacked, with_learning
from fedrax.federation import Sending
from fedrax.learners.base import Agent
from fedrax.runtime.programs import Decider, Group, GroupContext, Programs, UpdateKeys, joined, stack
from fedrax.runtime.rounds import Update, summed_reports
from fedrax.strategies.base import Downlink


class GroupVerbs:
    """The verbs of agents whose experience is collected outside of compiled programs, side by side in groups.

    ``key`` is the round's, ``sending`` what messages depend on beside the agents, ``collect(decide) -> (experience,
    faults)`` what their environments yield, of agents without faults, ``progress(update)`` how much of the budget is
    used, and ``before()`` the agents as they were, ``[m, ...]``. Who is not ``selected``, ``bool[m]``, does not take
    part in the round; None: everyone does.
    """

    def __init__(
        self,
        programs: Programs,
        groups: list[Group],
        downlink: Downlink,
        key: PRNGKeyArray,
        *,
        sending: Sending,
        collect: Callable[[Decider], tuple[Experience, Fault]],
        progress: Callable[[int], Array],
        before: Callable[[], Agent],
        selected: np.ndarray | None = None,
    ) -> None:
        self.programs, self.groups, self.downlink, self.key = programs, groups, downlink, key
        self._collected, self._progress, self._before = collect, progress, before
        self.sending, self.selected = sending, selected
        self.fresh = not programs.begins

    def begin(self) -> tuple[list[Group], list[GroupContext]]:
        """Agents that do not learn before their local updates absorb the broadcast in the first of them."""
        contexts = self.programs.contexts(self.groups, self.downlink)
        if not self.programs.begins:
            return self.groups, contexts
        return self.programs.begin(self.groups, contexts, self.downlink, self.key), contexts

    def collect(self, agents: list[Group], key: UpdateKeys) -> tuple[list[Group], Experience, Fault]:
        """From the environments, step by step."""
        decide = self.programs.decider_of_agents(agents, self.downlink, key.act, fresh=self.fresh)
        return agents, *self._collected(decide)

    def learn(
        self, agents: list[Group], context: list[GroupContext], experience: Experience, number: int, key: UpdateKeys
    ) -> tuple[list[Group], Any]:
        """A report by group: they are joined when the round is over."""
        fresh, self.fresh = self.fresh, False
        progress = self._progress(number)
        return self.programs.work(agents, context, self.downlink, experience, key.learn, progress, fresh=fresh)

    def repeat(self, update: Update[list[Group]], agents: list[Group]) -> tuple[list[Group], dict[str, Any], Fault]:
        """One after the other."""
        keys = self.programs.update_keys(self.key, joined([group.ids for group in agents]))
        reports, faults = [], []
        for number in range(self.programs.federation.local_updates):
            agents, report, fault = update(agents, number, UpdateKeys(keys.act[number], keys.learn[number]))
            reports.append(report)
            faults.append(fault)
        whole = joined([summed_reports(stack(list(each))) for each in zip(*reports, strict=True)])
        return agents, whole, earliest(stacked(faults))

    def emit(self, agents: list[Group]) -> tuple[list[Group], PyTree]:
        """All groups'."""
        return self.programs.emit(agents, self.key, self.sending)

    def settle(self, fault: Fault, agents: list[Group], message: PyTree) -> tuple[Agent, PyTree, Fault]:
        """Leaves ``[m, ...]``; environments start anew when a fault of their collection is found."""
        lost = ~np.asarray(joined([self.programs.sound(group) for group in agents]))
        after = joined([dataclasses.replace(group.agents, residual=group.residual) for group in agents])
        everyone = self.selected is None or self.selected.all()
        if everyone and not lost.any() and not fault.kind.any():
            return after, message, fault
        before = self._before()
        if lost.any():
            lost = np.asarray(self.programs.overflowed(before, after))
        fault = with_learning(fault, lost & ~np.concatenate([np.asarray(group.byzantine) for group in agents]))
        void = fault.kind != NOTHING
        if self.selected is not None:
            void = void | ~self.selected
        if not (void | lost).any():
            return after, message, fault
        message = masked(void, message, jax.tree.map(jnp.zeros_like, message))
        return masked(void | lost, after, before), message, fault
