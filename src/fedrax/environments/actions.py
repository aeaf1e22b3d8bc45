"""From what a policy emits to what an environment is given: one mapping, for every learner and every back end.

A policy over a Box emits flat vectors ``[..., d]`` of real numbers, and experience holds them as they were emitted, so
that log-probabilities are those of the sample. What the environment gets is made of them here:

============  ==========================================================================================
``clip``      -1 and 1 stand for the bounds of a component; beyond them it is clipped (the usual way:
              ``RescaleAction`` and ``ClipAction`` of Gymnasium, the continuous PPO of CleanRL)
``squash``    tanh of the component first, so that no sample lies beyond (the bounded policy of SAC and of
              Brax). tanh is part of the environment here, not of the policy: its Jacobian does not depend on
              the parameters and cancels in gradients and ratios, and entropies and divergences are those
              before tanh
``none``      the number itself, in the environment's units, even out of bounds
============  ==========================================================================================

A component with one finite bound is shifted, so that -1 (or 1) stands for that bound, and clipped there, under ``clip``
and ``squash`` alike. One without bounds is handed over as it is. A learner that emits the environment's units itself
(TD3) is clipped only.

At last the vector gets the shape and the type of the space; whole numbers are rounded to the nearest.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from types import ModuleType
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from fedrax.environments.base import (
    Box,
    Discrete,
    HostEnvironments,
    HostObservation,
    Physics,
    Transition,
)
from fedrax.environments.crash import crash_of
from fedrax.environments.wrappers import HostWrapper, NativeWrapper
from fedrax.errors import FedraxError

Bounds = Literal["clip", "squash", "none"]
MEANING = (
    "real actions: -1 to 1 stands for the environment's range and is clipped (clip) or passed through tanh (squash), "
    "or the action is handed over as it is, in the environment's units (none)"
)
"""Of the option that learners have for it."""

INSIDE = 1.0 - 1e-6
"""How near to a bound a squashed action may be drawn back from."""


@dataclasses.dataclass(frozen=True)
class Actions:
    """How the actions that a learner emits become those of an environment; hashable.

    Discrete actions are the same on both sides.

    Raises:
        FedraxError: a Box without components, with bounds that are NaN or crossed, of whole numbers without bounds, or
            of whole numbers that are to be handed over as they are.
    """

    space: Discrete | Box
    bounds: Bounds = "clip"
    normalised: bool = True
    """Whether -1 and 1 stand for the bounds; False where the learner emits the environment's units."""

    def __post_init__(self) -> None:
        if isinstance(self.space, Box):
            _check(self.space, self.bounds)

    @property
    def same(self) -> bool:
        """Whether the environment is given just what is emitted."""
        if isinstance(self.space, Discrete):
            return True
        return self.bounds == "none" and len(self.space.shape) == 1 and self.space.dtype == "float32"

    def native(self, action: Float[Array, "... d"]) -> Array:
        """``[..., *shape]`` for an environment in JAX, of the space's type as far as JAX has it."""
        if self.same:
            return action
        executed = self._executed(action, jnp)
        dtype = np.dtype(self._box.dtype)
        if dtype.kind != "f":
            executed = jnp.rint(executed)
        return self._shaped(executed.astype(jax.dtypes.canonicalize_dtype(dtype)))

    def host(self, actions: np.ndarray) -> np.ndarray:
        """``[..., *shape]`` for an environment in Python: of the space's type, and within it unless ``none``."""
        if self.same:
            return actions
        dtype = np.dtype(self._box.dtype)
        if self.bounds == "none":
            return self._shaped(actions.astype(dtype, copy=False))
        # In double precision, then in the space's own type, in which its bounds are exact.
        executed = self._executed(actions.astype(np.float64), np)
        low, high = (np.asarray(bound, dtype) for bound in (self._box.low, self._box.high))
        return self._shaped(np.clip(_typed(executed, low, high), low, high))

    def in_units(self, action: Float[Array, "... d"]) -> Array:
        """What the action stands for in the environment's units, ``[..., *shape]``, not clipped and not rounded."""
        if isinstance(self.space, Discrete):
            return action
        return self._shaped(self._scaled(action, jnp))

    def emitted(self, action: Array) -> Array:
        """The inverse of :meth:`in_units`: what a policy would emit for ``[..., *shape]``, ``[..., d]``.

        Under ``squash``, an action on a bound or beyond it is that of one just within.
        """
        if isinstance(self.space, Discrete):
            return action
        x = action.reshape(*action.shape[: action.ndim - len(self._box.shape)], -1)
        if not self.scales:
            return x
        both, below, above, centre, reach, low, high = self.parts
        share = (x - centre) / np.where(reach > 0, reach, 1.0)
        if self.bounds == "squash":
            share = jnp.arctanh(jnp.clip(share, -INSIDE, INSIDE))
        return jnp.where(both, share, jnp.where(below, x - low - 1.0, jnp.where(above, x - high + 1.0, x)))

    @property
    def _box(self) -> Box:
        assert isinstance(self.space, Box)
        return self.space

    @property
    def scales(self) -> bool:
        """Whether -1 and 1 stand for bounds."""
        return self.normalised and self.bounds != "none"

    @functools.cached_property
    def parts(self) -> tuple[np.ndarray, ...]:
        """Which components have both bounds, the lower or the upper alone; centre, reach and bounds, 0 where none."""
        low, high = _bounds(self._box)
        below, above = np.isfinite(low), np.isfinite(high)
        centre, reach = middle_and_reach(self._box)
        missing = np.where(below, low, 0.0), np.where(above, high, 0.0)
        return below & above, below & ~above, above & ~below, centre, reach, *missing

    def _shaped(self, x: Any) -> Any:
        return x.reshape(*x.shape[:-1], *self._box.shape)

    def _executed(self, x: Any, xp: ModuleType) -> Any:
        """Scaled, and within the bounds unless ``none``; flat, in the precision of ``x``."""
        if self.bounds == "none":
            return x
        if self.scales and self.bounds == "clip":
            # Before it is scaled, so that no sample overflows a wide range.
            x = xp.where(self.parts[0], xp.clip(x, -1.0, 1.0), x)
        low, high = (bound.astype(x.dtype) for bound in _bounds(self._box))
        return xp.clip(self._scaled(x, xp), low, high)

    def _scaled(self, x: Any, xp: ModuleType) -> Any:
        """In the environment's units, flat."""
        if not self.scales:
            return x
        both, below, above, *numbers = self.parts
        centre, reach, low, high = (number.astype(x.dtype) for number in numbers)
        share = xp.tanh(x) if self.bounds == "squash" else x
        shifted = xp.where(below, low + (x + 1.0), xp.where(above, high + (x - 1.0), x))
        return xp.where(both, centre + reach * share, shifted)


