"""The agent that lives on its node: it answers letters, and survives whatever kills its process.

Its state is saved before the answer to a round leaves, so that a letter that comes twice is answered twice alike, and a
restarted agent goes on where it was. Nothing but its messages, its report in numbers and its evaluations' returns ever
leave it.
"""

from __future__ import annotations

import contextlib
import logging
import time
import tomllib
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
from fedrax.errors import FedraxError
from fedrax.federation import Tally
from fedrax.layers import merge_settings
from fedrax.message import filled, travelling
from fedrax.plugins import short_name
from fedrax.records.checkpoint import latest_round, load_checkpoint, save_checkpoint
from fedrax.records.files import append_traceback, read_json, write_atomic, write_json
from fedrax.runtime.remote.letters import (
    EVALUATE,
    EVALUATED,
    JOIN,
    JOINED,
    REFUSED,
    STRANGER,
    WORK,
    WORKED,
    Letter,
)
from fedrax.runtime.remote.part import Order, Part, Standing, make_part, report_shapes, travel_period
from fedrax.trees import tree_bytes

logger = logging.getLogger(__name__)

UNKNOWN = -1
"""The index of an agent that has none yet."""


class Resident:
    """The agent of one node, in every run it takes part in, one at a time."""

    def __init__(
        self, folder: Path, *, overrides: Sequence[str] = (), agent: int | None = None, plugins: Sequence[str] = ()
    ) -> None:
        """Args:
        folder: where the node's name and its agent's state are kept.
        overrides: ``environment...=value``, what differs at this site from what the server says.
        agent: the place in the federation it asks for; unset, the server chooses.
        plugins: the only plugins that this node imports, which stand for the server's of the same name.

        Raises:
            FedraxError: overrides of anything but the environment.
        """
        self.folder, self.overrides, self.wanted, self.plugins = folder, list(overrides), agent, list(plugins)
        check_overrides(overrides)
        self.name = self._name()
        self.stay: Stay | None = None

    def _name(self) -> str:
        path = self.folder / "node.json"
        if not path.exists():
            write_json(path, {"name": uuid.uuid4().hex})
        return str(read_json(path, "node's name")["name"])

    def answer(self, letter: Letter) -> Letter:
        """The reply to a letter; what cannot be done is a letter too, and says why."""
        try:
            self.rest()
            if letter.kind == JOIN:
                return self._join(letter)
            stay = self._stay(letter.fields.get("run"))
            if stay is None:
                return Letter(STRANGER)
            if letter.kind == WORK:
                return stay.work(letter)
            if letter.kind == EVALUATE:
                return stay.evaluate(letter)
            return refused(f"no letter is called {letter.kind!r}")
        except EnvironmentCrash as crash:
            path = append_traceback(self.folder, crash)
            logger.error("%s; the traceback is in %s", crash, path)
            return refused(str(crash))
        except (FedraxError, DecodeError) as error:
            return refused(str(error))
        except Exception as error:
            # Whatever a letter provokes, the agent is there for the next one.
            logger.exception("a letter %r failed", letter.kind)
            return refused(f"{type(error).__name__}: {error}")

    def _join(self, letter: Letter) -> Letter:
        run = str(letter.fields["run"])
        if not run.isalnum():
            raise FedraxError(f"run {run!r} is no name of a run")
        stay, text = self._stay(run), str(letter.fields["config"])
        # A run may have been extended since: its budget is what learning rates are annealed over.
        if stay is None or (stay.folder / "config.toml").read_text() != text:
            stay = self._settle(run, text)
        index = UNKNOWN if self.wanted is None else self.wanted
        return Letter(
            JOINED,
            {"run": run, "node": self.name, "agent": stay.index if stay.index != UNKNOWN else index, "done": stay.done},
        )

    def _stay(self, run: object) -> Stay | None:
        """The stay in a run that the node has joined, be it in an earlier life of this process."""
        if self.stay is not None and self.stay.run == run:
            return self.stay
        if not isinstance(run, str) or not run.isalnum():
            return None
        saved = self.folder / "runs" / run / "config.toml"
        return self._settle(run, saved.read_text()) if saved.exists() else None

    def _settle(self, run: str, text: str) -> Stay:
        """Takes part in a run with this configuration, and in no other any more."""
        # Plugins are code: what the server names is imported only from where this node's owner says.
        table = merge_settings([tomllib.loads(text)])
        own = {short_name(plugin) for plugin in self.plugins}
        missing = [plugin for plugin in table.pop("plugins") if short_name(plugin) not in own]
        if missing:
            raise FedraxError(
                f"the run needs the plugins {', '.join(missing)}, which are code: start the node with --plugins FILE, "
                "this site's own copy, for each that you trust"
            )
        config = resolve(table, self.overrides, plugins=self.plugins)
        if self.stay is not None:
            self.stay.close()
        folder = self.folder / "runs" / run
        write_atomic(folder / "config.toml", text)
        self.stay = Stay(run, config, folder)
        return self.stay

    def rest(self) -> None:
        """Saves what is left to save: in a fast run the agent answers first, and saves while its answer travels."""
        if self.stay is not None:
            self.stay.save()

    def refresh(self) -> None:
        """Takes up what another process may have saved of the same agent meanwhile."""
        if self.stay is not None:
            self.stay.refresh()

    def close(self) -> None:
        """Frees environments."""
        if self.stay is not None:
            self.stay.close()


