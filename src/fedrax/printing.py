"""What the command line prints of runs and evaluations, line by line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fedrax.environments.success import LAST, SHARE, SUCCESS
from fedrax.evaluation.pairs import Evaluation
from fedrax.evaluation.statistics import wilson
from fedrax.records.audits import Record, findings, refusals, setups_table
from fedrax.run import Run

WHERE = {
    "all": "every agent's environment",
    "own": "each agent's own environment",
    "registered": "the registered environment",
}
"""What a summary says of ``evaluation.environments``."""
SUMMARY = (
    "final_return",
    "final_return_worst",
    "best_return",
    "final_success",
    "final_success_last",
    "rounds",
    "trajectories",
    "total_steps",
    "bytes_up",
    "bytes_down",
    "bytes_mesh",
    "seconds_compile",
    "seconds_train",
)
"""What is shown of a summary, in this order."""


def summary_lines(run: Run) -> Iterator[str]:
    """A finished run's totals; where it has several seeds, one value of each."""
    summary = run.summary()
    seeds = summary["seeds"]
    if len(seeds) > 1:
        yield f"{'seeds':18} {', '.join(map(str, seeds))}; where a line has several values, one of each seed"
    episodes = f"evaluation.episodes = {run.config.evaluation.episodes}"
    for name in SUMMARY:
        if name in summary:
            values = _shares(summary[name]) if name.startswith("final_success") else _values(summary[name])
            yield f"{name:18} {values}{_explained(name, summary, episodes)}"
    yield f"{'evaluated in':18} {WHERE[run.config.evaluation.environments or 'registered']}"
    if np.any(summary.get("dropped_collections", 0)):
        dropped = _values(summary["dropped_collections"])
        yield f"{'rounds dropped':18} {dropped} of agents, or the server: numbers were not finite, or overflowed"
    if "missed_rounds" in summary:
        missed = [f"agent {agent}: {count}" for agent, count in summary["missed_rounds"].items() if count]
        yield f"{'rounds missed':18} {', '.join(missed) or 'none'}"
    if "privacy" in summary:
        yield f"{'privacy':18} {summary['privacy']['text']}"
    yield f"{'run':18} {run.path}"


def evaluation_lines(
    seed: int, result: Evaluation, *, personal: bool, asked: int, tasks: Sequence[str] = ()
) -> Iterator[str]:
    """One seed's evaluation.

    Args:
        seed: whose.
        result: what came of it.
        personal: whether every agent has a policy of its own.
        asked: how many episodes of each policy were to be; environments that share them have equally many each.
        tasks: that agents have in turn, where they have several.
    """
    returns, lengths = result.returns, result.lengths
    yield (
        f"seed {seed}: return {returns.mean():.2f} (deviation {returns.std():.2f}, min {returns.min():.2f}, "
        f"max {returns.max():.2f}), length {lengths.mean():.1f} steps, {returns.size} episodes"
    )
    policies = len(returns) if personal else 1
    if returns.size != asked * policies:
        environments, each = returns.size // (policies * returns.shape[-1]), returns.shape[-1]
        whose = "each policy" if personal else "the policy"
        yield (
            f"  {each * environments} episodes of {whose} where {asked} were asked for: as many in each of "
            f"{environments} environments, {each}"
        )
    means = result.agents
    if means is not None and tasks:
        yield f"  agents have the tasks in turn: {', '.join(tasks)}"
    if result.success is not None:
        yield f"  success in any step {_share(result.table[SUCCESS])}, in the last {_share(result.table[LAST])}"
        yield f"  at the goal in {_share(result.table[SHARE])} of the steps"
        if result.success.ndim > 1:
            for said, measure in (
                ("success in any step", SUCCESS),
                ("success in the last step", LAST),
                ("share of steps at the goal", SHARE),
            ):
                each = ", ".join(_share(agent) for agent in result.table[measure].reshape(len(result.success), -1))
                yield f"  {said}, {_whose(personal=personal)}: {each}"
    if means is not None:
        each = ", ".join(f"{mean:.2f}" for mean in means)
        yield f"  {_whose(personal=personal)}: {each}; worst {means.min():.2f}, deviation of agents {means.std():.2f}"
    if result.own is not None:
        yield f"  each in its agent's environment: {', '.join(f'{mean:.2f}' for mean in result.own.mean(1))}"


