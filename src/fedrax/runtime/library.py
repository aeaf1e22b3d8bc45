"""Compiled programs that several runs of one process use, one after the other.

Two runs that differ only in numbers, in their seeds or in their budgets compute by the same program: what differs is
its arguments (:class:`Arguments`). One process that trains both needs to compile it once, and two processes find it
in JAX's cache.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, PyTree

from fedrax.config import COMPONENT_KINDS, Config
from fedrax.registry import options_of

KEPT = 8
"""Kinds of programs that a library keeps: a process that trains ever others must not grow without bound."""


class Arguments(NamedTuple):
    """What a run's programs take as arguments beside its state."""

    numbers: PyTree
    """The federation's options declared with ``argument``, real numbers in the tree of its components."""
    limits: dict[str, int | None]
    """:attr:`fedrax.runtime.base.Runtime.limits`."""
    seeds: Array
    """``int32[seeds]``."""
    draws: dict[str, Array] | None
    agents_draws: dict[str, Array] | None
    """Physical parameters by site and by learning agent, ``[draws, ...]``."""


def _nobody() -> None:
    pass


class NativePrograms:
    """The programs of all runs that differ in their arguments alone."""

    def __init__(self, init: Any, rounds: Any, evaluate: Any) -> None:
        self.init, self.rounds, self.evaluate = init, rounds, evaluate
        self._compiled: Any = None
        self.tell: Callable[[], None] = _nobody
        """Called once there is a compiled program."""

    @property
    def compiled(self) -> Any:
        """:attr:`rounds`, compiled before it is called, so that compiling and training are timed apart; else None."""
        return self._compiled

    @compiled.setter
    def compiled(self, program: Any) -> None:
        self._compiled = program
        self.tell()


class Programs:
    """Programs by what their runs have in common; the last :data:`KEPT` used are kept."""

    def __init__(self, tell: Callable[[], None] = _nobody) -> None:
        """``tell`` is called for every run, once its program is compiled."""
        self._tell = tell
        self._kept: list[tuple[tuple[Any, ...], NativePrograms]] = []

    def of(self, key: tuple[Any, ...], make: Callable[[], NativePrograms]) -> NativePrograms:
        """Those of an equal key, or new ones."""
        # Compared, not hashed: a static field of a plugin's component may be anything.
        found = next((programs for known, programs in self._kept if known == key), None) or make()
        found.tell = self._tell
        if found.compiled is not None:
            found.tell()
        others = [entry for entry in self._kept if entry[1] is not found]
        self._kept = [*others, (key, found)][-KEPT:]
        return found


def constant_settings(config: Config) -> str:
    """The settings outside of components that programs hold as constants, as text."""
    tables = config.model_dump(mode="json", exclude={"name", "seed", "video", *COMPONENT_KINDS})
    # Rows are computed alike, whoever reads them.
    del tables["records"]["loggers"], tables["checkpoint"]["keep_policies"]
    tables["budget"] = {name: limit is not None for name, limit in tables["budget"].items()}
    tables["environment"]["heterogeneity"] = _without_numbers(tables["environment"]["heterogeneity"])
    return json.dumps(tables, sort_keys=True)


def shape_of(config: Config) -> str:
    """What the configurations of runs have in common that share a program, as text, without building anything.

    Runs of one text may still differ in what a component makes of its numbers, and then compile another program.
    """
    tables: dict[str, Any] = {}
    for kind, registry in COMPONENT_KINDS.items():
        table = dict(getattr(config, kind))
        for name, (field, _, _) in options_of(registry[table["kind"]]).items():
            if not field.metadata.get("static", False) and table.get(name) is not None:
                table[name] = "a number"
        tables[kind] = table
    return constant_settings(config) + json.dumps(tables, sort_keys=True, default=str)


def _without_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_numbers(item) for item in value]
    return "a number" if isinstance(value, (int, float)) and not isinstance(value, bool) else value
