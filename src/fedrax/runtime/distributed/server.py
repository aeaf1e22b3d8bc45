"""The server's half of a round: a runtime whose agents are in other processes, recorded as a simulation is."""

from __future__ import annotations

import dataclasses
import math
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache, cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from fedrax.arrays import form, packed
from fedrax.config import Config
from fedrax.environments.base import Episodes
from fedrax.environments.faults import NOTHING, Fault, described, recorded
from fedrax.environments.success import LAST, MEASURED, SHARE, SUCCESS
from fedrax.evaluation.measure import Environments
from fedrax.evaluation.pairs import Evaluation, Pairs, scores
from fedrax.federation import Cohort, State
from fedrax.message import Period, travelling
from fedrax.records.files import read_json, write_json
from fedrax.records.rundir import RunDirectory
from fedrax.records.sites import MEMBERS
from fedrax.runtime import overflow
from fedrax.runtime.base import Runtime
from fedrax.runtime.compiling import compile_seconds, jitted
from fedrax.runtime.distributed.agent_runtime import Order, order_shapes, travel_period
from fedrax.runtime.distributed.allowed import check_distributed
from fedrax.runtime.distributed.checks import Worked, check_evaluation
from fedrax.runtime.distributed.dispatcher import EXCLUDED, Dispatcher, Question, Record
from fedrax.runtime.distributed.envelopes import EVALUATE, KEYS, WORK, Envelope, Field
from fedrax.runtime.distributed.membership import Membership
from fedrax.runtime.distributed.pipeline import Pipeline
from fedrax.runtime.distributed.randomness import SHARED, fresh_key, node_secret, secret_randomness
from fedrax.runtime.distributed.screening import Screening
from fedrax.runtime.distributed.secure_server import SecureServer
from fedrax.runtime.distributed.terms import terms_of
from fedrax.runtime.distributed.transport import Transport
from fedrax.runtime.lost_rounds import BAD_EVALUATION
from fedrax.runtime.make import make_runtime
from fedrax.runtime.rounds import AgentResults, RoundResult, ServerVerbs, close_round, server_round
from fedrax.seeds import derive


