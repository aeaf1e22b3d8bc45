"""Mapping a function of one agent over the agents' axis: side by side, or in batches that follow one another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

AGENTS = "agents"
"""Name of the mapped axis, for collectors that reduce over it."""


def map_agents(function: Callable[[PyTree], Any], inputs: PyTree, batch: int) -> Any:
    """``function`` of every slice of ``inputs`` (leaves ``[agents, ...]``), ``batch`` of them side by side.

    Values the function closes over stay unmapped, so what all agents share, such as a broadcast policy, is computed
    with once: one large matrix product in place of many small ones.
    """
    agents = jax.tree.leaves(inputs)[0].shape[0]
    mapped = jax.vmap(function, axis_name=AGENTS)
    whole = agents // batch
    if (whole <= 1 and agents == batch * whole) or agents < batch:
        return mapped(inputs)
    head = jax.tree.map(lambda x: x[: whole * batch].reshape(whole, batch, *x.shape[1:]), inputs)
    _, out = jax.lax.scan(lambda carry, x: (carry, mapped(x)), None, head)
    out = jax.tree.map(lambda x: x.reshape(whole * batch, *x.shape[2:]), out)
    if whole * batch == agents:
        return out
    rest = mapped(jax.tree.map(lambda x: x[whole * batch :], inputs))
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), out, rest)
