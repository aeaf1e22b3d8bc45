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
from jaxtyping import Array, Bool, PRNGKeyArray, PyTree

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


def overflowed(before: PyTree, after: PyTree) -> Bool[Array, ""]:
    """Whether some number of a state was finite ``before`` and is so no longer, or one of its networks' is too large.

    Replays are passed over: what they hold was checked when it was collected, and they are large.
    """
    found = jnp.asarray(False)
    for old, new in zip(_real(before), _real(after), strict=True):
        found |= (jnp.isfinite(old) & ~jnp.isfinite(new)).any()
    for old, new in zip(_networks(before), _networks(after), strict=True):
        found |= ((jnp.abs(old) <= LARGEST) & (jnp.abs(new) > LARGEST)).any()
    return found


def sound(state: PyTree) -> Bool[Array, ""]:
    """Whether every number of a state is finite and its networks' are not too large, replays aside."""
    found = jnp.asarray(True)
    for leaf in _real(state):
        found &= jnp.isfinite(leaf).all()
    for leaf in _networks(state):
        found &= (jnp.abs(leaf) <= LARGEST).all()
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


def _networks(state: PyTree) -> list[Array]:
    found = [getattr(state, name) for name in NETWORKS if hasattr(state, name)]
    # The sums of squares that observations are normalised with grow with the observations, and may.
    return _real(jax.tree.map(lambda x: () if isinstance(x, Moments) else x, found, is_leaf=_is(Moments)))


def _real(state: PyTree) -> list[Array]:
    large = _is(Replay, HindsightReplay)
    return [leaf for leaf in jax.tree.leaves(state, is_leaf=large) if not large(leaf) and is_real(leaf)]


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda x: isinstance(x, kinds)
