"""How many agents take part in a round in which each does by a chance of its own.

Arrays have fixed sizes, so such a round is computed for a fixed number of agents, of whom some only fill a place; and a
rule's bound must hold for the fewest that a round may have. Both leave out what happens less than once in 10^12 rounds.
"""

from __future__ import annotations

from scipy.special import bdtr, bdtrc

RARE = 1e-12
"""A probability that is neglected."""


def most_participants(agents: int, chance: float) -> int:
    """The smallest m with P(Binomial(agents, chance) > m) < 10^-12; at least 1 and at most ``agents``."""
    low, high = 0, agents
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if bdtrc(middle, agents, chance) < RARE else (middle, high)
    return high


def fewest_participants(agents: int, chance: float) -> int:
    """The largest m with P(Binomial(agents, chance) < m) < 10^-12; 0 where nobody may take part."""
    low, high = 0, agents + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if bdtr(middle - 1, agents, chance) < RARE else (low, middle)
    return low