class DistributedRuntime(Runtime):
    """A federation of one seed over a :class:`Transport`; a checkpoint after every round.

    Its state holds the server, and no agents: these are on their nodes.
    """

    def __init__(
        self,
        config: Config,
        transport: Transport,
        directory: RunDirectory,
        *,
        note: Callable[[str], None],
        poll: float = 0.05,
    ) -> None:
        """Args:
        config: of the run; its environment is the server's own.
        transport: to the nodes.
        directory: the run's, where members and exchanges are recorded too.
        note: told what people should know, one line at a time.
        poll: seconds between two looks for answers.

        Raises:
            FedraxError: what cannot run on nodes, in one line.
        """
        self.local = make_runtime(config, agents=False)
        super().__init__(config, self.local.federation)
        self.training_horizon, self.evaluation_horizon = self.local.training_horizon, self.local.evaluation_horizon
        federation = self.federation
        check_distributed(config, federation)
        self.replay_bytes = 0
        self.seeded: int | None = None
        """The round that the seeds of the server's own environments are of."""
        self.directory = directory
        self.note = note
        if config.runtime.shared_seeds:
            note(SHARED)
        membership = Membership(federation.agents, directory.path / MEMBERS)
        self.dispatcher = Dispatcher(
            transport,
            membership,
            run=self._run_name(),
            config=config.to_toml(),
            terms=terms_of(config, self.local)._asdict(),
            note=note,
            poll=poll,
        )
        self.screening = Screening(
            config,
            federation,
            directory,
            note,
            horizon=self.training_horizon,
            run=self.dispatcher.run,
            name_of=membership.name_of,
        )
        self.secure: SecureServer | None = None
        if config.privacy.secure_sum:
            shapes = {"message": self.screening.message, "report": self.screening.report}
            self.secure = SecureServer(config, federation, self.dispatcher, directory, note, **shapes)
        self.pipeline: Pipeline | None = None
        if config.runtime.flower.staleness:
            self.pipeline = Pipeline(
                self.dispatcher,
                self.screening.checked(None),
                staleness=config.runtime.flower.staleness,
                seconds=config.runtime.flower.deadline,
            )
        self._opening = jitted(self._opened)
        # What nodes have summed up is clipped and noisy already.
        summed = dataclasses.replace(federation, protection=federation.protection.after_secure_sum())
        known = federation if self.secure is None else summed
        # Where the screening looks at what a round came to, it also tries without one of the messages.
        exchanging = known.exchange if self.screening.looks else partial(overflow.exchanged, known)
        self._exchanging = jitted(exchanging)
        self.private = federation.protection.unit is not None
        self._finishing = jitted(partial(overflow.finished, federation))
        self._closing = jitted(partial(close_round, federation))

    def _run_name(self) -> str:
        """The run's own, kept in its directory: nodes know by it what they saved."""
        path = self.directory.path / "run.json"
        if not path.exists():
            write_json(path, {"run": uuid.uuid4().hex}, private=True)
        return str(read_json(path, "run's name")["run"])

    @property
    def period(self) -> Period:
        """As the nodes' (:func:`travel_period`)."""
        return travel_period(self.config, self.federation.strategy)

    @property
    def rounds_per_call(self) -> int:
        """A checkpoint follows every round."""
        return 1

    def quorum(self, participants: int) -> int:
        """Answers without which a round of so many participants does not end."""
        quorum = math.ceil(self.config.runtime.flower.quorum * participants)
        return quorum if self.secure is None else max(self.secure.threshold, quorum)

    def _gather(self) -> None:
        """Waits for nodes: all agents', or in time a quorum of the most that a round asks."""
        enough = self.quorum(self.federation.participants)
        self.dispatcher.gather(self.federation.agents, enough, self.config.runtime.flower.gather)

    def init(self, initial: PyTree = ()) -> State:
        """The server before the first round."""
        return jitted(self._init)(initial)

    def shapes(self) -> State:
        """Of all seeds, without agents."""
        return jax.eval_shape(self._init, ())

    def _init(self, initial: PyTree) -> State:
        personal = self.federation.personal

        def server(key: PRNGKeyArray, initial: PyTree) -> State:
            state = self.federation.init(key, initial)
            best = () if personal else state.best
            return State(state.server, (), state.tally, best, state.best_return, state.clip)

        return jax.vmap(server)(jax.vmap(jax.random.key)(jnp.asarray(self.config.all_seeds)), initial)

    def compile(self, state: State) -> None:
        """Nothing ahead of time: what takes long is compiled on the nodes."""

    def outputs(self, state: State) -> PyTree:
        """The server's policy; personal ones stay on their nodes."""
        return () if self.federation.personal else jax.vmap(self.federation.strategy.output)(state.server)

    def advance(self, state: State, first: int) -> Iterator[tuple[State, dict[str, np.ndarray]]]:
        """One round."""
        if first == 0 or not self.dispatcher.membership.present:
            self._gather()
        started, compiled = time.perf_counter(), compile_seconds()
        one = jax.tree.map(lambda x: x[0], state)
        block = first - first % self.config.checkpoint.every
        if block != self.seeded:
            self.local.reseed(block)
            self.seeded = block
        one, metrics = self._round(one, first)
        rows = jax.tree.map(lambda x: np.asarray(x)[None, None], metrics)
        # What nodes compile is part of it: the server waits for them, and does not know what for.
        seconds = np.full((1, 1), max(time.perf_counter() - started - (compile_seconds() - compiled), 0.0))
        yield jax.tree.map(lambda x: x[None], one), {**rows, "seconds": seconds}

    def _round(self, state: State, index: int) -> tuple[State, dict[str, Any]]:
        federation = self.federation
        key = derive(jax.random.key(self.config.seed), "round", index)
        drawing = derive(self._drawing, "round", index)
        downlink, cohort = self._opening(state.server, key, drawing, state.tally.rounds)
        ids = [int(agent) for agent in np.asarray(cohort.ids)]
        byzantine = dict(zip(ids, cohort.byzantine, strict=True))

        def wrapped(outgoing: PyTree) -> tuple[bytes, str]:
            part = travelling(outgoing, self.period, index)
            return packed(part), form((part, order_shapes(federation)))

        whole = cache(lambda: wrapped(downlink))

        def order(agent: int, turn: int) -> Envelope:
            outgoing = federation.strategy.outgoing(downlink, agent)
            # What goes to all nodes is packed once, and travels to the SuperLink once.
            payload, shapes = whole() if outgoing is downlink else wrapped(outgoing)
            work = Order(byzantine[agent], state.tally, state.clip)
            fields: dict[str, Field] = {
                "run": self.dispatcher.run,
                "round": turn,
                "agent": agent,
                "form": shapes,
                "order": packed(work).hex(),
            }
            return Envelope(WORK if self.secure is None else KEYS, fields, payload)

        if self.secure is not None:
            self.secure.begin(index, whole()[0])
        asked = ids if cohort.selected is None else [int(agent) for agent in np.asarray(cohort.ids[cohort.selected])]
        answers, records = self._answers(index, asked, order, int(downlink.episodes))
        answers, dropped = self.screening.settled(index, answers, records, quorum=self.quorum(len(asked)))
        sound = {agent: answer for agent, answer in answers.items() if agent not in dropped}
        if self.secure is None:
            usable = {agent: answer.message for agent, answer in sound.items()}
        else:
            # Who drops out in a simulated way is in no sum either.
            sent = dict(zip(ids, np.asarray(cohort.answers), strict=True))
            keys = {agent: answer.keys for agent, answer in sound.items() if sent[agent]}
            usable = self.secure.means(keys, self.screening.records)
            cohort = cohort._replace(answers=jnp.asarray([agent in usable for agent in ids]))
        messages = _rows(self.screening.message, [usable.get(agent) for agent in ids])
        report = _rows(self.screening.report, [answers[agent].report if agent in answers else None for agent in ids])
        reported = jnp.asarray([agent in answers for agent in ids])
        verbs = ServerVerbs(
            reference=self.local.reference,
            exchange=partial(self._exchanged, index),
            refine=self.local.refine,
            finish=self._finishing,
            output=lambda server, _: () if federation.personal else federation.strategy.output(server),
            evaluate=lambda output, *_: self.evaluation_of_round(output, index),
            close=partial(self._close, index),
        )
        results = AgentResults((), messages, report, reported)
        return server_round(verbs, state, downlink, cohort, results, key)

    def _exchanged(self, index: int, server: PyTree, downlink: Any, cohort: Cohort, *others: Any) -> Any:
        """As :meth:`Screening.exchanged`; those whose updates are in a secure sum that was lost count as excluded."""
        exchanging = partial(self._exchanging, secret=self._noise_key())
        after, made = self.screening.exchanged(exchanging, index, server, downlink, cohort, *others)
        if self.secure is not None and self.secure.lost:
            made = made._replace(excluded=jnp.isin(cohort.ids, jnp.asarray(self.secure.lost)))
        return after, made

    def _noise_key(self) -> PRNGKeyArray | None:
        """What the noise on this round's sum is drawn from; the simulation's where nodes draw as it does."""
        return fresh_key() if self.private and not self.config.runtime.shared_seeds else None

    def _answers(
        self, index: int, ids: list[int], order: Callable[[int, int], Envelope], episodes: int
    ) -> tuple[dict[int, Worked], list[Record]]:
        """The answers to a round's orders by agent, at least a quorum of which count, and a record for each agent.

        Where too few count once they are seen beside each other, it waits for those who have not answered.
        """
        seconds, screening = self.config.runtime.flower.deadline, self.screening
        checked = screening.checked(episodes)
        if self.secure is not None:
            checked = self.secure.checked(screening.counts(episodes))
        answers: dict[int, Worked] = {}
        records: dict[int, list[Record]] = {}
        quorum = self.quorum(len(ids))
        missing, enough = ids, quorum
        while True:
            asked = self.screening.ledger.asked(
                index, missing, enough=enough, present=self.dispatcher.membership.present
            )
            if self.pipeline is not None:
                more, rows = self.pipeline.gather(index, order, agents=asked, enough=enough)
            else:
                questions = {
                    agent: Question(order(agent, index), partial(checked, agent=agent, turn=index)) for agent in missing
                }
                first = {agent: questions.pop(agent) for agent in asked}
                more, rows = self.dispatcher.ask(first, enough=enough, seconds=seconds, reserve=questions)
            answers |= more
            for agent in {row.agent for row in rows}:
                records[agent] = [row for row in rows if row.agent == agent]
            usable = self.screening.usable(index, answers)
            outcomes = {agent: {row.outcome for row in rows} for agent, rows in records.items()}
            missing = [agent for agent in ids if agent not in answers and EXCLUDED not in outcomes.get(agent, ())]
            if usable >= quorum or not missing:
                return answers, [row for agent in sorted(records) for row in records[agent]]
            enough = min(quorum - usable, len(missing))

    def _close(self, index: int, state: State, result: RoundResult) -> tuple[State, dict[str, Any]]:
        self._tell_of_its_own(index, result.own, result.evaluation)
        return self._closing(state, result)

    def _tell_of_its_own(self, index: int, own: Mapping[str, Any], evaluation: Mapping[str, Any]) -> None:
        """People are told what was not finite of the server's own trajectories and of its evaluation."""
        fault, troubles = Fault.of_row(np.asarray(own["fault"])), []
        if fault.kind != NOTHING:
            troubles.append(described(recorded("server", fault, episodic=True, updates=1)))
        if not np.isnan(evaluation["episode_length"]) and not np.isfinite(evaluation["return"]):
            troubles.append(BAD_EVALUATION)
        for trouble in troubles:
            self.note(f"round {index + 1}, seed {self.config.seed}: {trouble}")

    def _opened(self, server: PyTree, key: PRNGKeyArray, drawing: PRNGKeyArray, round: Array) -> tuple[PyTree, Cohort]:
        return self.federation.broadcast(server, key, round), self.federation.cohort(drawing)

    @cached_property
    def _drawing(self) -> PRNGKeyArray:
        """The root of the draws of who takes part.

        Where their chance is to hide who did, whoever has the configuration must not know it: it is of a secret in the
        run's directory.
        """
        if not (self.private and self.federation.chance is not None) or self.config.runtime.shared_seeds:
            return jax.random.key(self.config.seed)
        secret = node_secret(self.directory.path)
        return secret_randomness(secret, self.dispatcher.run, self.config.seed).key

    @property
    def differ(self) -> bool:
        """Whether the configuration sets the agents' environments apart; what nodes set apart is not known here."""
        return self.local.differ

    @property
    def environments(self) -> Environments:
        """As configured: the nodes' own may differ although the configuration does not say so."""
        return "own" if self.config.evaluation.environments == "own" else super().environments

    def evaluate_pairs(
        self,
        params: PyTree,
        pairs: Pairs,
        *,
        seed: int,
        position: int = 0,
        draws: list[dict[str, float]] | None = None,
    ) -> dict[str, np.ndarray]:
        """At the server, in the environments that the configuration draws; each agent's in its own on its node.

        NaN for agents that are not there; for a quorum it waits until the deadline.
        """
        if self.environments != "own":
            return self.local.evaluate_pairs(params, pairs, seed=seed, draws=draws)
        episodes = pairs.episodes
        payload = b"" if self.federation.personal else packed(params)
        if not self.dispatcher.membership.present:
            self._gather()
        run = self.dispatcher.run

        def question(agent: int) -> Question:
            fields: dict[str, Field] = {"run": run, "agent": agent, "episodes": episodes, "seed": seed}

            def check(answer: Envelope) -> dict[str, np.ndarray]:
                return check_evaluation(
                    answer, run=run, agent=agent, episodes=episodes, horizon=self.evaluation_horizon
                )

            return Question(Envelope(EVALUATE, fields, payload), check)

        agents, flower = self.federation.agents, self.config.runtime.flower
        questions = {agent: question(agent) for agent in range(agents)}
        paused = {agent: questions.pop(agent) for agent in self.screening.ledger.paused}
        wanted = min(math.ceil(flower.quorum * agents), len(questions))
        answers, records = self.dispatcher.ask(
            questions, enough=1, wanted=wanted, seconds=flower.deadline, reserve=paused
        )
        answers = self.screening.evaluated(answers, records)
        # A name that only some nodes know is not comparable; an agent that is not there has nothing.
        known = (*MEASURED, SUCCESS, LAST, SHARE) if answers else MEASURED
        names = [name for name in known if all(name in table for table in answers.values())]
        measured = {name: np.full((agents, episodes), np.nan) for name in names}
        for agent, table in answers.items():
            for name in names:
                measured[name][agent] = table[name]
        return {name: array.reshape(self.policies, pairs.columns, episodes) for name, array in measured.items()}

    def scores(self, table: dict[str, np.ndarray], pairs: Pairs) -> dict[str, Any]:
        """Over the agents that were there."""
        with warnings.catch_warnings():
            # Of an agent that was not there, nothing is known.
            warnings.simplefilter("ignore", RuntimeWarning)
            return scores(table, pairs, mean=np.nanmean, least=np.nanmin)

    def evaluate_across(
        self, params: PyTree, *, episodes: int, seed: int, position: int = 0, unseen: int = 0
    ) -> Evaluation:
        """In environments drawn here: the nodes' own are on the nodes."""
        return self.local.evaluate_across(params, episodes=episodes, seed=seed, unseen=unseen)

    def reference(self, server: PyTree, downlink: Any, key: PRNGKeyArray) -> Episodes | None:
        """From the server's own environment."""
        return self.local.reference(server, downlink, key)

    def refine(self, server: PyTree, key: PRNGKeyArray) -> tuple[PyTree, dict[str, Any]]:
        """In the server's own environment."""
        return self.local.refine(server, key)

    def end(self, rounds: int) -> None:
        """Tells the nodes that the run is over after so many rounds."""
        self.dispatcher.end(rounds)

    def close(self) -> None:
        """Frees the server's environments."""
        self.local.close()


def _rows(shapes: PyTree, trees: list[PyTree | None]) -> PyTree:
    """Trees of one shape as rows, zeros where there is none."""
    nothing = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    known = [nothing if tree is None else tree for tree in trees]
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *known)
