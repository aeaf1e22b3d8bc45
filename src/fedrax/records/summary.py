"""The totals of a finished run, in one small file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedrax.errors import FedraxError
from fedrax.records.files import read_json, write_json
from fedrax.records.rows import LARGEST_BITS, Row, last_rows
from fedrax.records.rundir import RunDirectory

KEYS = (
    "final_return",
    "best_return",
    "rounds",
    "dropped_collections",
    "trajectories",
    "agent_trajectories",
    "server_trajectories",
    "total_trajectories",
    "agent_steps",
    "server_steps",
    "total_steps",
    "gradient_steps",
    "bytes_up",
    "bytes_down",
    "seconds_compile",
    "seconds_train",
    "seeds",
)
"""What every summary holds: undiscounted returns, ``agent_`` counts summed over agents, bytes per agent.

``dropped_collections`` counts rounds of agents (and of a server that samples) that were void, because numbers of an
environment were not finite or what was learned overflowed."""
MOST_ROUNDS = 10**7
"""A summary that tells of more is damaged."""
MEASURED = ("final_return_worst", "final_success", "final_success_last")
"""The further numbers of a summary: those of evaluations that measure them."""


def write_summary(rundir: RunDirectory, summary: Mapping[str, Any]) -> None:
    """Writes ``summary.json``: scalars with one seed, lists in the order of ``seeds`` with several.

    NaN stands for what was not measured: a run without evaluation has no return. Further keys are kept, such as
    ``by_seed``: the returns of each of several seeds, by seed.

    Raises:
        FedraxError: a key of :data:`KEYS` is missing, or the file cannot be written.
    """
    missing = [key for key in KEYS if key not in summary]
    if missing:
        raise FedraxError(f"the summary of {rundir.path} lacks {', '.join(missing)}; give every one of its keys")
    write_json(rundir.summary, summary)


def read_summary(rundir: RunDirectory) -> dict[str, Any]:
    """The summary of a finished run.

    Raises:
        FedraxError: the run is not finished, or the file is damaged.
    """
    if rundir.is_run() and not rundir.summary.exists():
        raise FedraxError(f"the run {rundir.path} has no summary, so it is not finished; resume it")
    summary = read_json(rundir.summary, "summary")
    seeds = summary.get("seeds")
    if not (
        isinstance(seeds, list)
        and seeds
        and all(type(seed) is int for seed in seeds)
        and all(key in summary and _fits(summary[key], len(seeds)) for key in KEYS)
    ):
        raise FedraxError(
            f"the summary {rundir.summary} is damaged: it lacks what every summary holds; delete it and resume the run"
        )
    return summary


def final_returns(summary: Mapping[str, Any]) -> dict[int, float]:
    """By seed, the return that a run ended with, which is that of no row where the last round was not evaluated.

    NaN where nothing was measured; nothing where the summary does not say.
    """
    return {seed: float(final) for seed, final in _by_seed(summary, "final_return").items()}


def rounds_done(summary: Mapping[str, Any]) -> dict[int, int]:
    """By seed, how many rounds a finished run had; nothing where the summary does not say."""
    known = _by_seed(summary, "rounds").items()
    return {seed: done for seed, done in known if isinstance(done, int) and done <= MOST_ROUNDS}


def _by_seed(summary: Mapping[str, Any], key: str) -> dict[int, float]:
    """The numbers under a key, by seed."""
    seeds, values = summary.get("seeds"), summary.get(key)
    if not isinstance(seeds, list):
        return {}
    each = values if isinstance(values, list) else [values] * len(seeds)
    return {
        seed: value
        for seed, value in zip(seeds, each, strict=False)
        if isinstance(seed, int) and isinstance(value, (int, float))
    }


def evaluation_at_the_end(summary: Mapping[str, Any], seed: int) -> Row:
    """What the evaluation after a seed's last round measured, as in a row; empty where the summary does not say."""
    evaluations = summary.get("final_evaluation")
    whole = evaluations.get(str(seed)) if isinstance(evaluations, Mapping) else None
    if isinstance(whole, Mapping) and whole:
        return dict(whole)
    final = final_returns(summary).get(seed)
    return {} if final is None else {"return": final}


def with_evaluation_at_the_end(rows: Sequence[Row], summary: Mapping[str, Any]) -> list[Row]:
    """The rows of all seeds, and in each seed's last one the evaluation at the end, where an earlier version that did
    not write it there ended the run."""
    whole, rounds = list(rows), _by_seed(summary, "rounds")
    for seed, place in last_rows(rows).items():
        # Of files that lost their end, the last row is of an earlier round.
        done = rows[place]["round"] + 1
        if rows[place].get("return") is None and rounds.get(seed, done) == done:
            whole[place] = {**rows[place], **evaluation_at_the_end(summary, seed)}
    return whole


def _fits(value: Any, seeds: int) -> bool:
    """Whether it is a number, or one of each seed."""
    if isinstance(value, list):
        return len(value) == seeds and all(_fits(item, 1) for item in value if not isinstance(item, list))
    return isinstance(value, float) or (isinstance(value, int) and value.bit_length() <= LARGEST_BITS)
