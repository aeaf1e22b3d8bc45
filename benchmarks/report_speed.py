"""Speed and size of a report: twelve runs of ten seeds each, as one command writes it, start of Python included.

    python benchmarks/report_speed.py

The runs are written, not trained: learning curves with noise, of 100 to 2,000 evaluations a seed. The figures to hold:
under 10 seconds, and under 1.5 MB.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from common import save

RUNS, SEEDS = 12, 10
EVALUATIONS = (100, 500, 2000)
CONFIG = """\
name = "speed"
seed = 0
seeds = {seeds}
[environment]
id = "CartPole-v1"
[federation]
agents = 10
[strategy]
kind = "fedpg-br"
[aggregator]
kind = "fedpg-filter"
radius = {number}.0
[attack]
kind = "none"
agents = 0
"""


def write_run(path: Path, number: int, evaluations: int) -> None:
    """One run: returns that rise at its own rate, and every cost that the charts can be drawn over."""
    path.mkdir(parents=True)
    (path / "config.toml").write_text(CONFIG.format(seeds=SEEDS, number=number), encoding="utf-8")
    generator = np.random.default_rng(number)
    steps = np.zeros(SEEDS)
    lines = []
    for round_ in range(evaluations):
        steps += generator.integers(1000, 5000, SEEDS)
        level = 500 * (1 - math.exp(-(round_ + 1) * (number + 1) / (4 * evaluations)))
        for seed in range(SEEDS):
            row = {
                "seed": seed,
                "round": round_,
                "return": level + float(generator.normal(0, 20)),
                "trajectories": 16 * (round_ + 1) + int(generator.integers(0, 3)),
                "agent_steps": int(steps[seed]),
                "total_steps": int(1.1 * steps[seed]),
                "bytes_up": 1500 * (round_ + 1),
                "bytes_down": 1500 * (round_ + 1),
                "seconds": 0.01 * (round_ + 1) + float(generator.uniform(0, 0.005)),
            }
            lines.append(json.dumps(row) + "\n")
    (path / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
    (path / "summary.json").write_text(json.dumps({"seeds": list(range(SEEDS))}), encoding="utf-8")
    (path / "manifest.json").write_text("{}", encoding="utf-8")


def measure(evaluations: int) -> dict[str, float]:
    """Seconds of the command by the clock and of processors, and the page's size."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(RUNS):
            write_run(Path(folder) / "runs" / f"run-{number}", number, evaluations)
        page = Path(folder) / "report.html"
        command = [sys.executable, "-m", "fedrax.cli", "report", f"{folder}/runs", "--out", str(page)]
        before, started = _processor_seconds(), time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return {
            "evaluations": evaluations,
            "seconds": round(time.perf_counter() - started, 2),
            "processor_seconds": round(_processor_seconds() - before, 2),
            "megabytes": round(page.stat().st_size / 1e6, 3),
        }


def _processor_seconds() -> float:
    """Of this process's ended children: what a command takes where others use the machine too."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, nargs="+", default=list(EVALUATIONS), help="of each seed")
    results = []
    for evaluations in parser.parse_args().evaluations:
        results.append(measure(evaluations))
        print(results[-1], flush=True)
    note = "seconds are by the clock, beside whatever else ran; processor_seconds are the command's own, start included"
    save("report_speed", {"runs": RUNS, "seeds": SEEDS, "reports": results}, note)


if __name__ == "__main__":
    main()
