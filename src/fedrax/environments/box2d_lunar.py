"""Gymnasium's LunarLander with engines of its own in every instance; importing this needs Box2D."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import numpy as np
from gymnasium.envs.box2d.lunar_lander import LunarLander
from gymnasium.utils import EzPickle

from fedrax.errors import FedraxError


class VariedLunarLander(LunarLander):
    """LunarLander of any engines, gravity and wind; with the defaults, the registered environment bit for bit.

    Gymnasium's step reads the engines' constants from its module. Each instance therefore runs the very code of that
    step with globals of its own, in which these constants are its parameters: no instance touches another's, nothing
    of Gymnasium is copied, and a version of it that names the constants differently is refused.

    Wind blows where ``wind_power`` or ``turbulence_power`` is above 0. ``side_engine_height`` enters the vertical
    component of where the side engines push; into the horizontal one Gymnasium writes 17, which stays.

    Args:
        parameters: ``main_engine_power``, ``side_engine_power`` (impulse at full throttle), ``side_engine_height``,
            ``side_engine_away`` (pixels, 30 to a metre), ``gravity`` (m/s^2), ``wind_power``, ``turbulence_power``.
        continuous: whether actions are two real numbers rather than one of four.
        render_mode: Gymnasium's.
    """

    def __init__(
        self, parameters: Mapping[str, float], continuous: bool = False, render_mode: str | None = None
    ) -> None:
        wind, turbulence = parameters["wind_power"], parameters["turbulence_power"]
        super().__init__(
            render_mode=render_mode,
            continuous=continuous,
            gravity=parameters["gravity"],
            enable_wind=wind > 0 or turbulence > 0,
            wind_power=wind,
            turbulence_power=turbulence,
        )
        # Again, over the parent's: an unpickled copy is constructed from these.
        EzPickle.__init__(self, dict(parameters), continuous, render_mode)
        self.parameters = dict(parameters)
        engines = ("main_engine_power", "side_engine_power", "side_engine_height", "side_engine_away")
        self._step = _with_constants(LunarLander.step, {name.upper(): parameters[name] for name in engines})

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Gymnasium's step with this instance's engines."""
        return self._step(self, action)


def _with_constants(function: Any, constants: Mapping[str, float]) -> Callable[..., Any]:
    """The function's code reading ``constants`` in place of its module's.

    Raises:
        FedraxError: the function reads no such constant, so that setting it would do nothing.
    """
    missing = sorted(constants.keys() - set(function.__code__.co_names))
    if missing:
        raise FedraxError(
            f"Gymnasium's LunarLander reads no {', '.join(missing)}, which environment.heterogeneity sets: "
            "install gymnasium 1.4, or remove environment.heterogeneity"
        )
    scope = {**function.__globals__, **constants}
    return FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
