"""The service that runs a node's agent: it answers requests, and goes on after a crash.

The agent is saved before the answer to a round leaves, so that a request that comes twice gets the same answer twice,
and a restarted agent goes on where it was. In a fast run its order is, and the agent while its answer travels: one that
died in between does the round again. Nothing leaves it but its messages, its report in numbers and the returns of its
evaluations.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from fedrax.config import Config, parse_override, resolve
from fedrax.environments.crash import EnvironmentCrash
from fedrax.errors import FedraxError
from fedrax.layers import merge_settings
from fedrax.migration import present_keys
from fedrax.parsing import DecodeError, parsed_toml
from fedrax.plugins import short_name
from fedrax.privacy.secure_sum.identity import NOBODY, Identity
from fedrax.privacy.secure_sum.terms import SecureSumError
from fedrax.records.files import append_traceback, keep_private, read_json, write_atomic, write_json
from fedrax.records.sites import SHOWN
from fedrax.runtime.distributed.agent_session import UNKNOWN, AgentSession
from fedrax.runtime.distributed.envelopes import (
    CANNOT,
    END,
    ENDED,
    EVALUATE,
    JOIN,
    JOINED,
    KEYS,
    OVER,
    REFUSED,
    UNFIT,
    UNKNOWN_RUN,
    WITHOUT,
    WORK,
    Envelope,
)
from fedrax.runtime.distributed.randomness import Randomness, node_secret, secret_randomness, shared_randomness
from fedrax.runtime.distributed.secure_terms import ANSWERS
from fedrax.runtime.distributed.terms import check_terms

logger = logging.getLogger(__name__)


class AgentService:
    """The agent of one node, in every run it takes part in, one at a time."""

    def __init__(
        self,
        folder: Path,
        *,
        overrides: Sequence[str] = (),
        agent: int | None = None,
        plugins: Sequence[str] = (),
        shared_seeds: bool = False,
        identity: Identity = NOBODY,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Args:
        folder: where the node's name, its secret and its agent's state are kept.
        overrides: ``environment...=value``, what differs at this site from what the server says.
        agent: the agent that it asks to be; unset, the server chooses.
        plugins: the only plugins that this node imports, in place of the server's of the same name.
        shared_seeds: a run may ask it to draw from the run's seed (``runtime.shared_seeds``); others are refused.
        identity: for secure sums; with peers' keys in it, runs without secure sums are refused.
        tell: told what the agent does, a line each.

        Raises:
            FedraxError: overrides of anything but the environment; a secret that is none.
        """
        self.folder, self.overrides, self.wanted, self.plugins = folder, list(overrides), agent, list(plugins)
        self.shared_seeds, self.identity, self.tell = shared_seeds, identity, tell
        check_overrides(overrides)
        self.name, self.secret = self._name(), node_secret(folder)
        self.session: AgentSession | None = None
        self.fitting: AgentSession | None = None
        """The last session that was found to fit its run."""
        self.asked: str | None = None
        """The run that it was last asked to join."""
        self.refusals: dict[str, str] = {}
        """Why the last request of a kind was refused, if it was."""
        self.no_place: str | None = None
        """Why the server has no place for it."""

    def _name(self) -> str:
        path = self.folder / "node.json"
        if not path.exists():
            write_json(path, {"name": uuid.uuid4().hex}, private=True)
        keep_private(path)
        return str(read_json(path, "node's name")["name"])

    def answer(self, envelope: Envelope) -> Envelope:
        """The answer to a request; a refusal is an answer too, and says why, also to who runs the node."""
        reply = self._answer(envelope)
        reason = str(reply.fields["reason"]) if reply.kind in (REFUSED, UNFIT) else None
        if reason is None:
            self.refusals.pop(envelope.kind, None)
        elif reason != self.refusals.get(envelope.kind):
            self.refusals[envelope.kind] = reason
            self.tell(f"{CANNOT if reply.kind == UNFIT else 'a request of the server is refused'}: {reason}")
        return reply

    def _answer(self, envelope: Envelope) -> Envelope:
        try:
            self.flush()
            if envelope.kind == JOIN:
                return self._join(envelope)
            if envelope.kind == END:
                return self._end(envelope)
            session = self._session(envelope.fields.get("run"))
            if session is None:
                return Envelope(UNKNOWN_RUN)
            # Only who has a place is asked for anything else.
            self.no_place = None
            if envelope.kind in (WORK, KEYS):
                return session.work(envelope)
            if envelope.kind in ANSWERS:
                return session.sum(envelope)
            if envelope.kind == EVALUATE:
                return session.evaluate(envelope)
            return refused(f"no request is called {envelope.kind!r}")
        except EnvironmentCrash as crash:
            path = append_traceback(self.folder, crash)
            logger.error("%s; the traceback is in %s", crash, path)
            return refused(str(crash))
        except (FedraxError, DecodeError, SecureSumError) as error:
            return refused(str(error))
        except Exception as error:
            # An error in one request must not end the service.
            logger.exception("a request %r failed", envelope.kind)
            return refused(f"{type(error).__name__}: {error}")

    def _end(self, envelope: Envelope) -> Envelope:
        """The run is over: whoever runs the node may end it. Of another run than that which it works on, nothing."""
        run, present = str(envelope.fields.get("run")), self.asked if self.session is None else self.session.run
        # A process that was asked for nothing yet may have been in it before.
        if run != present and (present is not None or not self._has_joined(run)):
            return Envelope(UNKNOWN_RUN)
        rounds, why = int(envelope.fields["rounds"]), self._left_out()
        self.tell(f"{OVER}, after {rounds} rounds" if why is None else f"{WITHOUT}, after {rounds} rounds: {why}")
        return Envelope(ENDED, {"run": run})

    def _left_out(self) -> str | None:
        """Why it has no part in the run, if it was to have one."""
        refusals = [self.refusals[kind] for kind in (WORK, KEYS, JOIN) if kind in self.refusals]
        return self.no_place or next(iter(refusals), None)

    def _join(self, envelope: Envelope) -> Envelope:
        run = str(envelope.fields["run"])
        if not run.isalnum():
            raise FedraxError(f"run {run!r} is no name of a run")
        self.asked = run
        try:
            session = self._fitting_session(run, envelope)
        except EnvironmentCrash:
            raise
        except FedraxError as error:
            reason = refused(str(error)).fields["reason"]
            agent = UNKNOWN if self.wanted is None else self.wanted
            return Envelope(UNFIT, {"run": run, "node": self.name, "agent": agent, "reason": reason})
        self._hear(session.config.name, envelope.fields.get("refused"))
        index = UNKNOWN if self.wanted is None else self.wanted
        return Envelope(
            JOINED,
            {
                "run": run,
                "node": self.name,
                "agent": session.index if session.index != UNKNOWN else index,
                "done": session.upcoming,
            },
        )

    def _fitting_session(self, run: str, envelope: Envelope) -> AgentSession:
        """The session of the run that it is asked to join.

        Raises:
            FedraxError: what it was started with does not fit the run.
        """
        session, text = self._session(run), str(envelope.fields["config"])
        # A run may have been extended since: its budget is what learning rates are annealed over.
        if session is None or (session.folder / "config.toml").read_text(encoding="utf-8") != text:
            session = self._start_session(run, text)
        if self.fitting is not session:
            session.check_agent(self.wanted if session.index == UNKNOWN else session.index)
            check_terms(session.config, envelope.fields, changed=bool(self.overrides))
            self.fitting = session
        return session

    def _hear(self, name: str, why: object) -> None:
        """Takes in why its last answer to a request to join brought it no place; none where it was the first."""
        before, self.no_place = self.no_place, why if isinstance(why, str) else None
        if self.no_place is not None and self.no_place != before:
            self.tell(
                f"no place for this node ({self.name[:SHOWN]}) in the run {name!r}: {self.no_place}; it waits for one "
                "until the run is over"
            )

    def _session(self, run: object) -> AgentSession | None:
        """The session of a run that the node has joined, with this process or an earlier one."""
        if self.session is not None and self.session.run == run:
            return self.session
        if not isinstance(run, str) or not self._has_joined(run):
            return None
        return self._start_session(run, self._saved(run).read_text(encoding="utf-8"))

    def _has_joined(self, run: str) -> bool:
        """Whether an earlier process of the node was in the run."""
        return run.isalnum() and self._saved(run).exists()

    def _saved(self, run: str) -> Path:
        return self.folder / "runs" / run / "config.toml"

    def _start_session(self, run: str, text: str) -> AgentSession:
        """Starts the session of a run with this configuration, and ends the one before."""
        # Plugins are code: what the server names is imported only from where this node's owner says.
        table = merge_settings([present_keys(parsed_toml(text))])
        own = {short_name(plugin) for plugin in self.plugins}
        missing = [plugin for plugin in table.pop("plugins") if short_name(plugin) not in own]
        if missing:
            raise FedraxError(
                f"the run needs the plugins {', '.join(missing)}, which are code: start the node with --plugins FILE, "
                "this site's own copy, for each that you trust"
            )
        config = resolve(table, self.overrides, plugins=self.plugins)
        if self.identity.peers is not None and not config.privacy.secure_sum:
            raise FedraxError(
                "this node takes part in secure sums alone, as it was given --peers, and the run has none: start the "
                "node without, or the run with privacy.secure_sum=true"
            )
        randomness = self._randomness(run, config)
        if self.session is not None:
            self.session.close()
        folder = self.folder / "runs" / run
        write_atomic(folder / "config.toml", text)
        site = merge_settings([parse_override(override) for override in self.overrides]).get("environment", {})
        self.session = AgentSession(
            run, config, folder, randomness, environment=site.get("id"), identity=self.identity, tell=self.tell
        )
        return self.session

    def _randomness(self, run: str, config: Config) -> Randomness:
        if config.runtime.shared_seeds:
            if not self.shared_seeds:
                raise FedraxError(
                    "the run asks for runtime.shared_seeds, with which its server can recompute what this node sees: "
                    "start the node with --shared-seeds to agree, or the run without"
                )
            return shared_randomness(config.seed)
        return secret_randomness(self.secret, run, config.seed)

    def flush(self) -> None:
        """Saves what has not been saved: in a fast run an agent is saved while its answer travels."""
        if self.session is not None:
            self.session.save()

    def refresh(self) -> None:
        """Loads what another process may have saved of the same agent meanwhile."""
        if self.session is not None:
            self.session.refresh()

    def close(self) -> None:
        """Frees environments."""
        if self.session is not None:
            self.session.close()


def check_overrides(overrides: Sequence[str]) -> None:
    """Raises :class:`FedraxError` for overrides of anything but the environment."""
    for override in overrides:
        if set(parse_override(override)) != {"environment"}:
            raise FedraxError(
                f"{override!r} is not a node's to say: it may set environment.KEY=VALUE, the rest is the server's"
            )


def refused(reason: str) -> Envelope:
    """A node's answer to what it cannot do."""
    return Envelope(REFUSED, {"reason": " ".join(reason.split())[:500]})
