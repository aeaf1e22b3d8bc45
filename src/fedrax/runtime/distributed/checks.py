"""What the server asks of an answer before anything of it is used: it trusts no node."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from fedrax.arrays import form, unpacked
from fedrax.environments.faults import LEARNING, NAMES, NOTHING, Fault
from fedrax.environments.success import LAST, MEASURED, SHARE, SUCCESS
from fedrax.federation import Federation
from fedrax.learners.moments import Moments
from fedrax.message import Message, Period, filled, first_not_finite, norm, travelling
from fedrax.parsing import DecodeError
from fedrax.runtime.collectors import collected_steps
from fedrax.runtime.distributed.envelopes import (
    EVALUATED,
    JOINED,
    KEYED,
    MASKED,
    REFUSED,
    SHARED,
    UNFIT,
    UNMASKED,
    WORKED,
    Envelope,
)
from fedrax.strategies.return_weights import Returns
from fedrax.trees import tree_bytes

LARGEST = 2**31 - 1
"""Agents and rounds are counted in 32 bits; -1 stands for none."""
LOOKS = 100
"""Observations of an environment step that moments may count, at most: goals and first observations count, too."""
LONGEST_SECONDS = 1e8
"""Of work: three years."""
LONGEST_TEXT = 500
"""Characters of a field; what nodes say is shown in logs."""
FIELDS: Mapping[str, Mapping[str, type]] = {
    JOINED: {"run": str, "node": str, "agent": int, "done": int},
    WORKED: {"run": str, "round": int, "agent": int, "form": str, "seconds": float},
    EVALUATED: {"run": str, "agent": int, "names": str},
    KEYED: {"run": str, "round": int, "agent": int, "form": str, "seconds": float},
    **{kind: {"run": str, "round": int, "agent": int} for kind in (SHARED, MASKED, UNMASKED)},
    UNFIT: {"run": str, "node": str, "agent": int, "reason": str},
    REFUSED: {"reason": str},
}
"""The fields of each kind of answer, no more and no fewer."""


class Rejected(Exception):
    """An answer that is not used; the text says why."""


class Worked(NamedTuple):
    """A checked answer to a round's work."""

    message: PyTree
    report: dict[str, Any]
    seconds: float
    norms: Mapping[str, float]
    """Of each part of its message, Euclidean, of its update once it is decoded; empty where it is not seen."""
    keys: bytes = b""
    """For the round's secure sum; empty where the agent keeps out of it, or there is none."""


class Counts(NamedTuple):
    """What an agent's part of a round can come to: inclusive bounds, which follow from what it was asked for."""

    steps: tuple[int, int]
    """Environment steps."""
    episodes: tuple[int, int]
    """Episodes that ended."""


