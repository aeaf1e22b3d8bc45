"""The service that runs a node's agent: it answers requests, and goes on after a crash.

The agent is saved before the answer to a round leaves, so that a request that comes twice gets the same answer twice,
and a restarted agent goes on where it was. In a fast run its order is, and the agent while its answer travels: one that
died in between does the round again. Nothing leaves it but its messages, its report in numbers and the returns of its
evaluations.
"""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fedrax.arrays import DecodeError, form, packed, unpacked
from fedrax.config import Config, parse_override, resolve
from fedrax.environments.crash import EnvironmentCrash
from fedrax.environments.faults import NOTHING, Fault, described, recorded
from fedrax.environments.success import LAST, MEASURED, SHARE, SUCCESS
from fedrax.errors import FedraxError
from fedrax.layers import merge_settings
from fedrax.message import filled, travelling
from fedrax.migration import present_keys
from fedrax.parsing import parsed_toml
from fedrax.plugins import short_name
from fedrax.records.checkpoint import latest_round, load_checkpoint, save_checkpoint
from fedrax.records.files import append_traceback, keep_private, read_json, write_atomic, write_json
from fedrax.runtime.distributed.agent_runtime import (
    AgentRuntime,
    AgentSnapshot,
    make_agent_runtime,
    order_shapes,
    report_shapes,
    travel_period,
)
from fedrax.runtime.distributed.checks import withheld
from fedrax.runtime.distributed.envelopes import (
    EVALUATE,
    EVALUATED,
    JOIN,
    JOINED,
    REFUSED,
    UNKNOWN_RUN,
    WORK,
    WORKED,
    Envelope,
    from_bytes,
    to_bytes,
)
from fedrax.runtime.distributed.randomness import Randomness, node_secret, secret_randomness, shared_randomness
from fedrax.runtime.distributed.releases import count_release
from fedrax.trees import tree_bytes

logger = logging.getLogger(__name__)

UNKNOWN = -1
"""The index of an agent that has none yet."""


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
    ) -> None:
        """Args:
        folder: where the node's name, its secret and its agent's state are kept.
        overrides: ``environment...=value``, what differs at this site from what the server says.
        agent: the agent that it asks to be; unset, the server chooses.
        plugins: the only plugins that this node imports, in place of the server's of the same name.
        shared_seeds: a run may ask it to draw from the run's seed (``runtime.shared_seeds``); others are refused.

        Raises:
            FedraxError: overrides of anything but the environment; a secret that is none.
        """
        self.folder, self.overrides, self.wanted, self.plugins = folder, list(overrides), agent, list(plugins)
        self.shared_seeds = shared_seeds
        check_overrides(overrides)
        self.name, self.secret = self._name(), node_secret(folder)
        self.session: AgentSession | None = None

    def _name(self) -> str:
        path = self.folder / "node.json"
        if not path.exists():
            write_json(path, {"name": uuid.uuid4().hex}, private=True)
        keep_private(path)
        return str(read_json(path, "node's name")["name"])

    def answer(self, envelope: Envelope) -> Envelope:
        """The answer to a request; a refusal is an answer too, and says why."""
        try:
            self.flush()
            if envelope.kind == JOIN:
                return self._join(envelope)
            session = self._session(envelope.fields.get("run"))
            if session is None:
                return Envelope(UNKNOWN_RUN)
            if envelope.kind == WORK:
                return session.work(envelope)
            if envelope.kind == EVALUATE:
                return session.evaluate(envelope)
            return refused(f"no request is called {envelope.kind!r}")
        except EnvironmentCrash as crash:
            path = append_traceback(self.folder, crash)
            logger.error("%s; the traceback is in %s", crash, path)
            return refused(str(crash))
        except (FedraxError, DecodeError) as error:
            return refused(str(error))
        except Exception as error:
            # An error in one request must not end the service.
            logger.exception("a request %r failed", envelope.kind)
            return refused(f"{type(error).__name__}: {error}")

    def _join(self, envelope: Envelope) -> Envelope:
        run = str(envelope.fields["run"])
        if not run.isalnum():
            raise FedraxError(f"run {run!r} is no name of a run")
        session, text = self._session(run), str(envelope.fields["config"])
        # A run may have been extended since: its budget is what learning rates are annealed over.
        if session is None or (session.folder / "config.toml").read_text(encoding="utf-8") != text:
            session = self._start_session(run, text)
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

    def _session(self, run: object) -> AgentSession | None:
        """The session of a run that the node has joined, with this process or an earlier one."""
        if self.session is not None and self.session.run == run:
            return self.session
        if not isinstance(run, str) or not run.isalnum():
            return None
        saved = self.folder / "runs" / run / "config.toml"
        return self._start_session(run, saved.read_text(encoding="utf-8")) if saved.exists() else None

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
        randomness = self._randomness(run, config)
        if self.session is not None:
            self.session.close()
        folder = self.folder / "runs" / run
        write_atomic(folder / "config.toml", text)
        site = merge_settings([parse_override(override) for override in self.overrides]).get("environment", {})
        self.session = AgentSession(run, config, folder, randomness, environment=site.get("id"))
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


