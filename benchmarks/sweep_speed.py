"""How long a robustness table takes: eleven setups of ``fedpg-br/cartpole``, by rules, attacks and their strengths.

    python benchmarks/sweep_speed.py              # with an empty cache of compiled programs, one job per core
    python benchmarks/sweep_speed.py --apart      # a process for every run, as before they could share one

Seconds from the command to its end, with the programs compiled and loaded, on an idle machine, and those that the
processor worked, which are the same on a busy one. Every run has the preset's budget.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import fedrax
from fedrax.sweeps.attempts import command_of
from fedrax.sweeps.plan import read_plan
from fedrax.sweeps.runner import run_plan

from common import RESULTS, save

SWEEP = """
preset = "fedpg-br/cartpole"
out = {out}

[setups.honest]
{setups}
"""
TABLE = [
    *(("fedpg-filter", "sign-flipping", "scale", scale) for scale in (1.0, 2.5, 5.0, 10.0)),
    *(("fedpg-filter", "random-noise", "scale", scale) for scale in (1.0, 3.0, 9.0)),
    *(("mean", "sign-flipping", "scale", scale) for scale in (1.0, 2.5, 5.0)),
]
"""Rule, attack of three of ten agents, and its strength."""
COMPILED = re.compile(r"Compiling jit\((init|rounds)\)")


def setup(rule: str, attack: str, option: str, strength: float) -> str:
    """One table of the sweep's file."""
    name = f"{rule}-{attack}-{strength:g}"
    table = {"aggregator.kind": rule, "attack.kind": attack, "attack.agents": 3, f"attack.{option}": strength}
    return "\n".join([f'[setups."{name}"]', *(f"{key} = {json.dumps(value)}" for key, value in table.items())])


def measure(folder: Path, *, apart: bool) -> dict[str, Any]:
    """One sweep from nothing."""
    file = folder / "sweep.toml"
    file.write_text(SWEEP.format(out=json.dumps(str(folder / "out")), setups="\n".join(setup(*row) for row in TABLE)))
    os.environ |= {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache"), "JAX_LOG_COMPILES": "1"}
    began = time.perf_counter()
    if apart:
        outcome = run_plan(read_plan(file), command=command_of)
        assert outcome.status == 0
    else:
        subprocess.run([sys.executable, "-m", "fedrax.cli", "sweep", str(file)], check=True)
    seconds = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    plan = read_plan(file)
    summaries = [fedrax.load(job.directory).summary() for job in plan.jobs]
    logs = [job.log.read_text() for job in plan.jobs]
    return {
        "runs": len(summaries),
        "jobs": plan.at_once,
        "seconds": seconds,
        "processor_seconds": used.ru_utime + used.ru_stime,
        "seconds_training": sum(one["seconds_train"] for one in summaries),
        "seconds_compiling": sum(one["seconds_compile"] for one in summaries),
        "programs_traced": sum(len(COMPILED.findall(log)) for log in logs),
        "programs_compiled": len(list((folder / "cache").glob("jit_*-cache"))),
        "final_return": {job.setup.name: one["final_return"] for job, one in zip(plan.jobs, summaries, strict=True)},
    }


def main() -> None:
    """Measures one way, and keeps what is known of the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--apart", action="store_true", help="a process for every run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), apart=options.apart)
    path = RESULTS / "sweep_speed.json"
    results = json.loads(path.read_text())["results"] if path.exists() else {}
    save("sweep_speed", results | {"apart" if options.apart else "shared": measured})
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
