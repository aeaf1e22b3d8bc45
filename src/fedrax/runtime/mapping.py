"""Mapping a function of one agent, or seed, over all: side by side, or in batches that follow one another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from fedrax.federation import Federation

AGENTS = "agents"
"""Name of the mapped axis, for collectors that reduce over it."""
WIDE = 50_000
"""Weights of a network whose layers are wide enough to fill a CPU when only one agent is computed."""
STEPS_AT_ONCE = 4_000_000
"""Steps of experience held together: some hundred megabytes for small observations."""


def agents_side_by_side(federation: Federation, steps_per_agent: int) -> int:
    """How many agents to compute together: enough to fill the processor, few enough that memory suffices.

    Agents who step on from their own parameters share no product, and on a CPU a batch of wide products takes longer
    than one after the other.
    """
    learner = federation.learner
    if not learner.episodic and jax.default_backend() == "cpu":
        network = jax.eval_shape(lambda key: learner.init_params(key, federation.spaces), jax.random.key(0))
        if sum(leaf.size for leaf in jax.tree.leaves(network)) > WIDE:
            return 1
    return max(1, STEPS_AT_ONCE // steps_per_agent)


def map_in_batches(function: Callable[[PyTree], Any], inputs: PyTree, batch: int, axis_name: str = AGENTS) -> Any:
    """``function`` of every slice of ``inputs`` (leaves ``[n, ...]``), ``batch`` of them side by side.

    Values the function closes over stay unmapped, so what all agents share, such as a broadcast policy, is computed
    with once: one large matrix product in place of many small ones.

    One slice at a time is not mapped, so ``axis_name`` is unknown to the function, and its branches stay branches:
    mapped, both sides would be computed and the whole state copied to choose between them.
    """
    count = jax.tree.leaves(inputs)[0].shape[0]
    if count == 1:
        return jax.tree.map(lambda x: x[None], function(jax.tree.map(lambda x: x[0], inputs)))
    if batch == 1:
        return jax.lax.map(function, inputs)
    mapped = jax.vmap(function, axis_name=axis_name)
    whole = count // batch
    if (whole <= 1 and count == batch * whole) or count < batch:
        return mapped(inputs)
    head = jax.tree.map(lambda x: x[: whole * batch].reshape(whole, batch, *x.shape[1:]), inputs)
    _, out = jax.lax.scan(lambda carry, x: (carry, mapped(x)), None, head)
    out = jax.tree.map(lambda x: x.reshape(whole * batch, *x.shape[2:]), out)
    if whole * batch == count:
        return out
    rest = mapped(jax.tree.map(lambda x: x[whole * batch :], inputs))
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), out, rest)
