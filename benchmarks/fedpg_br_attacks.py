"""FedPG-BR under every attack of its paper and two stronger ones, by rule: returns, and how well attackers are found.

    python benchmarks/fedpg_br_attacks.py lunarlander                    # the whole table: days on two cores
    python benchmarks/fedpg_br_attacks.py lunarlander --rule fltrust --attack sign-flipping --seeds 1
    python benchmarks/fedpg_br_attacks.py cartpole --trajectories 2000

Three of ten agents attack. Every run, one seed by itself, is recorded in
benchmarks/results/fedpg_br_attacks_<environment>.json as soon as it ends; what is recorded there is not trained again,
and a run that was interrupted is resumed. A longer budget than a recorded run's trains it further. With --record, runs
are recorded as far as they have come, and nothing is trained.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from fedrax import Run, load, resume, train

from common import read_runs, record_runs

RULES: dict[str, tuple[str, ...]] = {
    "fedpg-br": ("aggregator=fedpg-filter",),
    "fedpg-br calibrated": ("aggregator=fedpg-filter", "aggregator.radius=calibrated"),
    "fedpg-br clipped": ("aggregator=fedpg-filter", "aggregator.clip=median"),
    "fedpg-trust": ("aggregator=fedpg-trust",),
    "fltrust": ("aggregator=fltrust",),
    "zeno": ("aggregator=zeno",),
    "svrpg": ("strategy=svrpg",),
}
"""The filter as published, with an estimated sigma, with clipped gradients, with the server's gradient; that gradient
alone; the descent on the server's trajectories; no rule."""
ATTACKS = ("none", "random-noise", "random-action", "sign-flipping", "fedscspg", "alie")
AT = (500, 1000, 1500, 2000, 3000, 4000, 5000, 6000, 7500)
WINDOW = 5
"""Evaluations whose mean is the return at a number of trajectories: those nearest to it."""
BIN = 500
"""Trajectories over which recall and precision are averaged."""
COSTS = ("total_steps", "server_trajectories", "seconds")


def main() -> None:
    """Trains what is missing and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment", choices=("cartpole", "lunarlander"))
    parser.add_argument("--rule", action="append", choices=RULES, help="only this rule; may be repeated")
    parser.add_argument("--attack", action="append", choices=ATTACKS, help="only this attack; may be repeated")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first-seed", type=int, default=0, help="the least of them")
    parser.add_argument("--trajectories", type=int, help="per agent (default: 7500 on the lander, 2000 on CartPole)")
    parser.add_argument("--record", action="store_true", help="record what there is, and train nothing")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks"), help="where the runs are kept")
    options = parser.parse_args()
    budget = options.trajectories or {"lunarlander": 7500, "cartpole": 2000}[options.environment]
    name = f"fedpg_br_attacks_{options.environment}"
    order = [label(rule, attack) for attack in ATTACKS for rule in RULES]
    # By seed first, so that an unfinished table compares its setups on the same seeds.
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for attack in options.attack or ATTACKS:
            for rule in options.rule or RULES:
                setup = label(rule, attack)
                known = read_runs(name).get(setup, {}).get(str(seed))
                if known is not None and known["trajectories"] >= budget:
                    continue
                settings = [*RULES[rule], f"budget.trajectories={budget}", f"seed={seed}"]
                if attack != "none":
                    settings += [f"attack={attack}", "attack.agents=3"]
                path = options.runs / name / setup.replace(" | ", "-").replace(" ", "-") / f"seed-{seed}"
                if options.record:
                    if not (path / "checkpoints").is_dir():
                        continue
                    run = load(path)
                elif (path / "config.toml").is_file():
                    run = resume(path, [f"budget.trajectories={budget}"], progress=False)
                else:
                    run = train(f"fedpg-br/{options.environment}", settings, out=path, progress=False)
                record_runs(name, setup, {str(seed): measured(run)}, order=order, row=summarised)
                print(setup, seed, read_runs(name)[setup][str(seed)]["return_at"], flush=True)


def label(rule: str, attack: str) -> str:
    """What a rule under an attack is called in the table."""
    return f"{rule} | {attack}"


def measured(run: Run) -> dict[str, Any]:
    """One run: returns at given trajectories per agent, recall and precision over time, and what it cost."""
    rows = run.metrics()
    trajectories = np.array([row["trajectories"] for row in rows])
    returns = np.array([row["return"] for row in rows], float)
    evaluated = np.isfinite(returns)
    at = {}
    for point in AT:
        if point <= trajectories[-1] + 50:
            nearest = np.argsort(np.abs(trajectories[evaluated] - point), kind="stable")[:WINDOW]
            at[str(point)] = round(float(returns[evaluated][nearest].mean()), 1)
    return {
        "trajectories": int(trajectories[-1]),
        "return_at": at,
        "recall": binned(trajectories, [row.get("filter_recall") for row in rows]),
        "precision": binned(trajectories, [row.get("filter_precision") for row in rows]),
        "costs": {"rounds": len(rows), **{name: round(float(rows[-1][name])) for name in COSTS}},
    }


def binned(trajectories: np.ndarray, values: list[float | None]) -> list[float | None]:
    """Means over bins of 500 trajectories; None where nothing was defined."""
    known = np.array([np.nan if value is None else value for value in values], float)
    bins = (trajectories / BIN).astype(int)
    each = [known[(bins == index) & np.isfinite(known)] for index in range(int(bins[-1]) + 1)]
    return [round(float(values.mean()), 2) if values.size else None for values in each]


def summarised(setup: str, runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One setup's row: mean, least and greatest return over seeds at each point, and mean recall over the run."""
    each = list(runs[setup].values())
    points = [point for point in map(str, AT) if all(point in run["return_at"] for run in each)]
    returns = {point: [run["return_at"][point] for run in each] for point in points}
    recalls = [value for run in each for value in run["recall"] if value is not None]
    return {
        "seeds": len(each),
        "mean_return": {point: round(float(np.mean(values)), 1) for point, values in returns.items()},
        "range": {point: [min(values), max(values)] for point, values in returns.items()},
        "recall": round(float(np.mean(recalls)), 2) if recalls else None,
    }


if __name__ == "__main__":
    main()
