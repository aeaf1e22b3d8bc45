"""An audit: every attack on a run's protection, and on others in its place, as a table that is kept beside the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from fedrax.audit.base import Effort, Leak
from fedrax.audit.canaries import Participation, Trajectories
from fedrax.audit.critics import SentCritics
from fedrax.audit.physics import EnvironmentParameters
from fedrax.audit.recomputation import Recomputation
from fedrax.audit.reconstruction import Reconstruction
from fedrax.audit.setting import Setting, last_state, made_setting
from fedrax.audit.unfinished import Result, Unfinished
from fedrax.audit.variants import PROTECTING, Variant, own, variants
from fedrax.audit.words import EmbeddingRows
from fedrax.config import Config
from fedrax.errors import FedraxError, unknown
from fedrax.federation import State
from fedrax.records.audits import Record
from fedrax.records.files import write_json
from fedrax.records.manifest import read_manifest
from fedrax.records.rundir import RunDirectory
from fedrax.seeds import derive

LEAKS: tuple[Leak, ...] = (
    Trajectories(),
    Participation(),
    Reconstruction(),
    EnvironmentParameters(),
    EmbeddingRows(),
    Recomputation(),
    SentCritics(),
)
"""In the order in which they are made and shown."""


def audit_run(
    config: Config,
    directory: RunDirectory,
    *,
    attacks: Iterable[str] = (),
    effort: Effort | None = None,
    seed: int = 0,
    against: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> Record:
    """The attacks on the messages of a run's first seed at its last checkpoint; also written to ``audit.json``.

    Each result is kept as soon as it is there, so that an audit that was interrupted goes on where it was.

    Args:
        config: the run's.
        directory: its own.
        attacks: their ids; none: all.
        effort: of the attacker; None: the usual one.
        seed: of all that is drawn.
        against: whether also under other protections (:mod:`fedrax.audit.variants`).
        tell: is told what is attacked, line by line.

    Raises:
        FedraxError: an attack that does not exist, a run without training, or one that is not there any more.
    """
    chosen = chosen_leaks(attacks)
    RunDirectory.open(directory.path)
    if directory.manifest.exists() and read_manifest(directory).get("imported"):
        raise FedraxError(
            f"{directory.path} holds imported networks, and no federation whose messages could be attacked"
        )
    state = last_state(config, directory)
    effort = effort or Effort()
    setups = [own(config), *(variants(config) if against else ())]
    rounds = 0 if state is None else int(state.tally.rounds)
    done = Unfinished(directory.unfinished_audit, config, effort=effort, seed=seed, rounds=rounds)
    record: Record = {
        "seed": seed,
        "rounds": rounds,
        "effort": dataclasses.asdict(effort),
        "attacks": {leak.id: {"question": leak.question, "headline": leak.headline} for leak in chosen},
        "setups": [attacked(setup, state, chosen, effort, seed, tell, done) for setup in setups],
    }
    write_json(directory.audit, record)
    done.end()
    return record


def chosen_leaks(ids: Iterable[str]) -> list[Leak]:
    """The attacks of these ids, in their order; all where there is none.

    Raises:
        FedraxError: an id that no attack has.
    """
    wanted = list(ids)
    known = {leak.id: leak for leak in LEAKS}
    for id in wanted:
        if id not in known:
            raise unknown("attack of an audit", id, known)
    return [leak for leak in LEAKS if not wanted or leak.id in wanted]


def attacked(
    variant: Variant,
    state: State | None,
    leaks: Sequence[Leak],
    effort: Effort,
    seed: int,
    tell: Callable[[str], None],
    done: Unfinished,
) -> dict[str, Any]:
    """What the attacks come to under one protection, or why it cannot be had; ``done`` knows, and is told of, results.

    The other arguments are those of :func:`audit_run`.
    """
    row: dict[str, Any] = {"name": variant.name, "overrides": list(variant.overrides)}
    try:
        config = variant.config()
        setting = made_setting(config, state)
    except FedraxError as error:
        return row | {"refused": str(error)}
    bound = setting.bound
    row |= {
        "protection": protection_of(config),
        "guarantee": None if bound is None else bound.text(setting.planned),
    }
    results = {}
    for leak in leaks:
        known = done.known(variant.name, leak.id)
        if known is not None:
            tell(f"{variant.name}: {leak.id} was found before the audit was interrupted")
        else:
            known = result_of(leak, setting, effort, seed, lambda text: tell(f"{variant.name}: {text}"))
            done.keep(variant.name, leak.id, known)
        results[leak.id] = known
    return row | {"attacks": results}


def protection_of(config: Config) -> dict[str, Any]:
    """The settings that tell protections apart, as ``table.key``."""
    table = config.model_dump(mode="json")
    return {f"{name}.{key}": value for name in PROTECTING for key, value in table.get(name, {}).items()}


def result_of(leak: Leak, setting: Setting, effort: Effort, seed: int, tell: Callable[[str], None]) -> Result:
    """The answers of one attack, which is told of, or the reason why it does not apply."""
    reason = leak.inapplicable(setting)
    if reason is None:
        tell(f"{leak.id} {leak.question}")
        try:
            return {"answers": leak.answers(setting, effort, derive(jax.random.key(seed), leak.id))}
        except FedraxError as error:
            reason = str(error)
    return {"inapplicable": reason}
