"""A round's verbs for one agent inside a compiled program."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from fedrax.environments.base import Experience, Observation
from fedrax.environments.faults import NOTHING, Fault, earliest, first_fault, with_learning
from fedrax.environments.native_steps import Decide
from fedrax.federation import Federation, Sending
from fedrax.learners.base import Agent, UpdateContext
from fedrax.message import Message
from fedrax.runtime.overflow import overflowed
from fedrax.runtime.rounds import Update, agent_report, summed_reports, update_keys
from fedrax.seeds import derive
from fedrax.strategies.base import Downlink, select

AgentInRound = tuple[Agent, PyTree]
"""An agent, and its collector's state."""


class NativeVerbs:
    """One agent's verbs inside a compiled program; it and its running episodes go through the round together.

    ``key`` is the agent's own of the round, and ``sending`` what its message depends on besides;
    ``collect(decide, key, running) -> (experience, running)`` is what its environments yield, ``restarted(running)``
    gives the running episodes up, and ``progress(update)`` is how much of the budget is used. Who is not ``selected``
    does not take part in the round; None: it does.
    """

    def __init__(
        self,
        federation: Federation,
        before: AgentInRound,
        index: Array,
        byzantine: Array,
        downlink: Downlink,
        key: PRNGKeyArray,
        *,
        selected: Array | None,
        sending: Sending,
        collect: Callable[[Decide, PRNGKeyArray, PyTree], tuple[Experience, PyTree]],
        restarted: Callable[[PyTree], PyTree],
        progress: Callable[[Array], Array],
    ) -> None:
        self.federation, self.before = federation, before
        self.index, self.byzantine = index, byzantine
        self.downlink, self.key, self.selected, self.sending = downlink, key, selected, sending
        self._collected, self._restarted, self._progress = collect, restarted, progress

    def begin(self) -> tuple[AgentInRound, PyTree]:
        """With its episodes as the last round left them."""
        strategy, learner = self.federation.strategy, self.federation.learner
        agent, running = self.before
        agent = dataclasses.replace(agent, residual=())
        agent = strategy.absorb(agent, self.downlink, self.index)
        context = strategy.context(agent, self.downlink, self.index)
        return (strategy.begin(learner, agent, context, derive(self.key, "begin")), running), context

    def collect(self, agents: AgentInRound, key: PRNGKeyArray) -> tuple[AgentInRound, Experience, Fault]:
        """Acting as it would now, or as its attack says."""
        agent, running = agents
        acting = self.federation.learner.acting(agent.params)

        def decide(observation: Observation, key: PRNGKeyArray) -> tuple[Array, PyTree]:
            return self.federation.decide(acting, observation, key, self.byzantine)

        experience, running = self._collected(decide, derive(key, "collect"), running)
        return (agent, running), experience, first_fault(experience)

    def learn(
        self, agents: AgentInRound, context: PyTree, experience: Experience, number: Array, key: PRNGKeyArray
    ) -> tuple[AgentInRound, dict[str, Any]]:
        """From fresh experience."""
        agent, running = agents
        update_context = UpdateContext(derive(key, "learn"), self._progress(number), context)
        agent, learning = self.federation.work(agent, experience, update_context, self.byzantine)
        return (agent, running), agent_report(experience, learning, detailed=self.federation.detailed)

    def repeat(self, update: Update[AgentInRound], agents: AgentInRound) -> tuple[AgentInRound, dict[str, Any], Fault]:
        """As a scan."""
        updates = self.federation.local_updates
        keys = update_keys(self.key, updates)
        if updates == 1:
            return update(agents, jnp.asarray(0), keys[0])

        def step(
            agents: AgentInRound, inputs: tuple[Array, PRNGKeyArray]
        ) -> tuple[AgentInRound, tuple[dict[str, Any], Fault]]:
            agents, report, fault = update(agents, *inputs)
            return agents, (report, fault)

        agents, (reports, faults) = jax.lax.scan(step, agents, (jnp.arange(updates), keys))
        return agents, summed_reports(reports), earliest(faults)

    def emit(self, agents: AgentInRound) -> tuple[AgentInRound, Message]:
        """With a key of the round's."""
        agent, running = agents
        agent = dataclasses.replace(agent, residual=self.before[0].residual)
        agent, message = self.federation.emit(agent, self.key, self.sending)
        return (agent, running), message

    def settle(self, fault: Fault, agents: AgentInRound, message: Message) -> tuple[AgentInRound, Message, Fault]:
        """Episodes in which something was not finite start anew, unless the agent does not take part in the round."""
        agent, running = agents
        running = select(fault.kind != NOTHING, self._restarted(running), running)
        lost = overflowed(self.before[0], agent)
        fault = with_learning(fault, lost & ~self.byzantine)
        void = fault.kind != NOTHING
        if self.selected is not None:
            running = select(self.selected, running, self.before[1])
            void |= ~self.selected
        message = select(void, jax.tree.map(jnp.zeros_like, message), message)
        return (select(void | lost, self.before[0], agent), running), message, fault
