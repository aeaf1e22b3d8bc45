"""FedFormer beside averaging, learning alone and learning from all data, on equal terms.

    python benchmarks/fedformer.py point-reach --agents 5 10 15 --seeds 10
    python benchmarks/fedformer.py laptop --task reach window-close drawer-close --seeds 3

The presets ``fedformer/point-reach`` and ``fedformer/laptop``. Every agent trains on five goals of its own, and every
policy is tested, greedily, at the five goals held out for each of the agents; each seed has goals of its own. All
setups have the same goals, steps and updates of an agent; the central learner has the steps of all agents, as many
updates as all of them, begun as late, and a replay as large as theirs together. Two setups learn alone and from all
data with FedFormer's critic, which is larger. Returns and successes are of the last evaluation; the worst agent's
return is the lowest in an agent's own environment; intervals are of a bootstrap over seeds. What is recorded in
benchmarks/results/fedformer_<preset>.json is not trained again, and a run that was interrupted is resumed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from fedrax.api import train_or_resume
from fedrax.config import resolve
from fedrax.evaluation.statistics import mean, stratified_bootstrap

from common import read_runs, record_runs

MLP = "critic=mlp"
CRITICS, ACTORS = '"features", "head"', '"actor"'
BOTH, TARGETS = f"strategy.average=[{CRITICS}, {ACTORS}]", "strategy.average_targets=true"
NOISE = ["attack=random-noise", "attack.agents=1"]
SETUPS = {
    "fedformer": [],
    "fedformer, no exchange": ["strategy.exchange=none"],
    "fedformer, own copies": ["strategy.exchange=self"],
    "local": ["strategy=local", MLP],
    "local, FedFormer's critic": ["strategy=local", "critic=fedformer"],
    "fedavg, critics": ["strategy=fedavg", MLP, f"strategy.average=[{CRITICS}]", TARGETS],
    "fedavg, actors": ["strategy=fedavg", MLP, f"strategy.average=[{ACTORS}]"],
    "fedavg, both": ["strategy=fedavg", MLP, BOTH, TARGETS],
    "fedavg, both, weighted by return": ["strategy=fedavg", MLP, BOTH, TARGETS, "strategy.return_temperature=1"],
    "fedper, critics' features": ["strategy=fedper", MLP, 'strategy.average=["features"]', TARGETS],
    "similarity": ["strategy=similarity", MLP, TARGETS],
    "fedformer, one of them noise": NOISE,
    "fedformer, one of them noise, filtered": [*NOISE, "aggregator=multi-krum"],
    "fedformer, one of them noise, clipped": [*NOISE, "strategy.clip=2"],
    "central": ["strategy=central", MLP],
    "central, FedFormer's critic": ["strategy=central", "critic=fedformer"],
}


def main() -> None:
    """One preset's setups, or some."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=("point-reach", "laptop"))
    parser.add_argument("--agents", type=int, nargs="*", default=[5])
    parser.add_argument("--task", nargs="*", default=None, help="of Meta-World, for the preset laptop; default: reach")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=SETUPS, default=list(SETUPS))
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings that differ")
    parser.add_argument("--runs", type=Path, default=Path("runs") / "benchmarks")
    options = parser.parse_args()
    if options.preset == "point-reach" and options.task:
        parser.error("--task is of the preset laptop")
    name = f"fedformer_{options.preset}"
    for task in options.task or (["reach"] if options.preset == "laptop" else [None]):
        for agents in options.agents:
            for setup in options.only:
                compared(name, options, setup, task, agents)


def compared(name: str, options: argparse.Namespace, setup: str, task: str | None, agents: int) -> None:
    """Trains and records what of one setup is missing: all seeds in one run."""
    label = ", ".join([*([task] if task else []), f"{agents} agents", *options.set, setup])
    if len(read_runs(name).get(label, {})) >= options.seeds:
        return
    settings = [
        *SETUPS[setup],
        *([f"environment.task={task}"] if task else []),
        *(f"federation.agents={agents}", f"evaluation.episodes={5 * agents}", f"environment.draws={options.seeds}"),
        *options.set,
    ]
    if setup.startswith("central"):
        # It steps a copy at every agent's; a step of all of them makes as many updates as agents make.
        own = resolve(f"fedformer/{options.preset}", options.set).learner
        pooled = {name: agents * own[name] for name in ("buffer_size", "learning_starts")}
        settings += [f"learner.updates_per_step={agents}", *(f"learner.{name}={each}" for name, each in pooled.items())]
    path = options.runs / name / label.replace(", ", "-").replace(" ", "_").replace("'", "")
    run = train_or_resume(f"fedformer/{options.preset}", settings, seeds=options.seeds, out=path, progress=False)
    rows = [row for row in run.metrics() if row.get("return") is not None]
    runs = {str(seed): measured([row for row in rows if row["seed"] == seed], agents) for seed in run.config.all_seeds}
    order = [*dict.fromkeys([*read_runs(name), label])]
    record_runs(name, label, runs, order=order, row=summarised)
    print(label, summarised(label, read_runs(name)), flush=True)


def measured(rows: list[dict[str, Any]], agents: int) -> dict[str, Any]:
    """One seed's curve."""
    last = rows[-1]
    return {
        "steps": [row["total_steps"] // agents for row in rows],
        "return": [round(row["return"], 2) for row in rows],
        "success": [round(row["success"], 3) for row in rows],
        "success_last": [round(row["success_last"], 3) for row in rows],
        # Of personal policies as of a shared one: agents in their own environments.
        "worst_return": round(min(last.get("agent_own_returns") or last["agent_returns"]), 2),
        "megabytes_up": round(last["bytes_up"] / 1e6, 2),
        "megabytes_down": round(last["bytes_down"] / 1e6, 2),
        "seconds": round(last["seconds"]),
    }


def summarised(label: str, runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Last returns and successes with 95 % intervals of a bootstrap over seeds."""
    each = list(runs[label].values())
    row: dict[str, Any] = {"seeds": len(each), "steps": each[0]["steps"][-1]}
    for name in ("return", "success", "success_last"):
        values = np.array([[run[name][-1]] for run in each])
        low, high = stratified_bootstrap(values, mean)
        row[name] = [round(float(x), 3) for x in (values.mean(), low, high)]
    row["worst_return"] = round(float(np.mean([run["worst_return"] for run in each])), 2)
    return row | {key: each[0][key] for key in ("megabytes_up", "megabytes_down")}


if __name__ == "__main__":
    main()
