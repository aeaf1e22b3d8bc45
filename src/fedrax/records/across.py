"""Every policy's return in every agent's environment (``across.json``), as it was last evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from fedrax.errors import FedraxError
from fedrax.records.files import read_json, write_json

NAME = "across.json"


def write_across(
    run: Path, returns: Mapping[int, Float[np.ndarray, "policies environments"]], *, episodes: int, policy: str | int
) -> None:
    """Writes mean returns by seed into the run's directory, with the episodes of each pair and which policy it was.

    Raises:
        FedraxError: the file cannot be written.
    """
    by_seed = {str(seed): each.tolist() for seed, each in returns.items()}
    write_json(run / NAME, {"episodes": episodes, "policy": policy, "returns": by_seed})


def read_across(run: Path) -> tuple[dict[int, Float[np.ndarray, "policies environments"]], int, str] | None:
    """Mean returns by seed, the episodes of each pair, and which policy it was; None where there is no such file.

    Raises:
        FedraxError: the file is damaged.
    """
    path = run / NAME
    if not path.is_file():
        return None
    record = read_json(path, "evaluation across environments")
    try:
        returns = {int(seed): np.array(each, np.float64) for seed, each in record["returns"].items()}
        if not returns or any(each.ndim != 2 for each in returns.values()):
            raise ValueError
        return returns, int(record["episodes"]), str(record["policy"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise FedraxError(f"{path} is damaged: it holds no returns by seed; delete it, or evaluate again") from None
