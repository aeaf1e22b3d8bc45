"""What a search may choose from: ranges and choices by key, and draws from them."""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from fedrax.errors import FedraxError, shown, unknown
from fedrax.registry import LARGEST

KINDS = ("uniform", "log-uniform", "integers")


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included: real ones, evenly or in their logarithm, or whole ones."""

    kind: str
    low: float
    high: float

    def draw(self, generator: np.random.Generator) -> float | int:
        """One of them."""
        if self.kind == "integers":
            return int(generator.integers(int(self.low), int(self.high), endpoint=True))
        if self.kind == "uniform":
            return float(generator.uniform(self.low, self.high))
        return float(np.exp(generator.uniform(math.log(self.low), math.log(self.high))).clip(self.low, self.high))


@dataclasses.dataclass(frozen=True)
class Choices:
    """Values of any kind, each as likely."""

    values: tuple[Any, ...]

    def draw(self, generator: np.random.Generator) -> Any:
        """One of them."""
        return self.values[int(generator.integers(len(self.values)))]


Space = dict[str, Range | Choices]


def read_space(table: Mapping[str, Any]) -> Space:
    """The dimensions of a search by the key that each sets, of a table with keys dotted or nested.

    Raises:
        FedraxError: a dimension that is no list of values and no range, or a range that is empty.
    """
    space: Space = {}
    _read(table, "", space)
    if not space:
        raise FedraxError(
            'search.space is empty: give a range or choices by key, as "learner.learning_rate" = {log-uniform = '
            "[1e-4, 1e-1]}"
        )
    return space


def _read(table: Mapping[str, Any], prefix: str, space: Space) -> None:
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, list):
            if not value:
                raise FedraxError(f"search.space.{name} = [] is not allowed: give at least one value")
            space[name] = Choices(tuple(value))
        elif isinstance(value, Mapping) and any(kind in value for kind in KINDS):
            if len(value) > 1:
                raise FedraxError(
                    f"search.space.{name} = {shown(value)} is not allowed: a range has one key alone, of "
                    f"{', '.join(KINDS)}"
                )
            (kind,) = value
            space[name] = _range(name, kind, value[kind])
        elif isinstance(value, Mapping) and not value:
            raise FedraxError(
                f"search.space.{name} is an empty table: give a list of values, or a range such as {{uniform = [0, 1]}}"
            )
        elif isinstance(value, Mapping) and not _like_a_range(value):
            _read(value, f"{name}.", space)
        elif isinstance(value, Mapping):
            raise unknown(f"range of search.space.{name}", next(iter(value)), KINDS)
        else:
            raise FedraxError(
                f"search.space.{name} = {shown(value)} is not allowed: give a list of values, or a range such as "
                "{uniform = [0, 1]}, {log-uniform = [1e-4, 1e-1]} or {integers = [2, 8]}"
            )


def _like_a_range(table: Mapping[str, Any]) -> bool:
    """Whether its keys are no further part of a setting's, but meant for a kind of range."""
    return any("-" in key or key == "low" or difflib.get_close_matches(key, KINDS, cutoff=0.8) for key in table)


def _range(name: str, kind: str, value: Any) -> Range:
    numbers = int if kind == "integers" else (int, float)
    pair = isinstance(value, list) and len(value) == 2
    if not pair or not all(_is_number(x, numbers) for x in value):
        what = "whole numbers" if kind == "integers" else "numbers"
        raise FedraxError(f"search.space.{name}.{kind} = {shown(value)} is not allowed: give two {what}, [low, high]")
    low, high = value
    if low >= high or (kind == "log-uniform" and low <= 0):
        needs = "low must be less than high" + (", and more than 0" if kind == "log-uniform" else "")
        raise FedraxError(f"search.space.{name}.{kind} = {shown(value)} is not allowed: {needs}")
    if kind == "integers" and max(abs(low), abs(high)) > LARGEST:
        raise FedraxError(
            f"search.space.{name}.integers = {shown(value)} is not allowed: give numbers from -{LARGEST} to {LARGEST}"
        )
    if math.isinf(float(high) - float(low)):
        raise FedraxError(f"search.space.{name}.{kind} = {shown(value)} is not allowed: it is too wide; give less")
    return Range(kind, low, high)


def _is_number(value: Any, kinds: Any) -> bool:
    # A whole number that fits into no real one cannot be asked whether it is finite.
    return isinstance(value, kinds) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def drawn(space: Space, seed: int, number: int) -> dict[str, Any]:
    """The values of one trial, whoever draws it and whatever was drawn before."""
    generator = np.random.default_rng([seed, number])
    return {key: dimension.draw(generator) for key, dimension in space.items()}
