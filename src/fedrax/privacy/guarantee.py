"""What a configuration's noise amounts to: epsilon and delta, for whom, against whom, and when they are used up."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

from fedrax.config_tables import FederationConfig, PrivacyConfig
from fedrax.errors import FedraxError
from fedrax.privacy.accountant import Releases, epsilon, most_releases, noise_for
from fedrax.privacy.secure_sum.terms import most_bits

LEAST_BITS, MOST_BITS = 8, 20
"""Of numbers in a secure sum, unless a configuration says how many."""
DELTA = 1e-5
"""Unless the number of agents asks for less: a mechanism that publishes one of n has a delta of 1/n."""
NOISES = 1e-6, 1e6
"""The least and the most noise over the clip, where there is any: float32 holds it beside updates."""
TRUST = {
    "central": "the server is trusted",
    "local": "nobody is trusted",
    "distributed": "the server learns sums alone, of at least {honest:.0%} honest participants",
}
"""Who must be trusted for a guarantee to hold, by :class:`~fedrax.config_tables.PrivacyConfig.model`."""


@dataclasses.dataclass(frozen=True)
class Guarantee:
    """Differential privacy of what leaves the agents: every round's noisy updates, or their noisy sum.

    An episode of an on-policy learner enters one round, and later policies are functions of what was released
    (post-processing), so that of a trajectory one release counts, however long training runs. It is assumed that the
    protected person is in one episode, and that other episodes' data depend on the released policies alone.
    """

    unit: str
    model: str
    neighbours: str
    delta: float
    noise: float
    """Standard deviation over the clip."""
    sampling: float
    """Chance to take part in a round, where that is drawn for each agent alone; else 1."""
    target: float | None
    """The epsilon that training must stay within."""
    honest: float

    def epsilon(self, rounds: int, *, sampled: bool = True) -> float:
        """What so many rounds cost; with ``sampled``, to those who do not see who takes part in a round."""
        count = self.releases(rounds)
        return epsilon([Releases(self._relative, count, self.sampling if sampled else 1.0)], self.delta)

    def releases(self, rounds: int) -> int:
        """Of so many rounds, those whose releases hold something of one unit."""
        return min(rounds, 1) if self.unit == "trajectory" else rounds

    @functools.cached_property
    def limit(self) -> int | None:
        """Rounds that stay within :attr:`target`; None: any number."""
        if self.target is None or (self.unit == "trajectory" and self.epsilon(1) <= self.target):
            return None
        if self.unit == "trajectory":
            return 0
        return most_releases(self.target, self.delta, self._relative, self.sampling)

    @property
    def _relative(self) -> float:
        """The noise in units of how far one unit moves the sum."""
        return self.noise / _distance(self.neighbours)

    def summary(self, rounds: int) -> dict[str, Any]:
        """The guarantee after so many rounds, for a summary."""
        return {
            "epsilon": self.epsilon(rounds),
            "epsilon_without_amplification": self.epsilon(rounds, sampled=False),
            "delta": self.delta,
            "unit": self.unit,
            "neighbours": self.neighbours,
            "model": self.model,
            "noise": self.noise,
            "text": self.text(rounds),
        }

    def text(self, rounds: int) -> str:
        """One line: epsilon, delta, unit, neighbouring relation, who is trusted, what amplification counts."""
        if self.noise == 0:
            return f"no bound: clipped per {self.unit}, but without noise (set privacy.noise or privacy.epsilon)"
        relation = "replace-one" if self.neighbours == "replace" else "add-or-remove"
        trust = TRUST[self.model].format(honest=self.honest)
        start = (
            f"epsilon {self.epsilon(rounds):.3g} (delta {self.delta:.2g}) per {self.unit} ({relation}), {self.model}"
        )
        if self.sampling == 1:
            return f"{start}: {trust}, no amplification"
        whole = self.epsilon(rounds, sampled=False)
        return f"{start}: {trust}, amplified by sampling; {whole:.3g} to whoever sees who takes part"


def resolved_privacy(settings: PrivacyConfig, federation: FederationConfig, rounds: int | None) -> Mapping[str, Any]:
    """What of the table ``privacy`` is said by default or follows from the rest, by key.

    With a unit: the neighbouring relation, delta, and the noise that ``privacy.epsilon`` asks for, of a budget of
    ``rounds``. Written out, so that a run that is extended keeps its noise, and ends where its epsilon is used up.

    Raises:
        FedraxError: settings that contradict each other or that nothing bounds.
    """
    _check(settings)
    if settings.secure_sum and federation.sampling == "poisson" and federation.participation < 1:
        raise FedraxError(
            "federation.sampling=poisson leaves some rounds with too few agents for a secure sum, and such a lost "
            "round tells how many took part, which no noise hides: set federation.sampling=uniform, or "
            "privacy.secure_sum=false"
        )
    said = _of_unit(settings, federation, rounds)
    noise = said.get("noise")
    if noise and not NOISES[0] <= noise <= NOISES[1]:
        raise FedraxError(
            f"the noise would be {noise:.3g} times the clip; it may be {NOISES[0]:g} to {NOISES[1]:g} times, or none: "
            "set another privacy.noise or privacy.epsilon"
        )
    if settings.clip_quantile is not None and noise and settings.clip_noise is None:
        said["clip_noise"] = max(federation.participation * federation.agents / 20, noise)
    if settings.clip_noise is not None and noise and 2 * settings.clip_noise <= noise:
        raise FedraxError(
            f"privacy.clip_noise = {settings.clip_noise:g} leaves none of privacy.noise = {noise:g} for the "
            f"updates: set it to more than {noise / 2:g}, or leave it out"
        )
    if settings.secure_sum and settings.bits is None:
        said["bits"] = _fitting_bits(settings, federation, said.get("noise") or 0.0)
    return said


def _of_unit(settings: PrivacyConfig, federation: FederationConfig, rounds: int | None) -> dict[str, Any]:
    if settings.unit is None:
        return {}
    neighbours = settings.neighbours
    if neighbours is None:
        neighbours = "replace" if settings.unit == "trajectory" or settings.model == "local" else "add-or-remove"
    agents = federation.agents
    delta = settings.delta if settings.delta is not None else min(DELTA, agents**-1.1)
    noise = settings.noise
    if noise is None and settings.epsilon is not None:
        if settings.unit == "trajectory":
            count = 1
        elif rounds is not None:
            count = rounds
        else:
            raise FedraxError(
                f"privacy.epsilon = {settings.epsilon:g} needs to know how many rounds it is for: set budget.rounds, "
                "or privacy.noise, with which training ends before the round that would exceed it"
            )
        noise = noise_for(settings.epsilon, delta, count, _sampling(settings, federation)) * _distance(neighbours)
    return {"neighbours": neighbours, "delta": delta, "noise": noise or 0.0}


def guarantee(settings: PrivacyConfig, federation: FederationConfig) -> Guarantee | None:
    """The guarantee of a resolved configuration; None without a unit of privacy.

    Raises:
        FedraxError: not even one round stays within ``privacy.epsilon``.
    """
    if settings.unit is None:
        return None
    made = Guarantee(
        settings.unit,
        settings.model,
        settings.neighbours or "add-or-remove",
        settings.delta or DELTA,
        settings.noise or 0.0,
        _sampling(settings, federation),
        settings.epsilon,
        honest_share(settings),
    )
    if made.limit == 0:
        raise FedraxError(
            f"one round costs epsilon {made.epsilon(1):.3g}, more than privacy.epsilon = {made.target:g}: raise "
            "privacy.noise or privacy.epsilon, or leave privacy.noise out"
        )
    return made


def noise_on_updates(settings: PrivacyConfig) -> float:
    """The noise on the sum over the clip: all of it or, where the clip moves, what is to be added for its share.

    ``(z^-2 - (2 sigma_b)^-2)^(-1/2)`` (Andrew et al., NeurIPS 2021, theorem 1).
    """
    noise = settings.noise or 0.0
    if settings.clip_quantile is None or noise == 0:
        return noise
    assert settings.clip_noise is not None
    return (noise**-2 - (2 * settings.clip_noise) ** -2) ** -0.5


def honest_participants(settings: PrivacyConfig, participants: float) -> int:
    """As many of a round's participants as add noise enough for all, where each adds a share."""
    return max(1, math.floor(honest_share(settings) * participants + 1e-9))


