"""What of a round's answers is used, and why the rest is not: all of it is recorded, and people are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fedrax.config import Config
from fedrax.environments.faults import NOTHING, Fault, described, recorded
from fedrax.environments.success import LAST, MEASURED, SHARE, SUCCESS
from fedrax.errors import FedraxError
from fedrax.federation import Cohort, Exchange, Federation
from fedrax.message import is_real, norm
from fedrax.records.rundir import RunDirectory
from fedrax.runtime.distributed.agent_runtime import report_shapes, travel_period
from fedrax.runtime.distributed.checks import Counts, WorkCheck, Worked, possible_counts
from fedrax.runtime.distributed.decoding import Decoding
from fedrax.runtime.distributed.dispatcher import ANSWERED, DROPPED, EXCLUDED, Record
from fedrax.runtime.distributed.envelopes import Envelope
from fedrax.runtime.distributed.ledger import EVALUATION, Ledger
from fedrax.runtime.distributed.recent import Recent
from fedrax.trees import tree_bytes, tree_size

LARGEST_RETURN = 1e6
"""How many times the median agent's (at least 1) a return of an evaluation may be."""


def largest_answer(config: Config, federation: Federation) -> int:
    """The most bytes of arrays that any answer of a node has."""
    message, _ = federation.shapes()
    work = tree_bytes((message, report_shapes(federation, config.environment.num_envs)))
    # Of a secure sum, 32 bits a number, and a share of two secrets for everybody else.
    summed = (4 * tree_size(message.update), 200 * federation.participants) if config.privacy.secure_sum else ()
    evaluation = len((*MEASURED, SUCCESS, LAST, SHARE)) * np.dtype(np.float32).itemsize * config.evaluation.episodes
    return max(work, evaluation, *summed)


