"""The round, written once: what an agent does in it, what the server does, and in which order.

A runtime says how the verbs are run (in one compiled program, around a Python loop that steps environments, or on
nodes); nothing else knows their order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from fedrax.environments.base import Episodes, Experience
from fedrax.environments.faults import NOTHING, Fault, first_fault, with_learning
from fedrax.federation import Cohort, Exchange, Federation, State, Tally, round_metrics
from fedrax.message import Message, keep_rows
from fedrax.seeds import derive
from fedrax.strategies.base import Downlink, ServerWork, select

Agents = TypeVar("Agents")
"""What a runtime holds of the agents that it computes together: one, or several in groups."""
Update = Callable[[Agents, Any, Any], tuple[Agents, dict[str, Any], Fault]]
"""A local update: ``update(agents, number, key) -> (agents, report, fault)``."""


class AgentVerbs(Protocol[Agents]):
    """An agent's verbs in one round, as a runtime runs them; of several agents, leaves have a leading axis ``[m]``."""

    def begin(self) -> tuple[Agents, Any]:
        """The agents after the broadcast and whatever learning they do once a round, and their context of the round."""

    def collect(self, agents: Agents, key: Any) -> tuple[Agents, Experience, Fault]:
        """Experience of one local update, and its first number that is not finite."""

    def learn(
        self, agents: Agents, context: Any, experience: Experience, number: Any, key: Any
    ) -> tuple[Agents, dict[str, Any]]:
        """The agents after local update ``number``, and its report (:func:`agent_report`)."""

    def repeat(self, update: Update[Agents], agents: Agents) -> tuple[Agents, dict[str, Any], Fault]:
        """All local updates of the round, their reports as one and their first fault.

        It hands every update the keys of :func:`update_keys`.
        """

    def emit(self, agents: Agents) -> tuple[Agents, Message]:
        """The agents after sending, and what they send."""

    def settle(self, fault: Fault, agents: Agents, message: Message) -> tuple[Any, Message, Fault]:
        """The agents after the round, their messages and their faults, those of learning included.

        Where there is a fault, the agent is as before the round, and its message is zeros. Of an agent that an attack
        governs learning has none: it is as before, and sends what it made.
        """


def agent_round(verbs: AgentVerbs[Agents]) -> tuple[Any, Message, dict[str, Any]]:
    """An agent's part of a round: absorb, take the context and begin, collect and learn, emit; also its report.

    The context (:meth:`Strategy.context`) is read by every update of the round, and gone after it.
    A round in which something collected or learned is not finite is void: its agent is as before, and its message is
    not used.
    """
    agents, context = verbs.begin()

    def update(agents: Agents, number: Any, key: Any) -> tuple[Agents, dict[str, Any], Fault]:
        agents, experience, fault = verbs.collect(agents, key)
        agents, report = verbs.learn(agents, context, experience, number, key)
        return agents, report, fault

    agents, report, fault = verbs.repeat(update, agents)
    after, message, fault = verbs.settle(fault, *verbs.emit(agents))
    return after, message, report | {"fault": fault.row}


def agent_key(key: PRNGKeyArray, index: Array | int) -> PRNGKeyArray:
    """An agent's key in the round whose key is ``key``: by its number, whoever else takes part."""
    return derive(key, "work", index)


def update_keys(key: PRNGKeyArray, updates: int) -> PRNGKeyArray:
    """The keys ``[updates]`` of an agent's local updates, of its key in the round."""
    return key[None] if updates == 1 else jax.random.split(key, updates)


class AgentResults(NamedTuple):
    """What the agents' part of a round comes to; ``m`` participants."""

    agents: PyTree
    """All agents after the round, ``[agents, ...]``; () where they are elsewhere."""
    messages: Message
    """Leaves ``[m, ...]``."""
    report: dict[str, Any]
    """``[m]`` episodes, steps, return sums and learning metrics, and faults ``[m, 4]`` (rows of :class:`Fault`)."""
    reported: Array | None = None
    """Who has reported, ``bool[m]``; the others' rows do not count. None: everyone has."""


class ServerVerbs(NamedTuple):
    """The server's verbs, as a runtime runs them."""

    reference: Callable[[PyTree, Any, PRNGKeyArray], Episodes | None]
    """Its own trajectories at the broadcast policy, for rules that need its gradient."""
    exchange: Callable[..., tuple[PyTree, Exchange]]
    """:func:`fedrax.runtime.overflow.exchanged`."""
    refine: Callable[[PyTree, PRNGKeyArray], tuple[PyTree, dict[str, Any]]]
    """The server after its own steps, and their episodes, environment steps and fault."""
    finish: Callable[[PyTree, PRNGKeyArray], tuple[PyTree, ServerWork, Any]]
    """:func:`fedrax.runtime.overflow.finished`."""
    output: Callable[[PyTree, PyTree], PyTree]
    """:meth:`Federation.output`."""
    evaluate: Callable[[PyTree, PyTree, PyTree], dict[str, Any]]
    """The round's evaluation by name of the metric, NaN in rounds without one: of what is handed out, and, where
    ``evaluation.aggregation`` asks for it, of agents' networks around the next broadcast of the server."""
    close: Callable[[State, RoundResult], tuple[State, dict[str, Any]]]
    """:func:`close_round`."""


