"""Whether every setup of a sweep can run, told before the first one trains.

A process of its own makes each setup's environments and networks, as ``fedrax describe`` does: the sweep's must not
hold an accelerator that its jobs need.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from typing import Any

from fedrax.errors import FedraxError
from fedrax.parsing import parsed_json
from fedrax.plugins import described, where_own
from fedrax.records.rundir import RunDirectory
from fedrax.sweeps.plan import Plan
from fedrax.sweeps.processes import environment

SECONDS = 60.0
"""How long setups are checked; those that are not reached are checked when they start."""
MOST_SECONDS = 120.0
"""How long it may take altogether, with a setup that does not end."""


def checked(plan: Plan) -> Plan:
    """The plan, with a note where not every setup could be checked.

    Raises:
        FedraxError: a setup cannot run, in one line that names it. One with a run that was begun has shown that it can.
    """
    setups = {job.setup: job for job in reversed(plan.jobs)}
    begun = {job.setup for job in plan.jobs if RunDirectory(job.directory).is_run()}
    waiting = [setup for setup in plan.setups if setup not in begun]
    if not waiting:
        return plan
    asked = [{"name": one.name, "source": one.preset, "overrides": setups[one].overrides} for one in waiting]
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=json.dumps(asked).encode(),
            capture_output=True,
            env={**environment(plan.cores_per_job), "JAX_PLATFORMS": "cpu"},
            timeout=MOST_SECONDS,
            check=False,
        )
        answer = parsed_json(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        answer = {"checked": 0}
    if "error" in answer:
        raise FedraxError(f"{plan.file}: {answer['error']}")
    missed = len(waiting) - answer["checked"]
    note = f"{missed} of {len(plan.setups)} setups were not tried before the first trains: that would take too long"
    return dataclasses.replace(plan, notes=(*plan.notes, note)) if missed else plan


def check(setups: list[dict[str, Any]]) -> dict[str, Any]:
    """``{"checked": HOW_MANY}`` after all of them or :data:`SECONDS`, or ``{"error": LINE}``."""
    from fedrax.describe import configuration

    begun = time.monotonic()
    for number, setup in enumerate(setups):
        if time.monotonic() - begun > SECONDS:
            return {"checked": number}
        try:
            configuration(setup["source"], setup["overrides"])
        except FedraxError as error:
            return {"error": f"setup {setup['name']!r}: {error}"}
        except Exception as error:
            return {"error": f"setup {setup['name']!r}: {where_own(error)}{described(error)}"}
    return {"checked": len(setups)}


if __name__ == "__main__":
    print(json.dumps(check(json.load(sys.stdin))))
