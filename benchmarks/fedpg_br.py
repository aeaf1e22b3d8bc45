"""Learning figures of FedPG-BR: returns at given trajectories per agent, against targets and published values.

    python benchmarks/fedpg_br.py cartpole            # every setup of an environment
    python benchmarks/fedpg_br.py halfcheetah --only fedpg-br

A run that is there already is not trained again, one that was interrupted is resumed. Results are written after each
setup, to benchmarks/results/fedpg_br_<environment>.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path

from fedrax.api import train_or_resume
from fedrax.report.curves import aggregate_at
from fedrax.report.runs import group_runs, load_run

from common import save


@dataclasses.dataclass(frozen=True)
class Study:
    """The setups of one environment."""

    seeds: int
    at: tuple[int, ...]
    """Trajectories per agent, by the reference's count, at which returns are read."""
    setups: dict[str, tuple[str, ...]]
    """Overrides by label."""
    targets: dict[str, dict[int, float]]
    """Least mean return by label and trajectories."""
    seeds_of: dict[str, int] = dataclasses.field(default_factory=dict)


def attacked(strategy: str, attack: str) -> tuple[str, ...]:
    """Three of ten agents attack."""
    return (f"strategy={strategy}", f"attack={attack}", "attack.agents=3")


PUBLISHED = "strategy.filter=fedpg-filter"
CARTPOLE_ATTACKS = ("random-noise", "random-action", "sign-flipping")
STUDIES = {
    "cartpole": Study(
        seeds=10,
        at=(500, 1000, 1500, 2000, 3000, 4000, 5000),
        setups={
            "fedpg-br": (),
            "fedpg-br ratio_band=0.005": ("strategy.ratio_band=0.005",),
            **{f"fedpg-br {a}": (*attacked("fedpg-br", a), "budget.trajectories=2000") for a in CARTPOLE_ATTACKS},
            **{f"svrpg {a}": (*attacked("svrpg", a), "budget.trajectories=2000") for a in CARTPOLE_ATTACKS},
        },
        targets={
            "fedpg-br": {1000: 465, 5000: 485},
            **{f"fedpg-br {a}": {2000: 465} for a in CARTPOLE_ATTACKS},
        },
    ),
    "lunarlander": Study(
        seeds=3,
        at=(500, 1000, 1500, 2000, 3000, 4000, 5000, 7500),
        setups={
            "fedpg-br": (PUBLISHED, "budget.trajectories=7500"),
            "fedpg-br random-noise": (*attacked("fedpg-br", "random-noise"), PUBLISHED, "budget.trajectories=7500"),
        },
        targets={"fedpg-br": {2000: 100, 7500: 170}},
    ),
    "halfcheetah": Study(
        seeds=1,
        at=(500, 1000, 1500, 2000, 3000, 4000),
        setups={
            "fedpg-br": ("budget.trajectories=4000",),
            "fedpg-br random-action": (*attacked("fedpg-br", "random-action"), "budget.trajectories=4000"),
            "svrpg random-action": (*attacked("svrpg", "random-action"), "budget.trajectories=4000"),
        },
        targets={"fedpg-br": {4000: 1700}},
    ),
}


def main() -> None:
    """Trains what is missing and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment", choices=STUDIES)
    parser.add_argument("--only", action="append", metavar="LABEL", help="train only this setup; may be repeated")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks"), help="where the runs are kept")
    parser.add_argument("--set", action="append", default=[], metavar="key=value", help="for every setup")
    options = parser.parse_args()
    study = STUDIES[options.environment]
    table = []
    for label, overrides in study.setups.items():
        path = options.runs / options.environment / label.replace(" ", "-")
        if not options.only or label in options.only:
            train_or_resume(f"fedpg-br/{options.environment}", [*overrides, *options.set], seeds=study.seeds, out=path)
        if not (path / "summary.json").exists():
            continue
        table.append({"setup": label, **measured(path, study.at, study.targets.get(label, {}))})
        print(f"{label:28}" + "  ".join(f"{x}: {v}" for x, v in table[-1]["mean_return"].items()))
        save(f"fedpg_br_{options.environment}", table)


def measured(path: Path, at: tuple[int, ...], targets: dict[int, float]) -> dict[str, object]:
    """Mean greedy return over seeds at each point with its 95 % bootstrap interval, costs, and targets reached."""
    run = load_run(path)
    (group,) = group_runs([run])
    mean, low, high = aggregate_at(group, at, statistic="mean")
    known = {x: round(float(m), 1) for x, m in zip(at, mean, strict=True) if not math.isnan(m)}
    costs = ("total_steps", "rounds", "seconds_train", "seconds_compile", "bytes_up", "bytes_down")
    return {
        "seeds": len(group.histories),
        "mean_return": known,
        "interval_95": {
            x: [round(float(a), 1), round(float(b), 1)]
            for x, a, b in zip(at, low, high, strict=True)
            if not math.isnan(a)
        },
        "targets": {x: {"least": least, "reached": known.get(x, -math.inf) >= least} for x, least in targets.items()},
        "final_return": run.summary["final_return"],
        "costs": {name: run.summary[name] for name in costs},
    }


if __name__ == "__main__":
    main()
