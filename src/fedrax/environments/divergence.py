"""How much the environments of a federation differ, in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from fedrax.errors import FedraxError


def parameter_spread(draws: Sequence[Mapping[str, float]], defaults: Mapping[str, float]) -> dict[str, float]:
    """The spread of every parameter over agents: its standard deviation divided by its default's absolute value.

    A parameter whose default is 0, or that has none, is not divided: its spread is in its own unit.

    Args:
        draws: of every agent, parameters by name; the agents are the whole population, not a sample of one.
        defaults: by name.

    Raises:
        FedraxError: no agents, or agents that do not have the same parameters.
    """
    if not draws or any(draw.keys() != draws[0].keys() for draw in draws):
        raise FedraxError("a spread needs at least one agent, and the same parameters for all of them")
    return {
        name: float(np.std([draw[name] for draw in draws])) / (abs(defaults.get(name, 0.0)) or 1.0) for name in draws[0]
    }


def environment_divergence(
    draws: Sequence[Mapping[str, float]],
    defaults: Mapping[str, float],
    mixtures: Mapping[str, Sequence[str]],
) -> dict[str, float]:
    """How much the agents' environments differ, by what differs; what is the same everywhere is left out.

    Weights of the kinds of one thing are compared as the distribution they are, by :func:`jensen_shannon`, and named
    ``thing (bits)``; every other parameter by its :func:`parameter_spread`.

    Args:
        draws: of every agent, parameters by name.
        defaults: by name.
        mixtures: parameters that are such weights, by what the thing is called.

    Raises:
        FedraxError: as :func:`parameter_spread`.
    """
    spread = parameter_spread(draws, defaults)
    for thing, kinds in mixtures.items():
        weights = np.array([[draw[kind] for kind in kinds] for draw in draws])
        # Where an agent has none of the kinds, there is no distribution to compare.
        if (weights.sum(1) > 0).all():
            spread = {name: value for name, value in spread.items() if name not in kinds}
            spread[f"{thing} (bits)"] = jensen_shannon(weights)
    # A mean of equal numbers may differ from them by rounding.
    same = {name for name, value in draws[0].items() if all(draw[name] == value for draw in draws)}
    return {name: value for name, value in spread.items() if value > 0 and name not in same}


def jensen_shannon(distributions: Float[np.ndarray, "n k"]) -> float:
    """Mean Jensen-Shannon divergence of all pairs of n distributions over k kinds, in bits (Lin, 1991).

    It is 0 where all are equal, also where there is but one, and 1 where no two have a kind in common.

    Args:
        distributions: weights of the kinds, each row in proportion to its distribution.

    Raises:
        FedraxError: no rows, negative or infinite weights, or a row without any weight.
    """
    weights = np.asarray(distributions, float)
    if weights.ndim != 2 or not len(weights) or not np.isfinite(weights).all() or (weights < 0).any():
        raise FedraxError("distributions must be a table [n, k] of finite weights of at least 0, with n at least 1")
    totals = weights.sum(1, keepdims=True)
    if (totals == 0).any():
        raise FedraxError("every distribution needs a positive weight; a row has none")
    rows = weights / totals
    first, second = np.triu_indices(len(rows), 1)
    if not len(first):
        return 0.0
    entropy = _entropy(rows)
    divergence = _entropy((rows[first] + rows[second]) / 2) - (entropy[first] + entropy[second]) / 2
    # Rounding may leave equal distributions a hair below 0.
    return float(max(divergence.mean(), 0.0))


def _entropy(rows: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " n"]:
    """In bits; a kind that never occurs adds nothing."""
    return -(rows * np.log2(np.where(rows > 0, rows, 1.0))).sum(1)
