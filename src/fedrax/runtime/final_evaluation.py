"""The evaluation at a budget's end, where the last round has none of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from fedrax.config import Config
from fedrax.federation import State
from fedrax.runtime.base import Runtime
from fedrax.runtime.counters import Counters


def evaluate_finally(
    config: Config, runtime: Runtime, state: State, counters: list[Counters]
) -> dict[int, dict[str, Any]]:
    """Measures the final policy of every seed, and adds what is measured to its counters; as part of a row, by seed."""
    outputs, measured = runtime.outputs(state), {}
    for index, (seed, counter) in enumerate(zip(config.all_seeds, counters, strict=True)):
        if counter.rounds % config.evaluation.every:
            params = jax.tree.map(lambda x, i=index: x[i], outputs)
            measured[seed] = counter.note(runtime.measured(params, position=index))
    return measured


def measured_finally(config: Config, meta: Mapping[str, Any]) -> dict[int, list[str]]:
    """By seed, what the last row of a finished run has by :func:`evaluate_finally`; ``meta`` is its checkpoint's."""
    before: Sequence[Mapping[str, Any]] = meta.get("counters", ())
    after: Sequence[Mapping[str, Any]] = meta.get("final_counters", before)
    return {
        seed: list(ended["final_evaluation"])
        for seed, counted, ended in zip(config.all_seeds, before, after, strict=False)
        if ended.get("evaluated") != counted.get("evaluated")
    }


def best_policies(runtime: Runtime, state: State, meta: Mapping[str, Any]) -> PyTree:
    """Each seed's best policy, ``[seeds, ...]``: the final one where it was the best in the evaluation at the end.

    ``meta`` is a checkpoint's, and ``state`` the state in it.
    """
    before: Sequence[Mapping[str, Any]] = meta["counters"]
    after: Sequence[Mapping[str, Any]] = meta.get("final_counters", before)
    at_the_end = [
        math.isfinite(ended["best_return"]) and ended["best_return"] != counted["best_return"]
        for counted, ended in zip(before, after, strict=True)
    ]
    if not any(at_the_end):
        return state.best
    final = jnp.asarray(at_the_end)
    return jax.tree.map(
        lambda new, old: jnp.where(final.reshape(-1, *[1] * (jnp.ndim(new) - 1)), new, old),
        runtime.outputs(state),
        state.best,
    )