class Stay:
    """An agent in one run."""

    def __init__(self, run: str, config: Config, folder: Path) -> None:
        self.run, self.config, self.folder = run, config, folder
        self.part: Part | None = None
        self.standing: Standing | None = None
        self.done = 0
        """Rounds whose work is done: the next one's number, unless the agent was left out of some."""
        self.reply: bytes = b""
        """The answer to the last of them."""
        self.took = 0.0
        self.unsaved = False
        identity = folder / "agent.json"
        self.index = int(read_json(identity, "agent's identity")["agent"]) if identity.exists() else UNKNOWN
        if self.index != UNKNOWN:
            self._settle(self.index)

    def _settle(self, index: int) -> None:
        """Becomes the agent at ``index``: as it was saved, or fresh."""
        if not 0 <= index < self.config.federation.agents:
            raise FedraxError(f"there is no agent {index}; there are agents 0 to {self.config.federation.agents - 1}")
        if self.part is not None:
            # What crashed may not close in order either.
            with contextlib.suppress(Exception):
                self.part.close()
        self.part = make_part(self.config, index)
        federation = self.part.federation
        message, downlink = federation.shapes()
        self.message, self.report = message, report_shapes(federation, self.config.environment.copies)
        self.parcel = jax.eval_shape(partial(federation.strategy.outgoing, index=index), downlink)
        self.period = travel_period(self.config, federation.strategy)
        self.orders = order_shapes(federation.participants)
        self.policies = jax.eval_shape(lambda: federation.learner.init_params(jax.random.key(0), federation.spaces))
        self.standing = self.part.start()
        saved = load_checkpoint(self.folder / "checkpoints", self._kept(b""))
        if saved is not None:
            kept, meta = saved
            self.standing, self.done = kept["standing"], int(meta["round"])
            self.reply = kept["reply"].tobytes()[: meta.get("reply_bytes")]
            self.took = float(meta["seconds"])
        write_json(self.folder / "agent.json", {"agent": index})
        self.index = index

    def _kept(self, reply: bytes) -> dict[str, Any]:
        # In some rounds a message is shorter; what is saved has one shape.
        longest = tree_bytes((self.message, self.report))
        return {"standing": self.standing, "reply": np.frombuffer(reply.ljust(longest, b"\0"), np.uint8)}

    def refresh(self) -> None:
        """Reads the agent again where more rounds were saved than this process knows of."""
        if self.index != UNKNOWN and (latest_round(self.folder / "checkpoints") or 0) > self.done:
            self._settle(self.index)

    def _part(self, index: int) -> Part:
        if self.part is None:
            self._settle(index)
        if self.index != index:
            raise FedraxError(f"this node is agent {self.index} of the run, not agent {index}")
        assert self.part is not None
        return self.part

    def work(self, letter: Letter) -> Letter:
        """The agent's part of a round, or its answer once more where the round is done already."""
        part, number = self._part(int(letter.fields["agent"])), int(letter.fields["round"])
        if number < self.done - 1:
            raise FedraxError(f"the agent has done round {self.done}, and cannot go back to round {number + 1}")
        if number != self.done - 1 or not self.reply:
            self._work(part, number, letter)
        fields: dict[str, int | float | str | bool] = {
            "run": self.run,
            "round": number,
            "agent": self.index,
            "form": form((self._sent(self.message, number), self.report)),
            "seconds": self.took,
        }
        return Letter(WORKED, fields, self.reply)

    def _work(self, part: Part, number: int, letter: Letter) -> None:
        parcel = travelling(self.parcel, self.period, number)
        if letter.fields["form"] != form((parcel, self.orders)):
            raise FedraxError(
                "the server's arrays have other shapes than this node's: its environment's spaces must be the server's"
            )
        received = jax.tree.map(jnp.asarray, filled(self.parcel, unpacked(parcel, letter.payload)))
        order = jax.tree.map(jnp.asarray, unpacked(self.orders, bytes.fromhex(str(letter.fields["order"]))))
        downlink = part.federation.strategy.incoming(received, self.index)
        started = time.perf_counter()
        standing, self.standing = self.standing, None
        assert standing is not None
        try:
            standing, message, report = part.work(standing, downlink, order, number)
        except BaseException:
            # What the agent was is used up: it goes on from what was saved.
            self._settle(self.index)
            raise
        fault = Fault.of_row(np.asarray(report["fault"]))
        if fault.kind != NOTHING:
            learner, updates = part.federation.learner, part.federation.local_updates
            entry = recorded(self.index, fault, episodic=learner.steps is None, updates=updates)
            logger.warning("round %d: %s", number + 1, described(entry))
        self.reply = packed((self._sent(message, number), report))
        self.took = time.perf_counter() - started
        self.standing, self.done = standing, number + 1
        self.unsaved = self.done % self.config.runtime.save_every == 0
        if not self.config.runtime.fast:
            self.save()

    def _sent(self, message: PyTree, number: int) -> PyTree:
        """What of a round's message travels."""
        return travelling(message, self.period, number + 1)

    def save(self) -> None:
        """Writes down what the last round made of the agent, if that is to be and has not been done."""
        if self.unsaved:
            meta = {"seconds": self.took, "reply_bytes": len(self.reply)}
            save_checkpoint(self.folder / "checkpoints", self.done, self._kept(self.reply), meta)
            self.unsaved = False

    def evaluate(self, letter: Letter) -> Letter:
        """Episodes of a policy that was sent, or of the agent's own: named arrays, one after the other."""
        part = self._part(int(letter.fields["agent"]))
        assert self.standing is not None
        if letter.payload:
            policy: PyTree = jax.tree.map(jnp.asarray, unpacked(self.policies, letter.payload))
        else:
            policy = part.own_policy(self.standing)
        episodes, seed = int(letter.fields["episodes"]), int(letter.fields["seed"])
        table = part.evaluate(policy, episodes=episodes, seed=seed)
        names = ",".join(table)
        fields: dict[str, int | float | str | bool] = {"run": self.run, "agent": self.index, "names": names}
        return Letter(EVALUATED, fields, packed([array.astype(np.float32) for array in table.values()]))

    def close(self) -> None:
        """Frees environments."""
        if self.part is not None:
            self.part.close()


def check_overrides(overrides: Sequence[str]) -> None:
    """Raises :class:`FedraxError` for overrides of anything but the environment."""
    for override in overrides:
        if set(parse_override(override)) != {"environment"}:
            raise FedraxError(
                f"{override!r} is not a node's to say: it may set environment.KEY=VALUE, the rest is the server's"
            )


def order_shapes(participants: int) -> Order:
    """An order as bare shapes."""
    number = jax.ShapeDtypeStruct((), np.int32)
    ids = jax.ShapeDtypeStruct((participants,), np.int32)
    flags = jax.ShapeDtypeStruct((participants,), np.bool_)
    return Order(ids, flags, number, Tally(number, number, number, number, number))  # type: ignore[arg-type]


def refused(reason: str) -> Letter:
    """A node's answer to what it cannot do."""
    return Letter(REFUSED, {"reason": " ".join(reason.split())[:500]})