class RoundResult(NamedTuple):
    """What a round came to."""

    server: PyTree
    output: PyTree
    """What is handed out."""
    cohort: Cohort
    by_agents: AgentResults
    exchange: Exchange
    work: ServerWork
    own: dict[str, Any]
    """The server's episodes, steps and fault, and how many episodes were for the rule."""
    evaluation: dict[str, Any]


def server_round(
    verbs: ServerVerbs, state: State, downlink: Downlink, cohort: Cohort, results: AgentResults, key: PRNGKeyArray
) -> tuple[State, dict[str, Any]]:
    """The server's part of a round: exchange, refine, finish; then the evaluation. Also the round's metrics."""
    if results.reported is not None:
        results = results._replace(report=keep_rows(results.report, results.reported))
    # Those whose round is void count as absent, and so do those who have not reported.
    answers = cohort.answers & (Fault.of_row(results.report["fault"]).kind == NOTHING)
    cohort = cohort._replace(answers=answers if results.reported is None else answers & results.reported)
    reference = verbs.reference(state.server, downlink, derive(key, "reference"))
    server, exchange = verbs.exchange(
        state.server, downlink, cohort, results.messages, key, state.tally.rounds, reference, state.clip
    )
    server, own = verbs.refine(server, derive(key, "server"))
    server, work, lost = verbs.finish(server, derive(key, "finish"))
    own |= {"fault": with_learning(Fault.of_row(own["fault"]), lost | exchange.overflowed).row}
    output = verbs.output(server, results.agents)
    evaluation = verbs.evaluate(output, server, results.agents)
    result = RoundResult(server, output, cohort, results, exchange, work, with_reference(own, reference), evaluation)
    return verbs.close(state, result)


def close_round(federation: Federation, state: State, result: RoundResult) -> tuple[State, dict[str, Array]]:
    """The state after a round and the round's metrics."""
    cohort, exchange, own, evaluation = result.cohort, result.exchange, result.own, result.evaluation
    report, work = result.by_agents.report, result.work
    tally = tally_round(
        federation,
        state.tally,
        participants=federation.participants if cohort.selected is None else cohort.selected.sum(),
        agent_episodes=report["episodes"].sum(),
        counted=work.counted + own["reference"],
        steps=report["steps"].sum() + own["steps"],
        agent_steps=report["steps"].sum(),
    )
    faults = Fault.of_row(report["fault"])
    sound = faults.kind == NOTHING
    honest = ~cohort.byzantine & sound
    if result.by_agents.reported is not None:
        honest &= result.by_agents.reported
    if federation.best_by == "median" and "agent_returns" in evaluation:
        # Of agents that were not there, nothing is known.
        evaluation = {**evaluation, "return_median": jnp.nanmedian(evaluation["agent_returns"])}
    score = evaluation.get("return_median", evaluation["return"])
    better = jnp.isfinite(score) & (score > state.best_return)
    updated = State(
        server=result.server,
        agents=result.by_agents.agents,
        tally=tally,
        best=select(better, result.output, state.best),
        best_return=jnp.where(better, score, state.best_return),
        clip=exchange.clip,
        environments=state.environments,
    )
    learning = jax.tree.map(lambda x: jnp.where(honest, x, 0).sum() / honest.sum(), report["learning"])
    strategy = federation.strategy
    local_steps = federation.local_updates * strategy.local_gradient_steps(federation.learner)
    local_steps += strategy.round_gradient_steps(federation.learner)
    metrics = {
        "active": jnp.asarray(True),
        **evaluation,
        "train_return": jnp.where(honest, report["return_sum"], 0).sum()
        / jnp.where(honest, report["episodes"], 0).sum(),
        "train_success": success_share(report, honest),
        "trajectories": tally.trajectories - state.tally.trajectories,
        "agent_trajectories": report["episodes"].sum(),
        "server_trajectories": own["episodes"],
        "agent_steps": report["steps"].sum(),
        "server_steps": own["steps"],
        "gradient_steps": work.gradient_steps + local_steps,
        "excluded": jnp.zeros(federation.agents, bool).at[cohort.ids].set(exchange.excluded),
        "dropped": jnp.zeros((federation.agents, len(Fault._fields)), jnp.int32).at[cohort.ids].set(report["fault"]),
        "server_dropped": own["fault"],
        **learning,
        **round_metrics(cohort, exchange, rejects=federation.aggregator.rejects),
    }
    if cohort.selected is not None:
        metrics["participants"] = cohort.selected.sum()
    return updated, metrics | agent_metrics(federation, cohort, result.by_agents)


