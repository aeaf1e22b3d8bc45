"""Spaces as tables that a run's manifest holds, and as Gymnasium's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from fedrax.environments.base import Box, Dict, Discrete, Spaces, Tokens


def written(spaces: Spaces) -> dict[str, Any]:
    """The spaces as a table of numbers and texts; a bound that all components have stands there once."""
    return {"observation": _written(spaces.observation), "action": _written(spaces.action)}


def read(table: Mapping[str, Any]) -> Spaces:
    """The spaces that :func:`written` made a table of, without the rule of a goal environment's reward.

    Raises:
        LookupError, TypeError, ValueError: the table is another.
    """
    action, observation = _read(table["action"]), _read(table["observation"])
    if not isinstance(action, (Discrete, Box)) or not isinstance(observation, (Box, Dict)):
        raise ValueError(f"no spaces of an environment: {action}, {observation}")
    return Spaces(observation, action)


def of_gymnasium(space: Box | Dict | Discrete | Tokens) -> gymnasium.Space[Any]:
    """The space as Gymnasium has it; what is true or false are 0 and 1, and words their places in a vocabulary."""
    if isinstance(space, Discrete):
        return gymnasium.spaces.Discrete(space.n, start=space.start)
    if isinstance(space, Dict):
        return gymnasium.spaces.Dict({name: of_gymnasium(part) for name, part in space.parts})
    if isinstance(space, Tokens):
        return gymnasium.spaces.Box(0, space.vocabulary - 1, space.shape, np.int32)
    dtype: Any = np.dtype("int8" if space.dtype == "bool" else space.dtype)
    # The bounds of long integers are no doubles.
    low, high = (np.reshape(np.array(bound).astype(dtype), space.shape) for bound in (space.low, space.high))
    return gymnasium.spaces.Box(low, high, space.shape, dtype)


def in_words(spaces: Spaces) -> str:
    """``observations of shape (4,), 2 actions``: as much of spaces as arrays depend on."""
    if isinstance(spaces.observation, Dict):
        seen = ", ".join(f"{name} of shape {part.shape}" for name, part in spaces.observation.parts)
        seen = f"observations with {seen}"
    else:
        seen = f"observations of shape {spaces.observation.shape}"
    action = spaces.action
    return f"{seen}, " + (f"{action.n} actions" if isinstance(action, Discrete) else f"actions of shape {action.shape}")


def _written(space: Box | Dict | Discrete | Tokens) -> dict[str, Any]:
    if isinstance(space, Discrete):
        return {"kind": "discrete", "n": space.n, "start": space.start}
    if isinstance(space, Tokens):
        return {"kind": "tokens", "length": space.length, "vocabulary": space.vocabulary}
    if isinstance(space, Dict):
        return {"kind": "dict", "parts": {name: _written(part) for name, part in space.parts}}
    bounds = {"low": _bound(space.low), "high": _bound(space.high)}
    return {"kind": "box", "shape": list(space.shape), **bounds, "dtype": space.dtype}


def _bound(numbers: tuple[float, ...]) -> float | list[float]:
    return numbers[0] if len(set(numbers)) == 1 else list(numbers)


def _read(table: Mapping[str, Any]) -> Box | Dict | Discrete | Tokens:
    kind = table["kind"]
    if kind == "discrete":
        return Discrete(int(table["n"]), int(table["start"]))
    if kind == "tokens":
        return Tokens(int(table["length"]), int(table["vocabulary"]))
    if kind == "dict":
        parts = {name: _read(part) for name, part in table["parts"].items()}
        return Dict.of({name: part for name, part in parts.items() if isinstance(part, (Box, Tokens))})
    shape = tuple(map(int, table["shape"]))

    def bound(of: Any) -> tuple[float, ...]:
        return tuple(of) if isinstance(of, list) else (of,) * math.prod(shape)

    return Box(shape, bound(table["low"]), bound(table["high"]), str(np.dtype(table["dtype"])))