def possible_counts(federation: Federation, copies: int, horizon: int, episodes: int | None) -> Counts:
    """What an agent with so many copies of its environment can have collected in a round.

    Args:
        episodes: those that it was asked for; None: any number that an order may ask for.
    """
    updates, steps = federation.local_updates, federation.learner.steps
    if steps is None:
        fewest, most = (1, federation.strategy.max_episodes) if episodes is None else (episodes, episodes)
        fewest, most = fewest * updates, most * updates
        return Counts((fewest, most * horizon), (fewest, most))
    most = collected_steps(federation, copies, horizon) * updates
    # After an episode's last step comes one that is no experience: it starts the next.
    return Counts((copies * (steps // 2) * updates, most), (0, most))


def withheld(report: Mapping[str, Any], counts: Counts) -> dict[str, Any]:
    """What a node reports where privacy has a unit: as many steps as there can have been, and nothing measured."""
    unknown = jax.tree.map(lambda x: np.full(np.shape(x), np.nan, np.float32), dict(report))
    known = {"steps": counts.steps[1], "episodes": counts.episodes[0]}
    return {
        **unknown,
        **{name: np.asarray(number, np.asarray(report[name]).dtype) for name, number in known.items()},
        "fault": np.asarray(Fault.none().row),
    }


def check_envelope(envelope: Envelope, kind: str, expected: Mapping[str, Any]) -> Envelope:
    """The envelope, if it is of this kind, has exactly its fields, and these ``expected`` values among them.

    Raises:
        Rejected: otherwise.
    """
    if envelope.kind == REFUSED:
        _check_fields(envelope)
        raise Rejected(f"the node refused: {envelope.fields['reason']}")
    if envelope.kind != kind:
        raise Rejected(f"an answer {_shown(envelope.kind)} where {kind!r} was asked for")
    _check_fields(envelope)
    for name, value in expected.items():
        if envelope.fields[name] != value:
            raise Rejected(f"{name} {_shown(envelope.fields[name])} where {_shown(value)} is expected")
    return envelope


def check_evaluation(envelope: Envelope, *, run: str, agent: int, episodes: int, horizon: int) -> dict[str, np.ndarray]:
    """The arrays ``float32[episodes]`` of an answer to an evaluation, by name; no episode is longer than ``horizon``.

    Raises:
        Rejected: anything about it is not as it must be.
    """
    check_envelope(envelope, EVALUATED, {"run": run, "agent": agent})
    names = str(envelope.fields["names"]).split(",")
    if tuple(names) not in (MEASURED, (*MEASURED, SUCCESS, LAST, SHARE)):
        raise Rejected(f"an evaluation of {_shown(envelope.fields['names'])}")
    try:
        arrays = unpacked([jax.ShapeDtypeStruct((episodes,), np.float32)] * len(names), envelope.payload)
    except DecodeError as error:
        raise Rejected(str(error)) from None
    table = dict(zip(names, arrays, strict=True))
    for name, array in table.items():
        if not np.isfinite(array).all():
            raise Rejected(f"a {name} that is not finite")
    if not ((table["length"] >= 0) & (table["length"] <= horizon)).all() or any(
        not ((table[n] >= 0) & (table[n] <= 1)).all() for n in names[2:]
    ):
        raise Rejected("a length or a success that cannot be")
    return table


def _check_fields(envelope: Envelope) -> None:
    known = FIELDS[envelope.kind]
    for name in envelope.fields:
        if name not in known:
            raise Rejected(f"unknown field {_shown(name)}")
    for name, kind in known.items():
        if name not in envelope.fields:
            raise Rejected(f"no field {name!r}")
        value = envelope.fields[name]
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise Rejected(f"field {name!r} is {_shown(value)}, not of type {kind.__name__}")
        if isinstance(value, str) and (len(value) > LONGEST_TEXT or not value.isprintable()):
            raise Rejected(f"field {name!r} is no line of at most {LONGEST_TEXT} characters")
        if isinstance(value, int) and not -1 <= value <= LARGEST:
            raise Rejected(f"field {name!r} is {_shown(value)}, not between -1 and {LARGEST}")
        if kind is float and not 0 <= float(value) <= LONGEST_SECONDS:
            raise Rejected(f"field {name!r} is {_shown(value)}, not between 0 and {LONGEST_SECONDS:g}")


class WorkCheck:
    """Checks answers to a round's work against what this federation's agents can send."""

    def __init__(
        self,
        message: Message,
        report: PyTree,
        period: Period,
        *,
        max_norm: float | None,
        withheld: bool = False,
        decoded: Callable[[PyTree, int], PyTree] | None = None,
    ) -> None:
        """Args:
        message, report: bare shapes.
        period: how often each array of the message travels.
        max_norm: the longest update accepted; None for any finite one.
        withheld: whether nodes report nothing that they measured (:func:`withheld`).
        decoded: ``decoded(update, round)``, the update of what is sent in its place, or :class:`Rejected`; None where
            it is sent as it is.
        """
        self.withheld = withheld
        self.message, self.report, self.period, self.max_norm = message, report, period, max_norm
        self.decoded = decoded

    def __call__(self, envelope: Envelope, *, run: str, round: int, agent: int, counts: Counts) -> Worked:
        """The answer's content.

        Raises:
            Rejected: anything about it is not as it must be.
        """
        template = (travelling(self.message, self.period, round + 1), self.report)
        check_envelope(envelope, WORKED, {"run": run, "round": round, "agent": agent, "form": form(template)})
        try:
            part, report = unpacked(template, envelope.payload)
        except DecodeError as error:
            raise Rejected(str(error)) from None
        wrong = first_not_finite(part)
        if wrong is not None:
            raise Rejected(f"message{wrong} is not finite")
        message = filled(self.message, part)
        read = self._read(message, round) if report["fault"][0] == NOTHING else message
        norms = {each.name: norm(getattr(read, each.name)) for each in dataclasses.fields(Message)}
        if self.max_norm is not None and norms["update"] > self.max_norm:
            raise Rejected(f"an update of norm {norms['update']:.3g}, and runtime.flower.max_norm = {self.max_norm:g}")
        _check_report(report, counts, withheld=self.withheld)
        _check_statistics(part.statistics, counts)
        return Worked(message, report, float(envelope.fields["seconds"]), norms)

    def _read(self, message: Message, round: int) -> Message:
        """The message with its update decoded. Agents whose round is void send zeros, which encode nothing."""
        if self.decoded is None:
            return message
        update = self.decoded(message.update, round)
        wrong = first_not_finite(update)
        if wrong is not None:
            raise Rejected(f"message.update{wrong} is not finite once it is decoded")
        return dataclasses.replace(message, update=update)


def check_keyed(
    envelope: Envelope, report: PyTree, *, run: str, round: int, agent: int, counts: Counts, withheld: bool
) -> Worked:
    """The content of an answer to work whose message is to be in a secure sum; ``report`` is one as bare shapes.

    Raises:
        Rejected: anything about it is not as it must be.
    """
    check_envelope(envelope, KEYED, {"run": run, "round": round, "agent": agent, "form": form(report)})
    size = tree_bytes(report)
    try:
        told = unpacked(report, envelope.payload[:size])
    except DecodeError as error:
        raise Rejected(str(error)) from None
    _check_report(told, counts, withheld=withheld)
    return Worked((), told, float(envelope.fields["seconds"]), {}, envelope.payload[size:])


def _check_report(report: Mapping[str, Any], counts: Counts, *, withheld: bool) -> None:
    """Raises :class:`Rejected` for a report of what cannot have been."""
    steps, episodes = int(report["steps"]), int(report["episodes"])
    fault, *where = (int(number) for number in report["fault"])
    (fewest_steps, most_steps), (fewest, most) = counts
    if fault not in (NOTHING, *NAMES) or not all(0 <= number <= most_steps for number in where):
        raise Rejected("a fault of its collection that cannot be")
    if fault != NOTHING:
        # What is dropped may have ended early.
        fewest_steps = fewest = 0
    if not fewest_steps <= steps <= most_steps:
        raise Rejected(f"{steps} environment steps, and a round has {_between(fewest_steps, most_steps)}")
    if not fewest <= episodes <= min(most, steps):
        raise Rejected(f"{episodes} episodes in {steps} steps, and a round has {_between(fewest, most)}")
    if fault == LEARNING:
        # What it did not survive may be in these.
        report = {**report, "return_sum": 0.0, "learning": (), "episode_returns": 0.0}
    if not (withheld or np.isfinite(report["return_sum"])) or np.isinf(report.get("episode_returns", 0.0)).any():
        raise Rejected("a training return that is not finite")
    if any(np.isinf(number).any() for number in jax.tree.leaves(report["learning"])):
        raise Rejected("a learning metric that is infinite")
    successes = float(report["successes"])
    if not (math.isnan(successes) or 0 <= successes <= episodes):
        raise Rejected(f"{successes} successes in {episodes} episodes")


def _check_statistics(statistics: PyTree, counts: Counts) -> None:
    """Raises :class:`Rejected` for sums that nothing observed adds up to: merged, they would spoil everybody's."""
    known = (Moments, Returns)
    for each in jax.tree.leaves(statistics, is_leaf=lambda x: isinstance(x, known)):
        if isinstance(each, Moments):
            (_, most), _ = counts
            counted = [x for x in (each.count, each.spread, each.mean) if x is not None]
            if len(counted) == 3 and not (
                (each.count >= 0).all() and (each.count <= LOOKS * most + LOOKS).all() and (each.spread >= 0).all()
            ):
                raise Rejected("moments of observations that cannot be")
        if isinstance(each, Returns) and each.count is not None and (each.count < 0).any():
            raise Rejected("a negative number of episodes that ended")


def _between(least: int, most: int) -> str:
    return f"{least}" if least == most else f"{least} to {most}"


def _shown(value: object) -> str:
    """Part of a node's own words, safe to print."""
    return ascii(value)[:60]
