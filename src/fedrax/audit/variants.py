"""Other protections in place of a run's, to be attacked beside it."""

from __future__ import annotations

import dataclasses

from fedrax.config import COMPONENT_KINDS, Config, resolve
from fedrax.learners.base import Learner
from fedrax.strategies.base import Strategy

NOISES = (0.5, 1.0, 2.0)
CLIP = 1.0
"""Where a run has none."""
PROTECTING = ("privacy", "compression")
"""The tables of a configuration that say what becomes of updates."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """A run's configuration with other protection."""

    name: str
    run: Config
    overrides: tuple[str, ...] = ()
    """In place of all that the run's own says of protection; none in the run's own."""
    owned: bool = False
    """Whether it is the run's own."""

    def config(self) -> Config:
        """The whole configuration.

        Raises:
            FedraxError: protection that the run's other components cannot have.
        """
        if self.owned:
            return self.run
        table = self.run.model_dump(mode="json")
        for name in PROTECTING:
            table.pop(name, None)
        return resolve(table, self.overrides)


def own(config: Config) -> Variant:
    """The run as it is."""
    return Variant("as run", config, owned=True)


def variants(config: Config) -> list[Variant]:
    """Nothing, clipping alone, three levels of noise, a secure sum and, where there are such, compressions."""
    privacy = config.privacy
    clip = f"privacy.clip={privacy.clip or CLIP:g}"
    unit = f"privacy.unit={privacy.unit or _unit(config)}"
    model = f"privacy.model={'local' if privacy.model == 'local' else 'central'}"
    made = [
        Variant("none", config),
        Variant("clip", config, (clip,)),
        *(Variant(f"noise {z:g}", config, (unit, model, clip, f"privacy.noise={z:g}")) for z in NOISES),
        Variant("secure sum", config, (clip, "privacy.secure_sum=true")),
    ]
    if "compression" in COMPONENT_KINDS:
        made += [Variant(kind, config, (f"compression={kind}",)) for kind in ("int8", "top-k")]
    return made


def _unit(config: Config) -> str:
    """An episode where each has a gradient of its own, else an agent."""
    strategy: Strategy = config.component("strategy")
    learner: Learner = config.component("learner")
    return "trajectory" if strategy.means_of_episodes and learner.coupling is None else "agent"
