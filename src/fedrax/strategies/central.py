"""The centralised baseline: one learner with every agent's environments."""

from __future__ import annotations

from typing import ClassVar

from fedrax.strategies.base import Needs, strategies
from fedrax.strategies.local import Local


@strategies.register("central")
class Central(Local):
    """All agents' samples pooled at one learner: what a federation forgoes by keeping trajectories where they are.

    Its updates use as many times more steps as there are agents; their number is that of one agent.
    """

    needs: ClassVar[Needs] = Needs(pooled=True)