class Screening:
    """Checks answers as they come, then against each other, and at last what they are combined to."""

    def __init__(
        self,
        config: Config,
        federation: Federation,
        directory: RunDirectory,
        note: Callable[[str], None],
        *,
        horizon: int,
        run: str,
        name_of: Callable[[int], str],
    ) -> None:
        """Args:
        horizon: of training episodes.
        run: the name that every answer must have.
        name_of: the name of an agent's node.
        """
        settings = config.runtime.flower
        limit = None if settings.max_norm == "adaptive" else settings.max_norm
        self.config, self.federation, self.note, self.horizon, self.run = config, federation, note, horizon, run
        self.message, _ = federation.shapes()
        self.report = report_shapes(federation, config.environment.num_envs)
        self.private = federation.protection.unit is not None
        """Whether nodes withhold what they measured, and what is done with an update may not depend on the others."""
        period = travel_period(config, federation.strategy)
        decoded = None if federation.compression.lossless else Decoding(federation, config.seed)
        self.check = WorkCheck(
            self.message, self.report, period, max_norm=limit, withheld=self.private, decoded=decoded
        )
        # Experiments with a simulated attack measure the rule alone, as the simulation does.
        self.simulated = config.attack["kind"] != "none"
        unseen = self.simulated or self.private or config.privacy.secure_sum
        self.looks = not (self.simulated or self.private)
        """Whether what a round's messages come to is compared with what is usual."""
        self.adaptive = settings.max_norm == "adaptive" and not unseen
        params = federation.fresh(jax.random.key(config.seed), jnp.asarray(0)).params
        self.model = norm([leaf for leaf in jax.tree.leaves(jax.device_get(params)) if is_real(leaf)])
        """The norm of a policy that the run begins with."""
        self.recent = Recent(directory.path / "recent.json")
        self.name_of = name_of
        self.records: list[Record] = []
        """Of the round under way."""
        self.norms: dict[int, Mapping[str, float]] = {}
        """Of the messages that are combined in it."""
        self.ledger = Ledger(directory.path / "exchanges.jsonl", note, max_failures=settings.max_failures)

    def checked(self, episodes: int | None) -> Callable[..., Worked]:
        """``check(answer, agent, turn)`` for answers to orders of so many episodes; None: of any number.

        It raises :class:`~fedrax.runtime.distributed.checks.Rejected`.
        """
        return partial(self._checked, self.counts(episodes))

    def _checked(self, counts: Counts, answer: Envelope, agent: int, turn: int) -> Worked:
        return self.check(answer, run=self.run, round=turn, agent=agent, counts=counts)

    def counts(self, episodes: int | None) -> Counts:
        """What an agent can have collected in a round, of orders as in :meth:`checked`."""
        return possible_counts(self.federation, self.config.environment.num_envs, self.horizon, episodes)

    def usable(self, index: int, answers: Mapping[int, Worked]) -> int:
        """How many of these answers of round ``index`` count, as far as is known now."""
        return len(answers) - len(self._too_long(index, answers))

    def settled(
        self, index: int, answers: Mapping[int, Worked], records: list[Record], *, quorum: int
    ) -> tuple[dict[int, Worked], dict[int, str]]:
        """The answers of round ``index`` that count, and why some of these send nothing.

        Raises:
            FedraxError: they are too few.
        """
        self.records, self.norms = records, {}
        dropped = self._dropped(index, answers)
        excluded = self._too_long(index, answers)
        for agent, reason in excluded.items():
            self.note(f"agent {agent} {EXCLUDED}: {reason}")
        self._mark(dropped, DROPPED)
        self._mark(excluded, EXCLUDED)
        usable = {agent: answer for agent, answer in answers.items() if agent not in excluded}
        self.norms = {agent: each.norms for agent, each in usable.items() if each.norms and agent not in dropped}
        if len(usable) < quorum:
            self.ledger.write(index, self.records, self.name_of)
            raise FedraxError(
                f"round {index + 1}: {len(usable)} usable answers where runtime.flower.quorum asks for {quorum}; "
                f"see {self.ledger.path}, mend the nodes and resume the run, or lower runtime.flower.quorum"
            )
        return usable, dropped

    def evaluated(
        self, answers: Mapping[int, dict[str, np.ndarray]], records: list[Record]
    ) -> dict[int, dict[str, np.ndarray]]:
        """The answers to an evaluation that count: returns far beyond the others' are not averaged with them."""
        sizes = {agent: float(np.abs(table["return"]).max(initial=0.0)) for agent, table in answers.items()}
        ordered = sorted(sizes.values())
        limit = LARGEST_RETURN * max(1.0, ordered[(len(ordered) - 1) // 2] if ordered else 0.0)
        reasons = {
            agent: f"a return of {size:.3g} in an evaluation, over the limit of {limit:.3g}"
            for agent, size in sizes.items()
            if size > limit
        }
        for agent, reason in reasons.items():
            self.note(f"agent {agent} {EXCLUDED}: {reason}")
        self.ledger.judge(
            [record._replace(outcome=EXCLUDED) if record.agent in reasons else record for record in records],
            EVALUATION,
        )
        return {agent: table for agent, table in answers.items() if agent not in reasons}

    def _mark(self, reasons: Mapping[int, str], outcome: str) -> None:
        """Changes what is recorded of these agents' answers."""
        for number, record in enumerate(self.records):
            if record.agent in reasons and record.outcome == ANSWERED:
                self.records[number] = record._replace(outcome=outcome, reason=reasons[record.agent])

    def _dropped(self, index: int, answers: Mapping[int, Worked]) -> dict[int, str]:
        """Why the agents that say so send nothing, by agent; people are told."""
        federation = self.federation
        reasons = {}
        for agent, answer in answers.items():
            fault = Fault.of_row(answer.report["fault"])
            if fault.kind != NOTHING:
                episodic, updates = federation.learner.episodic, federation.local_updates
                reasons[agent] = described(recorded(agent, fault, episodic=episodic, updates=updates))
                self.note(f"round {index + 1}, seed {self.config.seed}: {reasons[agent]}")
        return reasons

    def _too_long(self, index: int, answers: Mapping[int, Worked]) -> dict[int, str]:
        """Why messages that are far longer than usual are not used, by agent."""
        if not self.adaptive:
            return {}
        norms = {agent: answer.norms for agent, answer in answers.items() if not _void(answer)}
        return self.recent.too_long(index, norms, self.model)

    def exchanged(
        self,
        exchange: Callable[..., tuple[PyTree, Exchange]],
        index: int,
        server: PyTree,
        downlink: Any,
        cohort: Cohort,
        *others: Any,
    ) -> tuple[PyTree, Exchange]:
        """What ``exchange`` makes of round ``index``, whose records are written.

        Where that cannot be right, it is what the messages without the longest one make; and where that neither can be,
        as if nobody had answered.
        """
        after, made = exchange(server, downlink, cohort, *others)
        why = self.recent.wrong(index, server, after) if self.looks else None
        if why is not None and len(self.norms) > 1:
            agent = self.recent.longest(self.norms)
            kept = cohort._replace(answers=cohort.answers & (cohort.ids != agent))
            without, remade = exchange(server, downlink, kept, *others)
            if self.recent.wrong(index, server, without) is None:
                reason = f"with its message, the longest, {why}"
                self.note(f"agent {agent} {EXCLUDED}: {reason}")
                self._mark({agent: reason}, EXCLUDED)
                after, made, why = without, remade, None
        self.ledger.write(index, self.records, self.name_of)
        self.recent.undone = 0 if why is None else self.recent.undone + 1
        self.recent.save()
        if why is None:
            return after, made
        agents = ", ".join(str(agent) for agent in np.asarray(cohort.ids)[np.asarray(made.present)])
        self.note(f"round {index + 1} is undone: {why}; it was combined from the messages of agents {agents}")
        nobody = cohort._replace(answers=jnp.zeros_like(cohort.answers))
        before, lost = exchange(server, downlink, nobody, *others)
        return before, lost._replace(excluded=made.present | made.excluded)


def _void(answer: Worked) -> bool:
    """Whether the agent says that what it collected was not finite: it sends zeros."""
    return bool(Fault.of_row(answer.report["fault"]).kind != NOTHING)