def middle_and_reach(space: Box) -> tuple[np.ndarray, np.ndarray]:
    """The middle and half the width of each component's range, float64 ``[d]``; 0 where a bound is missing."""
    low, high = _bounds(space)
    both = np.isfinite(low) & np.isfinite(high)
    low, high = np.where(both, low, 0.0), np.where(both, high, 0.0)
    # Half of each first: the width of a range may overflow where its bounds do not.
    return low / 2 + high / 2, high / 2 - low / 2


def _bounds(space: Box) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(space.low, np.float64), np.asarray(space.high, np.float64)


def _typed(actions: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Real numbers within bounds, in the type of the bounds; whole numbers by rounding."""
    if low.dtype.kind == "f":
        # What is unbounded may be more than a short type holds: it is infinite there, as the space allows.
        with np.errstate(over="ignore"):
            return actions.astype(low.dtype)
    whole = np.rint(actions)
    # The bounds of long integers are no doubles: what is at or beyond their nearest double is the bound itself.
    inside = np.where((whole > low.astype(float)) & (whole < high.astype(float)), whole, 0.0).astype(low.dtype)
    return np.where(whole >= high.astype(float), high, np.where(whole > low.astype(float), inside, low))


def _check(space: Box, bounds: Bounds) -> None:
    low, high = _bounds(space)
    wrong = None
    if math.prod(space.shape) == 0:
        wrong = f"no component (shape {space.shape})"
    elif np.isnan(low).any() or np.isnan(high).any():
        wrong = "a bound that is not a number"
    elif (low > high).any():
        wrong = "a lower bound above the upper one"
    elif np.dtype(space.dtype).kind != "f" and not np.isfinite([low, high]).all():
        wrong = f"whole numbers ({space.dtype}) without bounds"
    if wrong is not None:
        raise FedraxError(
            f"the environment's actions cannot be taken: a Box with {wrong}; give its action space finite bounds"
        )
    if np.dtype(space.dtype).kind != "f" and bounds == "none":
        raise FedraxError(
            f"learner.action_bounds = 'none' is not allowed for actions that are whole numbers ({space.dtype}); "
            "set learner.action_bounds=clip or squash"
        )


class TransformActions(NativeWrapper):
    """``inner``, given what a learner emits."""

    actions: Actions = eqx.field(static=True)

    def step(self, state: PyTree, action: Array, key: PRNGKeyArray, physics: Physics) -> Transition:
        """One step of ``inner`` by what the emitted action stands for."""
        return self.inner.step(state, self.actions.native(action), key, physics)


class TransformHostActions(HostWrapper):
    """``inner``, given what a learner emits, ``[count, d]``."""

    def __init__(self, inner: HostEnvironments, actions: Actions) -> None:
        super().__init__(inner)
        self.actions = actions

    def reset(self, chosen: np.ndarray | None = None) -> HostObservation:
        """As ``inner``."""
        with crash_of(self):
            return self.inner.reset(chosen)

    def step(
        self, actions: np.ndarray, active: np.ndarray | None = None
    ) -> tuple[HostObservation, np.ndarray, np.ndarray, np.ndarray]:
        """One step of ``inner`` by what the emitted actions stand for."""
        with crash_of(self):
            return self.inner.step(self.actions.host(actions), active)
