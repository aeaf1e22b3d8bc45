"""How FedTD3's agents differ in Box2D: the published draws of WaimenMak/FRL, number for number.

Each function takes an agent (from 0), ``std`` and ``trial`` (from 1), and returns the parameters it draws, from
NumPy's legacy generator seeded with ``(agent + 1) * trial``; the others keep their defaults.
"""

from __future__ import annotations

import numpy as np

STAIR_TOPS = (2, 5, 10)
"""Of a walker's stairs there are 1 to one of these, exclusive."""

WALKER_MIXES: dict[int, dict[str, float]] = {
    1: {"stump": 0.7, "stairs": 0.3, "pit": 0.0, "stump_size_low": 1.0, "stump_size_high": 2.0},
    2: {"stump": 1.0, "stairs": 0.0, "pit": 0.0},
    3: {"stump": 0.0, "stairs": 1.0, "pit": 0.0},
    4: {"stump": 0.0, "stairs": 0.0, "pit": 1.0},
    5: {"stump": 0.4, "stairs": 0.0, "pit": 0.6, "stump_size_low": 2.0, "stump_size_high": 3.0},
}
"""The walker's second law by seed; the stumps of seeds 1 and 5 have one size."""


def draw_lander(agent: int, std: float, trial: int) -> dict[str, float]:
    """LunarLanderContinuous: each engine parameter is its default plus N(0, std**2), the powers clipped.

    The reference draws height and distance of the side engines too, but its step never reads them: they take effect
    here.
    """
    random = _generator(agent, trial)
    return {
        "main_engine_power": float(np.clip(13.0 + random.normal(0, std), 8, 20)),
        "side_engine_power": float(np.clip(0.6 + random.normal(0, std), 0.3, 2)),
        "side_engine_height": 14 + float(random.normal(0, std)),
        "side_engine_away": 12 + float(random.normal(0, std)),
    }


def draw_walker(agent: int, std: float, trial: int) -> dict[str, float]:
    """BipedalWalkerHardcore, the first law: a bound of the stairs' number, then Dirichlet(1, 1, 1) over obstacles.

    ``std`` plays no part. How many stairs there are is the environment's draw, anew for each staircase.
    """
    random = _generator(agent, trial)
    top = random.choice(STAIR_TOPS)
    stump, stairs, pit = random.dirichlet(np.ones(3))
    return {
        "stump": float(stump),
        "stairs": float(stairs),
        "pit": float(pit),
        "stair_steps_low": 1.0,
        "stair_steps_high": float(top),
    }


def draw_walker_mixes(agent: int, std: float, trial: int) -> dict[str, float]:
    """BipedalWalkerHardcore, the second law: five fixed mixes for seeds 1 to 5, and the default for all others.

    ``std`` plays no part. As in the reference, a ``trial`` above 1 leaves some agents the default.
    """
    return dict(WALKER_MIXES.get((agent + 1) * trial, {}))


def _generator(agent: int, trial: int) -> np.random.RandomState:
    return np.random.RandomState((agent + 1) * trial)
