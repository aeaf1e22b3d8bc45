"""A node's agent in one run: what it was asked for, what it has done, and what of both is saved."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fedrax.arrays import form, packed, unpacked
from fedrax.config import Config
from fedrax.environments.faults import NOTHING, Fault, described, recorded
from fedrax.environments.success import LAST, MEASURED, SHARE, SUCCESS
from fedrax.errors import FedraxError
from fedrax.message import filled, travelling
from fedrax.parsing import DecodeError
from fedrax.privacy.secure_sum.identity import NOBODY, Identity
from fedrax.records.checkpoint import latest_round, load_checkpoint, save_checkpoint
from fedrax.records.files import read_json, write_atomic, write_json
from fedrax.runtime.distributed.agent_runtime import (
    AgentRuntime,
    AgentSnapshot,
    make_agent_runtime,
    order_shapes,
    report_shapes,
    travel_period,
)
from fedrax.runtime.distributed.checks import withheld
from fedrax.runtime.distributed.envelopes import EVALUATED, KEYED, KEYS, WORKED, Envelope, from_bytes, to_bytes
from fedrax.runtime.distributed.randomness import Randomness
from fedrax.runtime.distributed.releases import count_release
from fedrax.runtime.distributed.secure_terms import context_of, digest_of
from fedrax.trees import tree_bytes
from fedrax.wording import counted

if TYPE_CHECKING:
    from fedrax.runtime.distributed.secure_node import SecureNode

logger = logging.getLogger(__name__)

UNKNOWN = -1
"""The index of an agent that has none yet."""


class AgentSession:
    """An agent in one run."""

    def __init__(
        self,
        run: str,
        config: Config,
        folder: Path,
        randomness: Randomness,
        *,
        environment: str | None = None,
        identity: Identity = NOBODY,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        """``environment`` is the one that the site says it has; unset, it has the server's. ``tell`` is told who the
        agent is and what it does, a line each."""
        self.run, self.config, self.folder, self.randomness = run, config, folder, randomness
        self.environment, self.identity, self.tell = environment, identity, tell
        self.secure: SecureNode | None = None
        self.runtime: AgentRuntime | None = None
        self.snapshot: AgentSnapshot | None = None
        self.done = 0
        """Rounds whose work is done: the next one's number, unless the agent was left out of some."""
        self.reply: bytes = b""
        """The answer to the last of them."""
        self.received = digest_of(b"")
        """Of the broadcast that it was of."""
        self.episodes = 0
        """Those that it was asked for then."""
        self.took = 0.0
        self.unsaved = self.told = False
        self.order = folder / "order"
        """The last order whose answer may have left before the agent was saved, in a fast run."""
        self.lost: Envelope | None = None
        """That order, where the agent has yet to do it again."""
        known = folder / "agent.json"
        self.index = int(read_json(known, "agent's identity")["agent"]) if known.exists() else UNKNOWN
        if self.index != UNKNOWN:
            self._load(self.index)

    def _load(self, index: int) -> None:
        """Becomes the agent at ``index``: as it was saved, or fresh."""
        self.check_agent(index)
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
        self.orders = order_shapes(federation)
        if self.config.privacy.secure_sum and self.secure is None:
            # Not before it is needed: `cryptography` comes with an extra.
            from fedrax.runtime.distributed.secure_node import SecureNode

            self.secure = SecureNode(
                self.config,
                self.folder,
                run=self.run,
                agent=index,
                participants=federation.participants,
                update=message.update,
                key=self.runtime.key,
                identity=self.identity,
            )
        self.policies = jax.eval_shape(lambda: federation.learner.init_params(jax.random.key(0), federation.spaces))
        self.snapshot = self.runtime.start()
        saved = load_checkpoint(self.folder / "checkpoints", self._kept(b""))
        if saved is not None:
            kept, meta = saved
            self.snapshot, self.done = kept["snapshot"], int(meta["round"])
            self.reply = kept["reply"].tobytes()[: meta.get("reply_bytes")]
            self.took = float(meta["seconds"])
            self.received = meta.get("received", self.received)
            self.episodes = meta.get("episodes", self.episodes)
        self.lost = self._lost()
        write_json(self.folder / "agent.json", {"agent": index}, private=True)
        if self.index != index or not self.told:
            self.told = True
            count, done = self.config.federation.agents, counted(self.done, "round")
            others = f"one of agents 0 to {count - 1}" if count > 1 else "its only agent"
            self.tell(f"this node is agent {index} of the run {self.config.name!r}, {others}, after {done}")
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

    def check_agent(self, index: int | None) -> None:
        """Whether the site can be this agent, or any where it is None.

        Raises:
            FedraxError: there is no such agent, or agents have tasks, and its is not the site's environment.
        """
        count, tasks = self.config.federation.agents, self.config.environment.tasks
        if index is not None and not 0 <= index < count:
            raise FedraxError(f"there is no agent {index}; there are agents 0 to {count - 1}")
        if not tasks or self.environment is None:
            return
        able = [k for k in range(count) if tasks[k % len(tasks)] == self.environment]
        if index in able or (index is None and len(able) == count):
            return
        advice = (
            f"start the node with --agent {' or '.join(map(str, able))}" if able else "no agent of the run has that"
        )
        which = "an agent" if index is None else f"agent {index}"
        task = "a task of its own" if index is None else tasks[index % len(tasks)]
        raise FedraxError(f"{which} of the run has {task}, and the node has {self.environment}; {advice}")

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
        if (envelope.kind == KEYS) != (self.secure is not None):
            raise FedraxError("the run's configuration says otherwise whether updates are in secure sums")
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
        if self.secure is None:
            return Envelope(WORKED, fields, self.reply)
        report = self.reply[-tree_bytes(self.report) :]
        context = context_of((self.folder / "config.toml").read_text(encoding="utf-8"), self.received)
        return Envelope(KEYED, fields | {"form": form(self.report)}, report + self.secure.keys(number, context))

    def sum(self, envelope: Envelope) -> Envelope:
        """A further stage of a secure sum."""
        self._agent_runtime(int(envelope.fields["agent"]))
        if self.secure is None:
            raise FedraxError("the run has no secure sums")
        assert self.runtime is not None
        return self.secure.answer(envelope, self._update, self.runtime.noise_share(self.episodes))

    def _update(self, number: int) -> PyTree:
        """The update of the last round."""
        if number != self.done - 1 or not self.reply:
            raise FedraxError(f"the agent has done round {self.done}, and has no update of round {number + 1}")
        message, _ = unpacked((self._sent(self.message, number), self.report), self.reply)
        return message.update

    def _work(self, runtime: AgentRuntime, number: int, envelope: Envelope) -> None:
        incoming = travelling(self.incoming, self.period, number)
        if envelope.fields["form"] != form((incoming, self.orders)):
            raise FedraxError(
                "the server's arrays have other shapes than the node's, whose environment is "
                f"{self.config.environment.id}: observations and actions must be of the same shapes and types (fedrax "
                "node --environment)"
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
        self._tell_round(runtime, number, took, fault)
        if runtime.federation.protection.unit is not None:
            report, took = withheld(report, runtime.counts(int(downlink.episodes))), 0.0
        self.reply = packed((self._sent(message, number), report))
        self.episodes = int(downlink.episodes)
        self.took, self.received = took, digest_of(envelope.payload)
        self.snapshot, self.done = snapshot, number + 1
        self.unsaved = self.done % self.config.runtime.flower.save_every == 0
        if not self.config.runtime.flower.fast:
            self.save()
        elif self.unsaved:
            write_atomic(self.order, to_bytes(envelope))

    def _tell_round(self, runtime: AgentRuntime, number: int, seconds: float, fault: Fault) -> None:
        """What was done in a round."""
        if fault.kind == NOTHING:
            self.tell(f"round {number + 1}: trained in {seconds:.2f} s")
            return
        learner, updates = runtime.federation.learner, runtime.federation.local_updates
        entry = recorded(self.index, fault, episodic=learner.episodic, updates=updates)
        logger.warning("round %d: %s", number + 1, described(entry))
        self.tell(f"round {number + 1}: void after {seconds:.2f} s, {described(entry)}")

    def _sent(self, message: PyTree, number: int) -> PyTree:
        """What of a message is sent in this round."""
        return travelling(message, self.period, number + 1)

    def save(self) -> None:
        """Saves the agent after the last round, where it is due and has not been saved."""
        if self.unsaved:
            meta = {"seconds": self.took, "reply_bytes": len(self.reply), "received": self.received}
            meta["episodes"] = self.episodes
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
