"""Environments of a user's own: a valve with actions in [0, 100], and a mass that differs between agents.

    python benchmarks/own_environments.py valve        # PPO and TD3, five seeds, 60 rounds of federated averaging
    python benchmarks/own_environments.py point-mass   # examples/point-mass/compare.toml: three strategies, three seeds

A learner that acted in [-1, 1] would have -15.8 at the valve; 0 is best. Four agents have masses of 0.5 to 4, and
every policy is evaluated in every agent's environment.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fedrax import load, train
from fedrax.api import sweep
from fedrax.report.tables import Estimate

from common import save

HERE = Path(__file__).parent
VALVE = {"plugins": [str(HERE / "own" / "valve.py")], "environment": {"id": "Valve-v0"}, "strategy": {"kind": "fedavg"}}
SWEEP = """
preset = "{experiment}"
seeds = 3
out = "{out}"

[setups]
fedavg = {{strategy.kind = "fedavg"}}
local = {{strategy.kind = "local"}}
central = {{strategy.kind = "central"}}
"""


def main() -> None:
    """One of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment", choices=("valve", "point-mass"))
    results = {"valve": valve, "point-mass": point_mass}
    environment = parser.parse_args().environment
    with tempfile.TemporaryDirectory() as folder:
        save(f"own_environments_{environment}", results[environment](Path(folder)))


def valve(folder: Path) -> dict[str, Any]:
    """Final returns of each learner's seeds."""
    found = {}
    for learner in ("ppo", "td3"):
        run = train(VALVE, [f"learner={learner}", "budget.rounds=60", "seeds=5"], out=folder / learner, progress=False)
        returns = run.summary()["final_return"]
        found[learner] = {"final_return": [round(value, 2) for value in returns], "mean": estimated(returns)}
        print(learner, found[learner], flush=True)
    return found


def point_mass(folder: Path) -> dict[str, Any]:
    """Each strategy's final return, and of each agent the return and the share of episodes that reach the middle."""
    file = folder / "compare.toml"
    experiment = HERE.parent / "examples" / "point-mass" / "experiment.toml"
    file.write_text(SWEEP.format(experiment=experiment, out=folder / "runs"))
    sweep(file)
    found = {}
    for strategy in ("fedavg", "local", "central"):
        runs = [load(path.parent) for path in sorted((folder / "runs" / strategy).rglob("summary.json"))]
        last = [row for run in runs for row in ends(run.metrics())]
        found[strategy] = {
            "final_return": estimated([row["return"] for row in last]),
            "worst_agent": estimated([row["return_worst"] for row in last]),
            "agent_returns": np.round(np.mean([row["agent_returns"] for row in last], 0), 1).tolist(),
            "agent_success": np.round(np.mean([row["agent_success"] for row in last], 0), 2).tolist(),
            "seeds": len(last),
        }
        print(strategy, found[strategy], flush=True)
    return found


def ends(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every seed's last evaluation."""
    last = {row.get("seed"): row for row in rows if row.get("return") is not None}
    return list(last.values())


def estimated(values: list[float]) -> str:
    """The mean with its interval over seeds."""
    return str(Estimate.of(np.array(values), "mean"))


if __name__ == "__main__":
    main()
