"""What of a configuration cannot run on nodes."""

from __future__ import annotations

from fedrax.config import Config
from fedrax.errors import FedraxError
from fedrax.federation import Federation
from fedrax.privacy.secure_sum.terms import MOST


def check_distributed(config: Config, federation: Federation) -> None:
    """Raises :class:`FedraxError` for what cannot run on nodes, in one line."""
    if config.seeds > 1:
        raise FedraxError(
            f"seeds = {config.seeds} is not allowed with runtime=flower: a real federation is one run; set seeds=1"
        )
    if federation.learner.initial is not None:
        raise FedraxError(
            "learner.initial is not allowed with runtime=flower: nodes draw their first networks themselves; set "
            "runtime=simulation, or learner.initial=none"
        )
    if federation.sites > federation.agents:
        raise FedraxError(
            f"strategy {federation.strategy.name!r} collects what all agents see in one place, which "
            "runtime=flower is there to avoid; choose another strategy, or runtime=simulation"
        )
    _check_private(config, federation)
    if config.video.every is not None and federation.personal:
        raise FedraxError(
            "video.every records a policy, and with this strategy these are on the nodes; unset video.every"
        )
    if federation.personal and config.evaluation.environments != "own":
        raise FedraxError(
            f"evaluation.environments = {config.evaluation.environments!r} is not allowed with runtime=flower and "
            f"strategy {federation.strategy.name!r}, whose policies never leave their nodes; set "
            "evaluation.environments=own"
        )
    if config.evaluation.aggregation:
        raise FedraxError(
            "evaluation.aggregation = true is not allowed with runtime=flower, where what agents learned stays on "
            "their nodes; set evaluation.aggregation=false, or runtime=simulation"
        )
    if config.budget.trajectories is not None and not federation.learner.episodic:
        raise FedraxError(
            f"budget.trajectories is not allowed with runtime=flower and learner {federation.learner.name!r}: how many "
            "episodes end in its steps is known to the nodes alone; set budget.steps_per_agent, budget.steps or "
            "budget.rounds"
        )
    if config.runtime.flower.staleness and not federation.strategy.supports_staleness:
        raise FedraxError(
            f"runtime.flower.staleness = {config.runtime.flower.staleness} is not allowed with strategy "
            f"{federation.strategy.name!r}, whose messages mean nothing to a later model; set "
            "runtime.flower.staleness=0"
        )
    if config.runtime.flower.staleness and federation.compression.uses_shared:
        raise FedraxError(
            f"runtime.flower.staleness = {config.runtime.flower.staleness} is not allowed with compression "
            f"{federation.compression.name!r}, whose encodings can be read in their own round alone; set "
            "runtime.flower.staleness=0, or another compression"
        )
    if config.runtime.flower.staleness and (federation.participants < federation.agents or federation.chance):
        raise FedraxError("runtime.flower.staleness keeps all agents busy; set federation.participation=1")
    if config.privacy.secure_sum:
        _check_secure(config, federation)


def _check_secure(config: Config, federation: Federation) -> None:
    """Raises :class:`FedraxError` for what needs more of single agents than a secure sum shows."""
    if config.runtime.flower.staleness:
        raise FedraxError(
            f"runtime.flower.staleness = {config.runtime.flower.staleness} is not allowed with privacy.secure_sum: who "
            "is in a sum must be there until its end; set runtime.flower.staleness=0"
        )
    if not isinstance(config.runtime.flower.max_norm, str | None):
        raise FedraxError(
            f"runtime.flower.max_norm = {config.runtime.flower.max_norm:g} is not allowed with privacy.secure_sum, "
            "under which the server sees no update's norm; set privacy.clip, and runtime.flower.max_norm=adaptive"
        )
    if federation.chance is not None:
        raise FedraxError(
            "federation.sampling=poisson is not allowed with privacy.secure_sum and runtime=flower: how many must stay "
            "follows from how many take part; set federation.sampling=uniform, or runtime=simulation"
        )
    attack = federation.attack
    if attack.on_messages or attack.on_statistics:
        raise FedraxError(
            f"attack {attack.name!r} is simulated at the server, which sees no message under privacy.secure_sum; set "
            "attack=none or one on the environment, or runtime=simulation"
        )
    if federation.participants > MOST:
        raise FedraxError(
            f"privacy.secure_sum masks every pair of agents, with runtime=flower {MOST} at most, and a round has "
            f"{federation.participants}; lower federation.participation"
        )


def _check_private(config: Config, federation: Federation) -> None:
    """Raises where nodes with a unit of privacy would tell more than the chain lets through."""
    protection, flower = federation.protection, config.runtime.flower
    if protection.unit is None:
        return
    if config.evaluation.environments == "own":
        raise FedraxError(
            "evaluation.environments=own has nodes report returns, which privacy.unit does not cover: set "
            "evaluation.environments=registered or all, which the server tests itself"
        )
    if flower.staleness:
        raise FedraxError(
            "runtime.flower.staleness adds up updates of several rounds, which privacy.unit does not count: set "
            "runtime.flower.staleness=0"
        )
    if isinstance(flower.max_norm, float):
        raise FedraxError(
            f"runtime.flower.max_norm = {flower.max_norm:g} leaves out updates by what they are, which privacy.unit "
            "does not count: updates are clipped anyway; set runtime.flower.max_norm=adaptive"
        )
