"""How FedTD3's agents differ in Box2D: the draws for host environments; parameters not drawn keep defaults.

The authors' runs in Box2D had no observation noise; with the option it is drawn last, as in their other environments.
"""

from __future__ import annotations

import numpy as np

from fedrax.environments.distributions.fedtd3 import WALKER, FedTD3

STAIR_TOPS = (2, 5, 10)
"""Of a walker's stairs there are 1 to one of these, exclusive."""

WALKER_MIXES: dict[int, dict[str, float]] = {
    1: {"stump": 0.7, "stairs": 0.3, "pit": 0.0, "stump_size_low": 1.0, "stump_size_high": 2.0},
    2: {"stump": 1.0, "stairs": 0.0, "pit": 0.0},
    3: {"stump": 0.0, "stairs": 1.0, "pit": 0.0},
    4: {"stump": 0.0, "stairs": 0.0, "pit": 1.0},
    5: {"stump": 0.4, "stairs": 0.0, "pit": 0.6, "stump_size_low": 2.0, "stump_size_high": 3.0},
}
"""The walker's second version by seed; the stumps of seeds 1 and 5 have one size."""


@FedTD3.of("LunarLander-v3")
@FedTD3.of("LunarLanderContinuous-v3")
def _lander(joint: FedTD3, agent: int) -> dict[str, float]:
    """The authors draw height and distance of the side engines, but their step never reads them: here they count."""
    generator = joint.generator(agent)
    return {
        "main_engine_power": float(np.clip(13.0 + generator.normal(0, joint.std), 8, 20)),
        "side_engine_power": float(np.clip(0.6 + generator.normal(0, joint.std), 0.3, 2)),
        "side_engine_height": 14 + float(generator.normal(0, joint.std)),
        "side_engine_away": 12 + float(generator.normal(0, joint.std)),
        **joint.noise(generator),
    }


@FedTD3.of(WALKER)
def _walker(joint: FedTD3, agent: int) -> dict[str, float]:
    """A bound of the stairs' number, then the proportions; how many stairs each staircase has, the environment draws.

    As with the authors, agents whose seed is none of the mixes' have the registered obstacles: a ``trial`` above 1
    makes some of these.
    """
    generator = joint.generator(agent)
    if joint.mixes:
        return {**WALKER_MIXES.get((agent + 1) * joint.trial, {}), **joint.noise(generator)}
    top = generator.choice(STAIR_TOPS)
    stump, stairs, pit = generator.dirichlet(np.ones(3))
    return {
        "stump": float(stump),
        "stairs": float(stairs),
        "pit": float(pit),
        "stair_steps_low": 1.0,
        "stair_steps_high": float(top),
        **joint.noise(generator),
    }
