"""The parameters of noise on what an agent observes and does, which mean the same in native and in host environments.

Observations, the reset's included, get N(mean, std^2) in each of their numbers, with one mean for all. Actions get
N(0, std^2) times half the range of each component, and are clipped to the range.
"""

from __future__ import annotations

from collections.abc import Mapping

from fedrax.errors import FedraxError

OBSERVATION_NOISE = ("observation_noise_mean", "observation_noise_std")
ACTION_NOISE = ("action_noise_std",)
NOISE: dict[str, float] = dict.fromkeys((*OBSERVATION_NOISE, *ACTION_NOISE), 0.0)
"""The parameters of noise, and their defaults: none."""


def check_noise(parameters: Mapping[str, float]) -> None:
    """Raises :class:`FedraxError` for a negative deviation; ``parameters`` may have all of noise's or some."""
    for name in NOISE:
        if name.endswith("_std") and parameters.get(name, 0.0) < 0:
            raise FedraxError(
                f"environment.heterogeneity.{name} = {parameters[name]:g} is not allowed: "
                "a standard deviation is at least 0"
            )


def no_observation_noise(environment: str) -> FedraxError:
    """The error for noise on observations other than one array of real numbers."""
    return FedraxError(
        "environment.heterogeneity.observation_noise_* need observations that are real numbers in one array, and "
        f"those of {environment} are not; remove them"
    )


def no_action_noise(environment: str, actions: object) -> FedraxError:
    """The error for noise on actions other than real ones within bounds."""
    return FedraxError(
        "environment.heterogeneity.action_noise_std is not allowed: it needs continuous actions between finite "
        f"bounds, and {environment} has {actions}; remove it, or use observation_noise_std"
    )