class AgentSession:
    """An agent in one run."""

    def __init__(
        self, run: str, config: Config, folder: Path, randomness: Randomness, *, environment: str | None = None
    ) -> None:
        """``environment`` is the one that the site says it has; unset, it has the server's."""
        self.run, self.config, self.folder, self.randomness = run, config, folder, randomness
        self.environment = environment
        self.runtime: AgentRuntime | None = None
        self.snapshot: AgentSnapshot | None = None
        self.done = 0
        """Rounds whose work is done: the next one's number, unless the agent was left out of some."""
        self.reply: bytes = b""
        """The answer to the last of them."""
        self.took = 0.0
        self.unsaved = False
        self.order = folder / "order"
        """The last order whose answer may have left before the agent was saved, in a fast run."""
        self.lost: Envelope | None = None
        """That order, where the agent has yet to do it again."""
        identity = folder / "agent.json"
        self.index = int(read_json(identity, "agent's identity")["agent"]) if identity.exists() else UNKNOWN
        if self.index != UNKNOWN:
            self._load(self.index)

    def _load(self, index: int) -> None:
        """Becomes the agent at ``index``: as it was saved, or fresh."""
        if not 0 <= index < self.config.federation.agents:
            raise FedraxError(f"there is no agent {index}; there are agents 0 to {self.config.federation.agents - 1}")
        self._check_task(index)
        if self.runtime is not None:
            # What crashed may not close in order either.
            with contextlib.suppress(Exception):
                self.runtime.close()
        self.runtime = make_agent_runtime(self.config, index, self.randomness)
        federation = self.runtime.federation
        message, downlink = federation.shapes()
        self.message, self.report = message, report_shapes(federation, self.config.environment.num_envs)
        self.incoming = jax.eval_shape(partial(federation.strategy.outgoing, index=index), downlink)
        self.period = travel_period(self.config, federation.strategy)
        self.orders = order_shapes()
        self.policies = jax.eval_shape(lambda: federation.learner.init_params(jax.random.key(0), federation.spaces))
        self.snapshot = self.runtime.start()
        saved = load_checkpoint(self.folder / "checkpoints", self._kept(b""))
        if saved is not None:
            kept, meta = saved
            self.snapshot, self.done = kept["snapshot"], int(meta["round"])
            self.reply = kept["reply"].tobytes()[: meta.get("reply_bytes")]
            self.took = float(meta["seconds"])
        self.lost = self._lost()
        write_json(self.folder / "agent.json", {"agent": index}, private=True)
        self.index = index

    def _lost(self) -> Envelope | None:
        """The order of a round that was answered, and not saved."""
        with contextlib.suppress(FileNotFoundError, DecodeError):
            order = from_bytes(self.order.read_bytes())
            return order if int(order.fields["round"]) >= self.done else None
        return None

    @property
    def upcoming(self) -> int:
        """The number of the round that comes next."""
        return self.done if self.lost is None else int(self.lost.fields["round"]) + 1

    def _check_task(self, index: int) -> None:
        """Raises :class:`FedraxError` where agents have tasks, and this one's is not the site's environment."""
        tasks = self.config.environment.tasks
        if not tasks or self.environment is None or tasks[index % len(tasks)] == self.environment:
            return
        able = [str(k) for k in range(self.config.federation.agents) if tasks[k % len(tasks)] == self.environment]
        advice = f"start the node with --agent {' or '.join(able)}" if able else "no agent of the run has that"
        raise FedraxError(
            f"agent {index} of the run has {tasks[index % len(tasks)]}, and this site has {self.environment}; {advice}"
        )

    def _kept(self, reply: bytes) -> dict[str, Any]:
        # In some rounds a message is shorter; what is saved has one shape.
        longest = tree_bytes((self.message, self.report))
        return {"snapshot": self.snapshot, "reply": np.frombuffer(reply.ljust(longest, b"\0"), np.uint8)}

    def refresh(self) -> None:
        """Loads the agent again where more rounds were saved than this process has done."""
        if self.index != UNKNOWN and (latest_round(self.folder / "checkpoints") or 0) > self.done:
            self._load(self.index)

    def _agent_runtime(self, index: int) -> AgentRuntime:
        if self.runtime is None:
            self._load(index)
        if self.index != index:
            raise FedraxError(f"this node is agent {self.index} of the run, not agent {index}")
        assert self.runtime is not None
        if self.lost is not None:
            order, self.lost = self.lost, None
            self._work(self.runtime, int(order.fields["round"]), order)
            self.save()
        return self.runtime

    def work(self, envelope: Envelope) -> Envelope:
        """The agent's half of a round, or its answer once more where the round is done already."""
        runtime, number = self._agent_runtime(int(envelope.fields["agent"])), int(envelope.fields["round"])
        if number < self.done - 1:
            raise FedraxError(f"the agent has done round {self.done}, and cannot go back to round {number + 1}")
        if number != self.done - 1 or not self.reply:
            self._work(runtime, number, envelope)
        fields: dict[str, int | float | str | bool] = {
            "run": self.run,
            "round": number,
            "agent": self.index,
            "form": form((self._sent(self.message, number), self.report)),
            "seconds": self.took,
        }
        return Envelope(WORKED, fields, self.reply)

    def _work(self, runtime: AgentRuntime, number: int, envelope: Envelope) -> None:
        incoming = travelling(self.incoming, self.period, number)
        if envelope.fields["form"] != form((incoming, self.orders)):
            raise FedraxError(
                "the server's arrays have other shapes than this node's: its environment's spaces must be the server's"
            )
        received = jax.tree.map(jnp.asarray, filled(self.incoming, unpacked(incoming, envelope.payload)))
        order = jax.tree.map(jnp.asarray, unpacked(self.orders, bytes.fromhex(str(envelope.fields["order"]))))
        downlink = runtime.federation.strategy.incoming(received, self.index)
        count_release(self.folder / "releases.json", runtime.runtime.guarantee)
        started = time.perf_counter()
        snapshot, self.snapshot = self.snapshot, None
        assert snapshot is not None
        try:
            snapshot, message, report = runtime.work(snapshot, downlink, order, number)
        except BaseException:
            # The snapshot was donated: the agent goes on from what was saved, and without a round that fails again.
            self.order.unlink(missing_ok=True)
            self._load(self.index)
            raise
        fault = Fault.of_row(np.asarray(report["fault"]))
        took = time.perf_counter() - started
        if runtime.federation.protection.unit is not None:
            report, took = withheld(report, runtime.counts(int(downlink.episodes))), 0.0
        if fault.kind != NOTHING:
            learner, updates = runtime.federation.learner, runtime.federation.local_updates
            entry = recorded(self.index, fault, episodic=learner.episodic, updates=updates)
            logger.warning("round %d: %s", number + 1, described(entry))
        self.reply = packed((self._sent(message, number), report))
        self.took = took
        self.snapshot, self.done = snapshot, number + 1
        self.unsaved = self.done % self.config.runtime.flower.save_every == 0
        if not self.config.runtime.flower.fast:
            self.save()
        elif self.unsaved:
            write_atomic(self.order, to_bytes(envelope))

    def _sent(self, message: PyTree, number: int) -> PyTree:
        """What of a message is sent in this round."""
        return travelling(message, self.period, number + 1)

    def save(self) -> None:
        """Saves the agent after the last round, where it is due and has not been saved."""
        if self.unsaved:
            meta = {"seconds": self.took, "reply_bytes": len(self.reply)}
            save_checkpoint(self.folder / "checkpoints", self.done, self._kept(self.reply), meta)
            self.unsaved = False

    def evaluate(self, envelope: Envelope) -> Envelope:
        """Episodes of a policy that was sent, or of the agent's own: named arrays, one after the other."""
        runtime = self._agent_runtime(int(envelope.fields["agent"]))
        assert self.snapshot is not None
        if envelope.payload:
            policy: PyTree = jax.tree.map(jnp.asarray, unpacked(self.policies, envelope.payload))
        else:
            policy = runtime.own_policy(self.snapshot)
        episodes, seed = int(envelope.fields["episodes"]), int(envelope.fields["seed"])
        table = runtime.evaluate(policy, episodes=episodes, seed=seed)
        # Compiled programs hand dictionaries back by the alphabet.
        known = [name for name in (*MEASURED, SUCCESS, LAST, SHARE) if name in table]
        fields: dict[str, int | float | str | bool] = {"run": self.run, "agent": self.index, "names": ",".join(known)}
        return Envelope(EVALUATED, fields, packed([table[name].astype(np.float32) for name in known]))

    def close(self) -> None:
        """Frees environments."""
        if self.runtime is not None:
            self.runtime.close()


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
