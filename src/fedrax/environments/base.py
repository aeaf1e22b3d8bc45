"""What an environment is: a batched step. Native ones are pure JAX, host ones are stepped from Python."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from fedrax.errors import FedraxError


@dataclasses.dataclass(frozen=True)
class Discrete:
    """Actions ``0 .. n-1``, int32 scalars."""

    n: int

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


@dataclasses.dataclass(frozen=True)
class Spaces:
    """What an agent sees and does."""

    observation: Box
    action: Discrete | Box
    mission: int = 0
    """How many of the observation's last numbers are the words of a mission (MiniGrid), as indices; 0 pads."""
    vocabulary: int = 0
    """Words there are, the padding included."""


Physics = Mapping[str, Any]
"""A native environment's parameters by name: numbers, or scalars that may be traced."""


class Transition(NamedTuple):
    """One step of a native environment. Time limits are the collector's business, not the environment's."""

    state: PyTree
    observation: Array
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

    def check(self, physics: Mapping[str, float]) -> None:
        """Raises :class:`FedraxError` for parameters that make no environment."""

    def draw(self, state: PyTree, physics: Mapping[str, float]) -> np.ndarray:
        """A picture of one copy's state, ``uint8[height, width, 3]``; only videos need it."""
        raise FedraxError(
            f"native environment {type(self).__name__} cannot be recorded on video: it has no method draw"
        )

    @abc.abstractmethod
    def physics(self) -> dict[str, float]:
        """The default physical parameters by name; heterogeneity replaces their values per agent."""

    @abc.abstractmethod
    def reset(self, key: PRNGKeyArray, physics: Physics) -> tuple[PyTree, Array]:
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
    def reset(self, chosen: np.ndarray | None = None) -> np.ndarray:
        """Starts a fresh episode in every copy, whatever state it was in; ``[count, *obs]``, float32 or uint8.

        With ``chosen``, ``bool[count]``, in those copies alone: the others stay where they are, and their rows mean
        nothing.
        """

    @abc.abstractmethod
    def step(
        self, actions: np.ndarray, active: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
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

    observation: Array
    """``[T, B, *o]``, float32 or uint8."""
    action: Array
    """``[T, B]``, or flat vectors ``[T, B, a]`` as the learner emits them (:mod:`fedrax.environments.actions`).

    An attack may have replaced the policy's choice.
    """
    reward: Float[Array, "T B"]
    valid: Bool[Array, "T B"]
    """True for steps of episodes that were asked for; everything else is padding."""
    terminated: Bool[Array, " B"]
    """True where the episode ended in a terminal state rather than at the time limit."""

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

    observation: Array
    """``[T+1, B, *o]``, float32 or uint8."""
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
