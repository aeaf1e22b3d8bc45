"""Networks by their named parts (torso, actor, critic ...), for strategies that share some of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import equinox as eqx
from jaxtyping import PyTree

from fedrax.errors import FedraxError, unknown

NORMALISER = "normaliser"
"""The part that holds moments of observations: merged exactly over agents, never averaged or trained."""


def part_names(params: PyTree) -> tuple[str, ...]:
    """The parts of a learner's networks: the module's fields that hold arrays."""
    return tuple(field.name for field in dataclasses.fields(params) if not field.metadata.get("static"))


def check_parts(option: str, parts: Iterable[str], params: PyTree) -> None:
    """Raises :class:`FedraxError` for a part that the networks do not have; ``params`` may be bare shapes."""
    known = tuple(part for part in part_names(params) if part != NORMALISER)
    for part in parts:
        if part not in known:
            raise unknown(option, part, known)
    if not tuple(parts):
        raise FedraxError(f"{option} = [] is not allowed: give some of {', '.join(known)}")


def take_parts(params: PyTree, parts: Iterable[str]) -> dict[str, PyTree]:
    """The parts by name."""
    return {part: getattr(params, part) for part in parts}


def put_parts(params: Any, parts: dict[str, PyTree]) -> Any:
    """``params`` with these parts replaced."""
    # No new module is made: a part may be None, which the module's fields do not allow.
    return eqx.tree_at(
        lambda params: [getattr(params, part) for part in parts],
        params,
        list(parts.values()),
        is_leaf=lambda node: node is None,
    )


def only(params: Any, parts: Iterable[str]) -> Any:
    """``params`` with None in place of every other part."""
    chosen = set(parts)
    return put_parts(params, {part: None for part in part_names(params) if part not in chosen})