def most_noise(settings: PrivacyConfig, participants: int) -> int:
    """The most, but once in 10^22, that an agent's share of the noise adds to one of its integers in a secure sum."""
    if settings.model != "distributed" or not settings.noise or settings.bits is None:
        return 0
    honest = honest_participants(settings, participants)
    return math.ceil(10 * settings.noise * 2 ** (settings.bits - 1) / math.sqrt(honest))


def summed_noise(noise: float, participants: int, honest: int) -> float:
    """The most that the noise of all participants adds to a secure sum, over the clip; z is that of ``honest`` ones."""
    return 8 * noise * math.sqrt(participants / honest)


def _fitting_bits(settings: PrivacyConfig, federation: FederationConfig, noise: float) -> int:
    """The most bits, up to 20, of numbers whose sum over a round's participants fits 32 with its noise."""
    participants = max(1, round(federation.participation * federation.agents))
    added = summed_noise(noise, participants, honest_participants(settings, participants))
    return max(LEAST_BITS, min(MOST_BITS, most_bits(participants, added)))


def honest_share(settings: PrivacyConfig) -> float:
    """The share of a round's participants whose noise must suffice where it is distributed."""
    return settings.honest or settings.threshold or 2 / 3


def _distance(neighbours: str) -> float:
    """How far the sums of two neighbours are apart, over the clip: twice as far where one is replaced as left out."""
    return 2.0 if neighbours == "replace" else 1.0


