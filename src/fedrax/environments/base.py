"""What an environment is: a batched step. Native ones are pure JAX, host ones are stepped from Python."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from fedrax.environments.goals import ACHIEVED, DESIRED, Goal
from fedrax.errors import FedraxError

LARGEST_PARAMETER = 1e12
"""Of physical parameters: products of several are still numbers of 32 bits."""


@dataclasses.dataclass(frozen=True)
class Discrete:
    """Actions ``0 .. n-1``, int32 scalars."""

    n: int
    start: int = dataclasses.field(default=0, compare=False)
    """What the environment calls the first of them; only what acts outside of Fedrax needs to know."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one action."""
        return ()


@dataclasses.dataclass(frozen=True)
class Box:
    """Arrays of numbers of ``shape``; ``low`` and ``high`` are per component, flat, and may be infinite."""

    shape: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    dtype: str = "float32"
    """Type of the environment's own numbers. Agents see float32, but uint8 as uint8 (:attr:`seen`)."""

    @property
    def seen(self) -> np.dtype[Any]:
        """Type in which observations of this space are collected, kept and given to networks."""
        return np.dtype(np.uint8 if self.dtype == "uint8" else np.float32)

    @property
    def tree(self) -> Box:
        """As a pytree of one leaf."""
        return self


@dataclasses.dataclass(frozen=True)
class Tokens:
    """A sentence of at most ``length`` words as their places in a vocabulary, int32; 0 pads."""

    length: int
    vocabulary: int
    """Words there are, the padding included."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sentence."""
        return (self.length,)

    @property
    def seen(self) -> np.dtype[Any]:
        """As :attr:`Box.seen`."""
        return np.dtype(np.int32)


@dataclasses.dataclass(frozen=True)
class Dict:
    """Several arrays by name: an observation is a dictionary of them, and a pytree."""

    parts: tuple[tuple[str, Box | Tokens], ...]
    """Sorted by name, as the leaves of the pytree are."""

    @staticmethod
    def of(parts: Mapping[str, Box | Tokens]) -> Dict:
        """The space of these parts."""
        return Dict(tuple(sorted(parts.items())))

    @property
    def tree(self) -> dict[str, Box | Tokens]:
        """As a pytree, whose leaves are the parts."""
        return dict(self.parts)


Observation = Array | dict[str, Array]
"""What networks are given: an array, or a dictionary of them where the space is a :class:`Dict`."""
HostObservation = Any
"""The same in NumPy arrays."""


def shapes(space: Box | Dict) -> tuple[int, ...] | dict[str, tuple[int, ...]]:
    """The shape of one observation; by name where it has parts."""
    return space.shape if isinstance(space, Box) else {name: part.shape for name, part in space.parts}


def zero_observations(space: Box | Dict, batch: tuple[int, ...]) -> HostObservation:
    """Observations of zeros, leaves ``[*batch, *o]``, in NumPy arrays."""
    return jax.tree.map(lambda part: np.zeros((*batch, *part.shape), part.seen), space.tree)


@dataclasses.dataclass(frozen=True)
class Spaces:
    """What an agent sees and does."""

    observation: Box | Dict
    action: Discrete | Box
    goal: Goal | None = None
    """How a goal environment rewards; None where there are no goals, or no rule of theirs is known."""
    no_goal: str = dataclasses.field(default="", compare=False)
    """Why no rule of its goals is known, where it has some."""


def has_goals(observation: Box | Dict) -> bool:
    """Whether observations are a goal environment's: dictionaries with an achieved and a desired goal, two vectors."""
    parts: dict[str, Any] = dict(observation.parts) if isinstance(observation, Dict) else {}
    goals = [part.shape for name in (ACHIEVED, DESIRED) if isinstance(part := parts.get(name), Box)]
    return len(goals) == 2 and goals[0] == goals[1] and len(goals[0]) == 1


Physics = Mapping[str, Any]
"""A native environment's parameters by name: numbers, or scalars that may be traced."""


class Transition(NamedTuple):
    """One step of a native environment. Time limits are the collector's business, not the environment's."""

    state: PyTree
    observation: Observation
    """Observation of ``state``, also when it is terminal (never that of a reset)."""
    reward: Float[Array, ""]
    terminated: Bool[Array, ""]
    success: Bool[Array, ""] | None = None
    """Whether the goal is reached in this step; None in environments without one."""


class NativeEnvironment(eqx.Module):
    """A pure JAX environment for ONE copy; collectors map it. ``physics`` is a pytree of its named parameters."""

    spaces: ClassVar[Spaces]
    time_limit: ClassVar[int]
    """Steps after which Gymnasium's registered environment truncates."""
    frames_per_second: ClassVar[int] = 50
    """Steps that a video shows in a second."""

    positive: ClassVar[tuple[str, ...]] = ()
    """Physical parameters without which there is none: masses, lengths, durations, limits."""

    def check(self, physics: Mapping[str, float]) -> None:
        """Raises :class:`FedraxError` for parameters that make no environment."""
        for name, value in physics.items():
            low = "above 0" if name in self.positive else f"at least {-LARGEST_PARAMETER:g}"
            if abs(value) > LARGEST_PARAMETER or (name in self.positive and value <= 0):
                raise FedraxError(
                    f"environment.heterogeneity.{name} = {value:g} is not allowed: it must be {low} and at most "
                    f"{LARGEST_PARAMETER:g}"
                )

    def draw(self, state: PyTree, physics: Mapping[str, float]) -> np.ndarray:
        """A picture of one copy's state, ``uint8[height, width, 3]``; only videos need it."""
        raise FedraxError(
            f"native environment {type(self).__name__} cannot be recorded on video: it has no method draw"
        )

    @abc.abstractmethod
    def physics(self) -> dict[str, float]:
        """The default physical parameters by name; heterogeneity replaces their values per agent."""

    @abc.abstractmethod
    def reset(self, key: PRNGKeyArray, physics: Physics) -> tuple[PyTree, Observation]:
        """A fresh state and its observation."""

    @abc.abstractmethod
    def step(self, state: PyTree, action: Array, key: PRNGKeyArray, physics: Physics) -> Transition:
        """One step from ``state``."""