def best_line(run: Run, evaluation_seed: int | None) -> str:
    """How a run's best policy was chosen, and what follows for these episodes; empty where the run is not finished."""
    if not run.directory.summary.is_file():
        return ""
    best, evaluation = _values(run.summary()["best_return"]), run.config.evaluation
    told = f"best_return was {best} over the {evaluation.episodes} episodes that this policy was chosen by"
    if evaluation_seed in (None, evaluation.seed):
        return (
            f"{told}, and these begin in the same initial states: such a maximum is biased upwards, and "
            f"--evaluation-seed {evaluation.seed + 1} gives others"
        )
    return f"{told}; such a maximum is biased upwards, and these episodes begin in other initial states"


def across_lines(seed: int, result: Evaluation, *, episodes: int, unseen: bool) -> Iterator[str]:
    """One seed's returns as a table, a row for each policy and a column for each environment."""
    kind = "unseen environment" if unseen else "environment"
    yield f"seed {seed}: mean return over {episodes} episodes of each pair, policy by {kind}"
    means = result.returns.mean(-1)
    yield "policy  " + " ".join(f"{column:>8}" for column in range(means.shape[1])) + "     mean"
    for policy, row in enumerate(means):
        yield f"{policy:<6}  " + " ".join(f"{value:8.2f}" for value in row) + f" {row.mean():8.2f}"


def audit_lines(record: Record) -> Iterator[str]:
    """What was found of the run as it is, attack by attack, and every setup's headlines where there are several."""
    run, *others = record["setups"]
    yield f"{'guarantee':12} {run['guarantee'] or 'none (privacy.unit is not set)'}"
    for id, question, said in findings(record, run):
        yield f"{id}  {question}"
        yield f"    {said}"
    if not others:
        return
    headings, lines = setups_table(record)
    widths = [max(len(row[column]) for row in (headings, *lines)) for column in range(len(headings))]
    for row in (headings, *lines):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    for name, why in refusals(record):
        yield f"{name}: refused: {why}"


def _explained(name: str, summary: Mapping[str, Any], episodes: str) -> str:
    """What a number of a summary counts, where its name does not say that; ``episodes`` says how large an
    evaluation is."""
    if name == "final_return":
        return f" mean over {episodes}"
    if name == "final_success":
        return f" of episodes reached the goal in any step, {episodes}"
    if name == "final_success_last":
        return f" of episodes were at the goal in the last step, {episodes}"
    if name == "best_return":
        return f" of the run's evaluations, {episodes} each"
    if name == "trajectories":
        return f" per agent (reference count); sampled by all: {_values(summary['total_trajectories'])}"
    if name.startswith("bytes_"):
        pairs = zip(_list(summary[name]), _list(summary["rounds"]), strict=True)
        a_round = [round(total / max(rounds, 1)) for total, rounds in pairs]
        sent = ", if agents sent to one another" if name == "bytes_mesh" else ""
        return f" per agent{sent}; a round, on average: {_values(a_round)}"
    return ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _whose(*, personal: bool) -> str:
    return "each agent's policy" if personal else "in each agent's environment"


def _share(reached: np.ndarray) -> str:
    """The share of episodes that reached the goal, or of their steps, with its 95 % interval.

    Of steps, too, an episode counts as one trial: no share of steps varies more between episodes than success does.
    """
    low, high = wilson(float(reached.sum()), reached.size)
    return f"{100 * reached.mean():.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _values(value: Any) -> str:
    return ", ".join("-" if v is None else f"{v:,.1f}" if isinstance(v, float) else f"{v:,}" for v in _known(value))


def _shares(value: Any) -> str:
    """Shares in percent, with the digits that :func:`_share` has."""
    return ", ".join("-" if v is None else f"{100 * v:.1f} %" for v in _known(value))


def _known(value: Any) -> list[Any]:
    """None for NaN, which was not measured."""
    return [None if v != v else v for v in _list(value)]