def _sampling(settings: PrivacyConfig, federation: FederationConfig) -> float:
    """The chance to take part that amplifies: of agents alone, one left out or in, and drawn for each by itself."""
    amplified = settings.unit == "agent" and settings.model != "local" and settings.neighbours != "replace"
    return federation.participation if amplified and federation.sampling == "poisson" else 1.0


def _check(settings: PrivacyConfig) -> None:
    wanted = {name for name in ("noise", "epsilon", "delta", "neighbours") if getattr(settings, name) is not None}
    if settings.unit is None and wanted:
        name = sorted(wanted)[0]
        raise FedraxError(
            f"privacy.{name} says nothing without whose influence it bounds: set privacy.unit=agent or trajectory, or "
            f"leave privacy.{name} out"
        )
    beside = {"bits": settings.bits, "threshold": settings.threshold, "honest": settings.honest}
    alone = [name for name, value in beside.items() if value is not None]
    if alone and not settings.secure_sum:
        raise FedraxError(
            f"privacy.{alone[0]} is of secure sums: set privacy.secure_sum=true, or leave privacy.{alone[0]} out"
        )
    if settings.model == "local" and settings.unit is None:
        raise FedraxError(
            "privacy.model=local says who adds noise, and there is none: set privacy.unit and privacy.noise, or leave "
            "privacy.model out"
        )
    if settings.model == "local" and settings.neighbours == "add-or-remove":
        raise FedraxError(
            "privacy.neighbours=add-or-remove hides whether an agent sends at all, which the server sees where each "
            "adds noise to its own update (privacy.model=local): set privacy.neighbours=replace, or leave it out"
        )
    if settings.clip_by == "layer" and settings.clip is None:
        raise FedraxError(
            "privacy.clip_by=layer says how updates are clipped, and they are not: set privacy.clip, or leave it out"
        )
    if settings.clip_by == "layer" and settings.unit == "trajectory":
        raise FedraxError(
            "privacy.clip_by=layer clips the arrays of updates, and privacy.unit=trajectory gradients of episodes as a "
            "whole: set privacy.clip_by=flat, or privacy.unit=agent"
        )
    if settings.clip_quantile is not None:
        _check_moving(settings)
    elif settings.clip_noise is not None:
        raise FedraxError(
            "privacy.clip_noise is of a clip that moves: set privacy.clip_quantile, or leave privacy.clip_noise out"
        )
    elif settings.clip_rate != PrivacyConfig.model_fields["clip_rate"].default:
        raise FedraxError(
            "privacy.clip_rate is of a clip that moves: set privacy.clip_quantile, or leave privacy.clip_rate out"
        )
    if settings.clip is None:
        needed = "privacy.unit" if settings.unit is not None else "privacy.secure_sum" if settings.secure_sum else None
        needed = "privacy.clip_quantile" if settings.clip_quantile is not None else needed
        if needed is not None:
            raise FedraxError(f"{needed} needs a bound on updates: set privacy.clip, such as 1.0")
    if settings.model == "distributed" and not settings.secure_sum:
        raise FedraxError(
            "privacy.model=distributed gives each agent a share of the noise, which hides nothing before it is summed "
            "up: set privacy.secure_sum=true, or privacy.model=central or local"
        )
    if settings.secure_sum and settings.model == "local" and settings.unit is not None:
        raise FedraxError(
            "privacy.model=local hides each update by itself, and a secure sum would need less noise: set "
            "privacy.model=distributed, or privacy.secure_sum=false"
        )
    if settings.honest is not None and settings.honest > (settings.threshold or 2 / 3):
        raise FedraxError(
            f"privacy.honest = {settings.honest:g} is more than the share of participants that a sum may be left with; "
            "set privacy.threshold to that or more, or privacy.honest to less"
        )
    if settings.secure_sum and settings.model == "central" and (settings.noise or settings.epsilon):
        raise FedraxError(
            "privacy.model=central has the server add the noise to a sum that it was not to see: set "
            "privacy.model=distributed, or privacy.secure_sum=false"
        )


def _check_moving(settings: PrivacyConfig) -> None:
    """Raises where the server cannot count which updates were shortened, or may not."""
    if settings.unit == "trajectory" or settings.model != "central" or settings.secure_sum:
        raise FedraxError(
            "privacy.clip_quantile has the server see which updates are as long as the clip: set privacy.unit=agent, "
            "privacy.model=central and privacy.secure_sum=false, or leave it out"
        )
    if settings.clip_by == "layer":
        raise FedraxError("privacy.clip_quantile moves one clip of whole updates: set privacy.clip_by=flat")
    if settings.unit is None and settings.clip_noise is not None:
        raise FedraxError(
            "privacy.clip_noise says nothing without whose influence it bounds: set privacy.unit=agent, or leave it out"
        )