class HostEnvironments(abc.ABC):
    """``count`` copies of a host environment that step together.

    Autoreset is next-step: the step after a finished one ignores its action and returns a reset observation with
    reward 0, so final observations and reset observations are never mixed up.
    """

    spaces: Spaces
    count: int
    time_limit: int

    @property
    def success(self) -> np.ndarray | None:
        """Which copies reached their goal in the last step, ``bool[count]``; None where the environment does not say.

        Rows of copies that were not active mean nothing.
        """
        return None

    @abc.abstractmethod
    def reseed(self, seeds: np.ndarray) -> None:
        """Starts every copy's random stream anew from its seed, ``int64[count]``; call before the first reset."""

    @abc.abstractmethod
    def reset(self, chosen: np.ndarray | None = None) -> HostObservation:
        """Starts a fresh episode in every copy, whatever state it was in; leaves ``[count, *o]``, typed as seen.

        With ``chosen``, ``bool[count]``, in those copies alone: the others stay where they are, and their rows mean
        nothing.
        """

    @abc.abstractmethod
    def step(
        self, actions: np.ndarray, active: np.ndarray | None = None
    ) -> tuple[HostObservation, np.ndarray, np.ndarray, np.ndarray]:
        """Observations, rewards (float32), terminated, truncated, each ``[count, ...]``.

        ``actions`` are shaped and typed as the space says.

        ``active``, ``bool[count]``, says whose step is wanted: the others may stand still or step along, and their
        rows mean nothing.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Frees the copies."""


class Episodes(eqx.Module):
    """Whole episodes of one agent, padded to a common length; ``T`` steps, ``B`` episodes."""

    observation: Observation
    """Leaves ``[T, B, *o]``, float32 or uint8, int32 for words."""
    action: Array
    """``[T, B]``, or flat vectors ``[T, B, a]`` as the learner emits them (:mod:`fedrax.environments.actions`).

    An attack may have replaced the policy's choice.
    """
    reward: Float[Array, "T B"]
    valid: Bool[Array, "T B"]
    """True for steps of episodes that were asked for; everything else is padding."""
    terminated: Bool[Array, " B"]
    """True where the episode ended in a terminal state rather than at the time limit."""
    success: Bool[Array, " B"] | None = None
    """True where the goal was reached in any step; None where the environment does not say."""

    @property
    def steps(self) -> Array:
        """Environment steps taken, int32."""
        return self.valid.sum(dtype=jnp.int32)

    @property
    def count(self) -> Array:
        """Episodes taken, int32."""
        return self.valid[0].sum(dtype=jnp.int32)

    @property
    def returns(self) -> Float[Array, " B"]:
        """Undiscounted return of each episode (0 for padding)."""
        return jnp.where(self.valid, self.reward, 0.0).sum(0)


class Steps(eqx.Module):
    """Consecutive steps of one agent's copies, whose episodes run on from one collection to the next.

    ``T`` steps of ``B`` copies. An episode's last observation is that of the row after its last step, and the step
    taken from it is no experience (``valid`` is False): it only starts the next episode. So the value after step t
    is always that of ``observation[t + 1]``, also at a time limit.
    """

    observation: Observation
    """Leaves ``[T+1, B, *o]``, float32 or uint8, int32 for words."""
    extras: PyTree
    """What the learner computed beside each action, leaves ``[T+1, B, ...]``."""
    action: Array
    """``[T, B]``, or flat vectors ``[T, B, a]`` as the learner emits them (:mod:`fedrax.environments.actions`).

    An attack may have replaced the policy's choice.
    """
    reward: Float[Array, "T B"]
    valid: Bool[Array, "T B"]
    terminated: Bool[Array, "T B"]
    """The step led to a terminal state."""
    truncated: Bool[Array, "T B"]
    """The step reached the time limit, and no terminal state."""
    returns: Float[Array, "T B"]
    """Undiscounted return of the episode that ended with this step, 0 where none did."""
    success: Bool[Array, "T B"] | None = None
    """An episode ended with this step, and its goal was reached in any of its steps; None where the environment does
    not say."""

    @property
    def acted_on(self) -> Observation:
        """What each action was taken on, leaves ``[T, B, *o]``."""
        return jax.tree.map(lambda x: x[:-1], self.observation)

    @property
    def following(self) -> Observation:
        """What each step led to, leaves ``[T, B, *o]``."""
        return jax.tree.map(lambda x: x[1:], self.observation)

    @property
    def over(self) -> Bool[Array, "T B"]:
        """Whether the step was its episode's last."""
        return self.terminated | self.truncated

    @property
    def steps(self) -> Array:
        """Environment steps taken, int32."""
        return self.valid.sum(dtype=jnp.int32)

    @property
    def count(self) -> Array:
        """Episodes that ended, int32."""
        return self.over.sum(dtype=jnp.int32)


Experience = Episodes | Steps
"""What one collection hands to a learner."""


def stack_physics(draws: list[list[dict[str, float]]]) -> dict[str, Any]:
    """Per-agent parameter tables of every draw as one pytree of ``float32[draws, agents]``."""
    names = draws[0][0]
    return {name: jnp.asarray([[agent[name] for agent in each] for each in draws], jnp.float32) for name in names}
