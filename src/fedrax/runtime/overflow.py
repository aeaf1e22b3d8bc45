"""States that learning has made infinite: found before they are kept.

Finite rewards can still overflow what is computed from them, such as the square of a gradient in Adam. A network or a
moment that is not finite stays so in whatever is learned afterwards, and a network of 1e30, where a step of SGD can
lead, has no outputs that are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from fedrax.federation import Cohort, Exchange, Federation
from fedrax.learners.hindsight import HindsightReplay
from fedrax.learners.moments import Moments
from fedrax.learners.replay import Replay
from fedrax.message import Message, is_real
from fedrax.strategies.base import Downlink, ServerWork, select

LARGEST = 1e19
"""Of a network's numbers: the square of twice as large a one is infinite in float32."""
NETWORKS = ("params", "models", "policies", "encoders", "teacher")
"""Where agents and servers keep networks."""
BOUNDS = (LARGEST, float(np.finfo(np.float32).max))
"""Of a network's numbers, and of all others, which are finite up to it."""


def overflowed(before: PyTree, after: PyTree) -> Bool[Array, ""]:
    """Whether some number of a state was finite ``before`` and is so no longer, or one of its networks' is too large.

    Replays are passed over: what they hold was checked when it was collected, and they are large.
    """
    found = jnp.asarray(False)
    for old, new, bound in zip(_vectors(before), _vectors(after), BOUNDS, strict=True):
        found |= (_within(old, bound) & ~_within(new, bound)).any()
    return found


def sound(state: PyTree) -> Bool[Array, ""]:
    """Whether every number of a state is finite and its networks' are not too large, replays aside."""
    found = jnp.asarray(True)
    for vector, bound in zip(_vectors(state), BOUNDS, strict=True):
        found &= _within(vector, bound).all()
    return found


def exchanged(
    federation: Federation,
    server: PyTree,
    downlink: Downlink,
    cohort: Cohort,
    messages: Message,
    *others: Any,
    **named: Any,
) -> tuple[PyTree, Exchange]:
    """:meth:`Federation.exchange`; where its result overflows, :meth:`Strategy.undone`, and no message is used."""
    after, made = federation.exchange(server, downlink, cohort, messages, *others, **named)
    lost = overflowed(server, after)
    nobody = jnp.zeros_like(made.present)
    undone = made._replace(accepted=nobody, present=nobody, excluded=made.excluded | made.present)
    made = select(lost, undone, made)._replace(overflowed=lost)
    return select(lost, federation.strategy.undone(server, after), after), made


def refined(federation: Federation, server: PyTree, episodes: Any) -> tuple[PyTree, Bool[Array, ""]]:
    """:meth:`Strategy.refine`, and whether it overflowed; the server is as before then."""
    after = federation.strategy.refine(federation.learner, server, episodes)
    lost = overflowed(server, after)
    return select(lost, server, after), lost


def finished(federation: Federation, server: PyTree, key: PRNGKeyArray) -> tuple[PyTree, ServerWork, Bool[Array, ""]]:
    """:meth:`Strategy.finish`, and whether it overflowed; the server is as before then."""
    after, work = federation.strategy.finish(server, key)
    lost = overflowed(server, after)
    return select(lost, server, after), work, lost


def _within(vector: Float[Array, " n"], bound: float) -> Bool[Array, " n"]:
    """False of NaN."""
    return jnp.abs(vector) <= bound


def _vectors(state: PyTree) -> tuple[Float[Array, " n"], Float[Array, " m"]]:
    """The numbers of a state's networks, and all others; two vectors, as a reduction of each array takes XLA long."""
    networks: list[Array] = []
    others: list[Array] = []
    for path, part in jax.tree_util.tree_flatten_with_path(state, is_leaf=_is(Replay, HindsightReplay, Moments))[0]:
        if isinstance(part, (Replay, HindsightReplay)):
            continue
        # The sums of squares that observations are normalised with grow with the observations, and may.
        large = isinstance(part, Moments) or not path or getattr(path[0], "name", "") not in NETWORKS
        (others if large else networks).extend(leaf for leaf in jax.tree.leaves(part) if is_real(leaf))
    return _joined(networks), _joined(others)


def _joined(leaves: list[Array]) -> Float[Array, " n"]:
    return jnp.concatenate([jnp.zeros(0), *(leaf.astype(jnp.float32).ravel() for leaf in leaves)])


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda x: isinstance(x, kinds)
