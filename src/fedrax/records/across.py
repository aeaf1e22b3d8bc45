"""Every policy's return in every agent's environment (``across.json``), as it was last evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from fedrax.errors import FedraxError
from fedrax.records.checkpoint import latest_round
from fedrax.records.files import read_json, write_json
from fedrax.records.rows import read_by_seed
from fedrax.records.rundir import RunDirectory

NAME = "across.json"


class Across(NamedTuple):
    """Every policy in every environment, as a run was when it was evaluated."""

    returns: dict[int, Float[np.ndarray, "policies environments"]]
    """Means by seed."""
    episodes: int
    """Of each pair."""
    policy: str
    """Which one of the run's."""
    rounds: int | None
    """After which it was the run's; None where that is not recorded."""


def rounds_done(directory: RunDirectory) -> int:
    """Rounds after which a run's last policy is what it is: those of its last checkpoint, as far as there are rows.

    Raises:
        FedraxError: the run's records are damaged.
    """
    recorded = [rows[-1]["round"] + 1 for rows in read_by_seed(directory.metrics_jsonl).values()]
    kept = latest_round(directory.checkpoints)
    return max(recorded, default=0) if kept is None else min(max(recorded, default=kept), kept)


def write_across(
    run: Path,
    returns: Mapping[int, Float[np.ndarray, "policies environments"]],
    *,
    episodes: int,
    policy: str | int,
    rounds: int,
) -> None:
    """Writes mean returns by seed into the run's directory, with what else :class:`Across` holds.

    Raises:
        FedraxError: the file cannot be written.
    """
    by_seed = {str(seed): each.tolist() for seed, each in returns.items()}
    write_json(run / NAME, {"episodes": episodes, "policy": policy, "rounds": rounds, "returns": by_seed})


def read_across(run: Path) -> Across | None:
    """What was written last; None where there is no such file.

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
        rounds = record.get("rounds")
        return Across(returns, int(record["episodes"]), str(record["policy"]), None if rounds is None else int(rounds))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise FedraxError(f"{path} is damaged: it holds no returns by seed; delete it, or evaluate again") from None
