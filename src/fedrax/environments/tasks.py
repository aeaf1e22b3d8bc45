"""Agents on different tasks in one federation, whose observations all have one form.

Vectors of different lengths are padded with zeros to the longest; beside each stands a mask, ``NAME_mask``, 1 where a
number is the task's own. With ``identity`` the task is a part of the observation, a 1 among zeros.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fedrax.environments.base import Box, Dict, Spaces, Tokens
from fedrax.environments.goals import OBSERVATION
from fedrax.errors import FedraxError

TASK = "task"
"""The parameter that says which task an agent has, by its number."""
IDENTITY = "task_identity"
"""The part of the observation that says it."""
MASK = "_mask"
"""The end of the name of a part that says which numbers of another are the task's own."""


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Tasks whose observations are made alike."""

    ids: tuple[str, ...]
    """The environments, by task."""
    tasks: tuple[Spaces, ...]
    identity: bool
    """Whether the task is a part of the observation."""
    spaces: Spaces
    """Of all of them."""

    def seen(self, task: int, observation: Any) -> Any:
        """A task's observations, leaves ``[..., *o]`` of NumPy or JAX, as all tasks' are."""
        if not isinstance(self.spaces.observation, Dict):
            return observation
        parts = observation if isinstance(observation, dict) else {OBSERVATION: observation}
        batch = next(x.shape[: x.ndim - len(_part(self.tasks[task], name).shape)] for name, x in parts.items())
        tree = self.spaces.observation.tree
        seen = {name: _padded(x, tree[name]) for name, x in parts.items()}
        for name in tree:
            if name.endswith(MASK) and name not in seen:
                own = math.prod(_part(self.tasks[task], name.removesuffix(MASK)).shape)
                mask = (np.arange(tree[name].shape[0]) < own).astype(np.float32)
                seen[name] = _like(parts, np.broadcast_to(mask, (*batch, *mask.shape)))
        if self.identity:
            chosen = (np.arange(len(self.tasks)) == task).astype(np.float32)
            seen[IDENTITY] = _like(parts, np.broadcast_to(chosen, (*batch, *chosen.shape)))
        return seen


def mix(ids: Sequence[str], tasks: Sequence[Spaces], *, identity: bool) -> Mixture:
    """The mixture of the environments ``ids``.

    Raises:
        FedraxError: observations or actions that cannot be made alike.
    """
    first = tasks[0]
    for id, spaces in zip(ids, tasks, strict=True):
        if spaces.action != first.action:
            raise FedraxError(
                f"environment.tasks = {list(ids)}: actions of {id!r} are others than those of {ids[0]!r}; all tasks "
                "need the same"
            )
        if names_of(spaces) != names_of(first):
            raise FedraxError(
                f"environment.tasks = {list(ids)}: observations of {id!r} have the parts "
                f"{', '.join(names_of(spaces))}, those of {ids[0]!r} {', '.join(names_of(first))}; all tasks need the "
                "same"
            )
    parts: dict[str, Box | Tokens] = {}
    for name in names_of(first):
        each = [_part(spaces, name) for spaces in tasks]
        if all(part == each[0] for part in each):
            parts[name] = each[0]
            continue
        boxes = [part for part in each if isinstance(part, Box) and len(part.shape) == 1 and part.seen == np.float32]
        alike = {part.shape for part in each}
        if len(boxes) < len(each):
            raise FedraxError(
                f"environment.tasks = {list(ids)}: observations differ in {name!r}, and only vectors of real numbers "
                "are padded; all tasks need the same images and words"
            )
        parts[name] = _longest(boxes)
        if len(alike) > 1:
            size = parts[name].shape[0]
            _add(parts, name + MASK, size, first)
    if identity:
        _add(parts, IDENTITY, len(ids), first)
    alone = parts.get(OBSERVATION)
    whole = len(parts) == 1 and isinstance(alone, Box) and not isinstance(first.observation, Dict)
    seen = alone if whole and isinstance(alone, Box) else Dict.of(parts)
    goals = {spaces.goal for spaces in tasks}
    # Goals of different rules cannot be exchanged by one.
    reasons = [f"of {id!r}, {spaces.no_goal}" for id, spaces in zip(ids, tasks, strict=True) if spaces.no_goal]
    if len(goals) > 1 and not reasons:
        reasons = ["the tasks reward by different rules"]
    goal = goals.pop() if len(goals) == 1 else None
    return Mixture(tuple(ids), tuple(tasks), identity, Spaces(seen, first.action, goal, "; ".join(reasons)))


def is_mask(mask: Box | Tokens | None, part: Box | Tokens) -> bool:
    """Whether a part of an observation says which numbers of another are an observation's own."""
    return isinstance(mask, Box) and mask.dtype == "bool" and mask.shape == part.shape


def _add(parts: dict[str, Box | Tokens], name: str, size: int, own: Spaces) -> None:
    """A part of so many numbers that are 0 or 1."""
    if name in names_of(own):
        raise FedraxError(
            f"environment.tasks: observations have a part {name!r}, which is the name of what Fedrax adds; rename it"
        )
    parts[name] = Box((size,), (0.0,) * size, (1.0,) * size, "bool")


def names_of(spaces: Spaces) -> list[str]:
    """The parts of observations; those of one array have one."""
    space = spaces.observation
    return [name for name, _ in space.parts] if isinstance(space, Dict) else [OBSERVATION]


def task_of(parameters: Any) -> int:
    """Which task an agent with these parameters has."""
    return int(parameters.get(TASK, 0))


def _part(spaces: Spaces, name: str) -> Box | Tokens:
    space = spaces.observation
    return space.tree[name] if isinstance(space, Dict) else space


def _longest(boxes: Sequence[Box]) -> Box:
    """Vectors of all of them, padded with zeros."""
    size = max(box.shape[0] for box in boxes)
    zeros = (0.0,) * size
    low, high = (
        np.stack([(bound + zeros)[:size] for bound in bounds])
        for bounds in ([box.low for box in boxes], [box.high for box in boxes])
    )
    return Box((size,), tuple(low.min(0).tolist()), tuple(high.max(0).tolist()))


def _padded(x: Any, part: Box | Tokens) -> Any:
    """Vectors ``[..., n]`` with zeros behind, as long as the part's."""
    if len(part.shape) != 1 or x.shape[-1] == part.shape[0]:
        return x
    width = [(0, 0)] * (x.ndim - 1) + [(0, part.shape[0] - x.shape[-1])]
    return (np if isinstance(x, np.ndarray) else jnp).pad(x, width)


def _like(parts: dict[str, Any], array: np.ndarray) -> np.ndarray | Array:
    """The array, of JAX where the observation is."""
    return array if all(isinstance(x, np.ndarray) for x in parts.values()) else jnp.asarray(array)
