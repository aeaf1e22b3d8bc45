"""Numbers that are not finite, from an environment or of what is learned: found before they are kept, and named."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from fedrax.environments.base import Episodes, Experience, HostObservation

NOTHING, OBSERVATION, REWARD, LEARNING = 0, 1, 2, 3
"""What was not finite; ``LEARNING``: what was learned from finite observations and rewards."""
NAMES = {OBSERVATION: "observation", REWARD: "reward", LEARNING: "learning"}
LATEST = np.iinfo(np.int32).max


class Fault(NamedTuple):
    """The first number of a collection that is not finite; int32 scalars of JAX or NumPy, all 0 where there is none.

    Of :data:`LEARNING` the kind alone is known.
    """

    kind: Any
    """:data:`NOTHING`, :data:`OBSERVATION`, :data:`REWARD` or :data:`LEARNING`."""
    update: Any
    """Which of the round's local updates collected it, from 0."""
    step: Any
    """Which of the copy's (or the episode's) steps returned it, from 1; 0: it was there before the first."""
    copy: Any
    """Which copy of the environment, or which episode where whole ones are collected, from 0."""

    @staticmethod
    def none() -> Fault:
        """No fault."""
        return Fault(*[jnp.asarray(0, jnp.int32)] * len(Fault._fields))

    @property
    def row(self) -> Array:
        """As one array, int32 ``[..., 4]``."""
        return jnp.stack([jnp.asarray(field, jnp.int32) for field in self], -1)

    @staticmethod
    def of_row(row: Any) -> Fault:
        """The inverse of :attr:`row`."""
        return Fault(*(row[..., place] for place in range(len(Fault._fields))))


def first_fault(experience: Experience) -> Fault:
    """The earliest fault of one agent's collection; in one step, an observation before a reward.

    Pure, for arrays of JAX or of NumPy. Padding does not count. The observations of :class:`Steps` all do: also the
    last of an episode enters the networks.
    """
    xp: Any = np if isinstance(experience.reward, np.ndarray) else jnp
    reward, observation = experience.reward, experience.observation
    seen = functools.reduce(
        operator.and_, (xp.isfinite(x).all(tuple(range(2, x.ndim))) for x in jax.tree.leaves(observation))
    )
    if isinstance(experience, Episodes):
        seen |= ~experience.valid
    paid = xp.isfinite(reward) | ~experience.valid
    # Twice the number of the step that returned it, and one more for a reward: the least is the earliest.
    observed = xp.where(seen, LATEST, 2 * xp.arange(seen.shape[0])[:, None])
    rewarded = xp.where(paid, LATEST, 2 * xp.arange(1, paid.shape[0] + 1)[:, None] + 1)
    codes = xp.minimum(observed.min(0), rewarded.min(0))
    copy = codes.argmin()
    code = codes[copy]
    sound = code == LATEST
    kind = xp.where(sound, NOTHING, xp.where(code % 2 == 1, REWARD, OBSERVATION))
    step, copy = xp.where(sound, 0, code // 2), xp.where(sound, 0, copy)
    whole = (kind, xp.zeros_like(kind), step, copy)
    return Fault(*(field.astype(np.int32) for field in whole))


def host_faults(experience: Experience) -> Fault:
    """Every agent's first fault in NumPy arrays with leading axis ``[agents]``, fields ``int32[agents]``."""
    agents = experience.reward.shape[0]
    if all(np.isfinite(x).all() for x in jax.tree.leaves((experience.reward, experience.observation))):
        return Fault(*[np.zeros(agents, np.int32)] * len(Fault._fields))
    return stacked([first_fault(jax.tree.map(lambda x, k=k: x[k], experience)) for k in range(agents)])


def with_learning(fault: Fault, overflowed: Any) -> Fault:
    """The fault, or :data:`LEARNING` where there is none and learning ``overflowed``, bool like its fields."""
    xp: Any = np if isinstance(fault.kind, np.ndarray) else jnp
    kind = xp.where((fault.kind == NOTHING) & overflowed, LEARNING, fault.kind)
    return fault._replace(kind=kind.astype(np.int32))


def stacked(faults: Sequence[Fault]) -> Fault:
    """Faults in NumPy arrays as one, with a new leading axis."""
    return Fault(*(np.stack(field) for field in zip(*faults, strict=True)))


def earliest(faults: Fault) -> Fault:
    """Of each agent's faults by local update, fields ``[updates, ...]``, the first."""
    xp: Any = np if isinstance(faults.kind, np.ndarray) else jnp
    update = (faults.kind != NOTHING).argmax(0)

    def pick(field: Any) -> Any:
        return xp.take_along_axis(field, update[None], 0)[0]

    kind = pick(faults.kind)
    return Fault(kind, xp.where(kind == NOTHING, 0, update).astype(np.int32), pick(faults.step), pick(faults.copy))


def without(experience: Experience, faulty: np.ndarray) -> Experience:
    """The experience with zeros for the real numbers of agents ``faulty[agents]``, in NumPy arrays.

    What they then compute comes to nothing, but they may have to act once more in the round, and an environment may
    not survive an action that is NaN.
    """

    def zeroed(x: np.ndarray) -> np.ndarray:
        real = np.issubdtype(x.dtype, np.floating)
        return np.where(faulty.reshape(-1, *[1] * (x.ndim - 1)), np.zeros((), x.dtype), x) if real else x

    return jax.tree.map(zeroed, experience)


def finite(observation: HostObservation) -> HostObservation:
    """What to act on, zeros for what is not finite; see :func:`without`."""

    def one(x: np.ndarray) -> np.ndarray:
        known = np.isfinite(x)
        return x if known.all() else np.where(known, x, np.zeros((), x.dtype))

    return jax.tree.map(one, observation)


def recorded(owner: int | str, fault: Fault, *, episodic: bool, updates: int) -> dict[str, int | str]:
    """A fault as a run's records hold it; ``owner`` is an agent's number, or ``"server"``."""
    kind, update, step, copy = (int(field) for field in fault)
    if kind == LEARNING:
        return {"agent": owner, "what": NAMES[kind]}
    place = {"episode" if episodic else "copy": copy} | ({"update": update} if updates > 1 else {})
    return {"agent": owner, "what": NAMES[kind], "step": step, **place}


def described(entry: Mapping[str, Any]) -> str:
    """``agent 2's collection was dropped: its reward was not finite in step 41 (environment copy 3)``."""
    owner = "the server" if entry["agent"] == "server" else f"agent {entry['agent']}"
    if entry["what"] == NAMES[LEARNING]:
        return (
            f"what {owner} learned was dropped: it overflowed (a network, an optimiser's moment or what the strategy "
            "keeps), though rewards and observations were finite; smaller rewards or a smaller learning_rate help"
        )
    when = f"in step {entry['step']}" if entry["step"] else "before the first step"
    names = {"copy": "environment copy", "episode": "episode", "update": "local update"}
    where = ", ".join(f"{name} {entry[key]}" for key, name in names.items() if key in entry)
    return f"{owner}'s collection was dropped: its {entry['what']} was not finite {when} ({where})"


def masked(dropped: Array | np.ndarray, new: PyTree, old: PyTree) -> PyTree:
    """``old`` for the rows that were ``dropped``, bool ``[n]``; leaves ``[n, ...]``."""

    def one(x: Array, y: Array) -> Array:
        return jnp.where(dropped.reshape(-1, *[1] * (x.ndim - 1)), y, x)

    return jax.tree.map(one, new, old)
