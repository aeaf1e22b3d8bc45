"""Whether every setup of a sweep can run, told before the first one trains.

A process of its own makes each setup's environments and networks, as ``fedrax describe`` does: the sweep's must not
hold an accelerator that its jobs need.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from fedrax.errors import FedraxError
from fedrax.parsing import parsed_json
from fedrax.plugins import described, where_own
from fedrax.records.files import reason
from fedrax.records.rundir import RunDirectory
from fedrax.sweeps.plan import Plan
from fedrax.sweeps.processes import environment
from fedrax.wording import counted

SECONDS = 60.0
"""How long setups are checked; a mistake in those that are not reached shows when they train."""
MOST_SECONDS = 120.0
"""How long it may take altogether, with a setup that does not end."""


def checked(plan: Plan) -> Plan:
    """The plan, with a note where not every setup could be checked. That they are checked is said: it takes a while.

    Raises:
        FedraxError: a setup cannot run, in one line that names it. One with a run that was begun has shown that it can.
    """
    setups = {job.setup: job for job in reversed(plan.jobs)}
    begun = {job.setup for job in plan.jobs if RunDirectory(job.directory).is_run()}
    waiting = [setup for setup in plan.setups if setup not in begun]
    if not waiting:
        return plan
    asked = [{"name": one.name, "source": one.preset, "overrides": setups[one].overrides} for one in waiting]
    print(f"checking {counted(len(waiting), 'setup')} ...", flush=True)
    why = f"at most {SECONDS:.0f} s are spent on it"
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=json.dumps(asked).encode(),
            capture_output=True,
            env={**environment(plan.cores_per_job), "JAX_PLATFORMS": "cpu"},
            timeout=MOST_SECONDS,
            check=False,
        )
        if done.returncode:
            why = f"the process that does it ended with exit status {done.returncode}"
        said = done.stdout
    except subprocess.TimeoutExpired as late:
        said = late.stdout or b""
    except OSError as error:
        said, why = b"", reason(error)
    answer = _last(said)
    if "error" in answer:
        raise FedraxError(f"{plan.file}: {answer['error']}")
    missed = len(waiting) - answer["checked"]
    note = (
        f"{missed} of {counted(len(plan.setups), 'setup')} were not checked before training ({why}): a mistake in "
        "them shows when they train"
    )
    return dataclasses.replace(plan, notes=(*plan.notes, note)) if missed else plan


def _last(said: bytes) -> dict[str, Any]:
    """The last answer of :func:`check` that is whole; a setup may print anything."""
    for line in reversed(said.splitlines()):
        with contextlib.suppress(ValueError):
            answer = parsed_json(line)
            if isinstance(answer, dict) and answer.keys() & {"checked", "error"}:
                return answer
    return {"checked": 0}


def check(setups: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """``{"checked": HOW_MANY}`` after each of them, for :data:`SECONDS`; ``{"error": LINE}`` ends it."""
    from fedrax.describe import configuration

    begun = time.monotonic()
    for number, setup in enumerate(setups, start=1):
        if time.monotonic() - begun > SECONDS:
            return
        try:
            configuration(setup["source"], setup["overrides"])
        except FedraxError as error:
            yield {"error": f"setup {setup['name']!r}: {error}"}
            return
        except Exception as error:
            yield {"error": f"setup {setup['name']!r}: {where_own(error)}{described(error)}"}
            return
        yield {"checked": number}


if __name__ == "__main__":
    for answer in check(json.load(sys.stdin)):
        print(json.dumps(answer), flush=True)