def success_share(report: dict[str, Any], honest: Bool[Array, " m"]) -> Float[Array, ""]:
    """The share of these agents' training episodes that reached their goal, of the agents whose environments say."""
    counted = honest & ~jnp.isnan(report["successes"])
    return jnp.where(counted, report["successes"], 0).sum() / jnp.where(counted, report["episodes"], 0).sum()


def agent_metrics(federation: Federation, cohort: Cohort, results: AgentResults) -> dict[str, Array]:
    """What the records tell of training agent by agent, ``[agents]``; NaN for those who did not report or were void.

    Where it is :attr:`Federation.detailed`, also ``agent_episode_returns`` ``[agents, n]``, in the order in which
    episodes ended, with NaN between them, and each learning metric as ``agent_train_<name>``.
    """
    report = results.report
    known = Fault.of_row(report["fault"]).kind == NOTHING
    if results.reported is not None:
        known &= results.reported

    def by_agent(x: Array) -> Array:
        rows = jnp.where(known.reshape(-1, *[1] * (x.ndim - 1)), x, jnp.nan)
        return jnp.full((federation.agents, *x.shape[1:]), jnp.nan).at[cohort.ids].set(rows)

    metrics = {"agent_train_success": by_agent(report["successes"] / report["episodes"])}
    if federation.personal:
        metrics["agent_train_returns"] = by_agent(report["return_sum"] / report["episodes"])
    if federation.detailed:
        metrics["agent_episode_returns"] = by_agent(report["episode_returns"])
        metrics |= {f"agent_train_{name}": by_agent(x) for name, x in report["learning"].items()}
    return metrics


def agent_report(experience: Experience, learning: dict[str, Array], *, detailed: bool = False) -> dict[str, Any]:
    """One agent's local update in numbers: its experience, and its learner's own metrics.

    ``successes`` is NaN where the environment does not say. Where ``detailed``, ``episode_returns`` ``[n]`` are those
    of the episodes that ended, in this order, with NaN between them.
    """
    success = experience.success
    report = {
        "episodes": experience.count,
        "steps": experience.steps,
        "return_sum": experience.returns.sum(),
        "successes": jnp.asarray(jnp.nan) if success is None else success.sum(dtype=jnp.float32),
        "learning": learning,
    }
    if detailed:
        ended = experience.valid[0] if isinstance(experience, Episodes) else experience.over
        report["episode_returns"] = jnp.where(ended, experience.returns, jnp.nan).ravel()
    return report


def summed_reports(reports: dict[str, Any]) -> dict[str, Any]:
    """Reports of several updates, leaves ``[updates, ...]``, as one: experience adds up, metrics are averaged.

    Returns of episodes, ``[updates, ..., n]``, follow one another.
    """

    def one(name: str, x: Any) -> Any:
        if name == "learning":
            return jax.tree.map(lambda each: each.mean(0), x)
        if name == "successes":
            # An environment may say for the first time in a later update.
            return jnp.where(jnp.isnan(x).all(0), jnp.nan, jnp.nansum(x, 0))
        if name == "episode_returns":
            return jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:-1], -1)
        return x.sum(0)

    return {name: one(name, x) for name, x in reports.items()}


def with_reference(own: dict[str, Any], reference: Episodes | None) -> dict[str, Any]:
    """The server's own sampling in a round, ``reference`` (its episodes for the rule) included."""
    if reference is None:
        return own | {"reference": 0}
    fault = first_fault(reference)
    return {
        "episodes": own["episodes"] + reference.count,
        "steps": own["steps"] + reference.steps,
        "fault": jnp.where(fault.kind != NOTHING, fault.row, own["fault"]),
        "reference": reference.count,
    }


def tally_round(
    federation: Federation,
    tally: Tally,
    *,
    participants: Array | int,
    agent_episodes: Array,
    counted: Array,
    steps: Array,
    agent_steps: Array,
) -> Tally:
    """The tally after a round of so many ``participants``.

    Trajectories per agent are those of all agents, divided by their number. Where agents send gradients they follow the
    reference: everything sampled in the round, divided by the number of nodes (the participants, and the server where
    a round may have more than one), rounded.
    """
    total = tally.agent_trajectories + agent_episodes
    if federation.strategy.counts_server:
        nodes = participants + 1 if federation.participants > 1 else 1
        trajectories = tally.trajectories + jnp.round((agent_episodes + counted) / nodes).astype(jnp.int32)
    else:
        # In whole numbers: a float32 holds no more than 2^24 of them.
        trajectories = (total + federation.sites // 2) // federation.sites
    return Tally(tally.rounds + 1, trajectories, tally.steps + steps, tally.agent_steps + agent_steps, total)
