"""How many rounds a minute a federation of three does when one node answers every order with 400 MB.

    python benchmarks/federation_flood.py

Three nodes and a server on this machine, with TLS and keys, on the fast path; in turn three honest nodes, and two
beside one that floods. Rounds are counted for a while from the end of the second. The flood's own work, making and
sending 400 MB, is done on the same machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from common import save

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "flower"))

from harness import Federation

NODES = 3
FIRST = 2
"""Rounds that are not counted."""
TARGET = 0.5
"""Of the undisturbed rate."""


def main() -> None:
    """Measures both in turn and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0, help="that rounds are counted for")
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    runs = {"undisturbed": [], "flooded": []}
    for _ in range(options.repeats):
        for name, rows in runs.items():
            rows.append(measured(options.seconds, flooded=name == "flooded"))
    rates = {name: statistics.mean(row["rounds_per_minute"] for row in rows) for name, rows in runs.items()}
    share = rates["flooded"] / rates["undisturbed"]
    result = {**runs, "share": round(share, 3), "target": TARGET, "reached": share >= TARGET}
    print(result)
    save("federation_flood", result)


def measured(seconds: float, *, flooded: bool) -> dict[str, Any]:
    """Rounds per minute of one federation, and what became of the last node's answers."""
    with tempfile.TemporaryDirectory() as folder, Federation(Path(folder), "budget.rounds=100000", nodes=NODES) as it:
        it.start_server()
        for node in range(NODES - 1):
            it.start_node(node)
        if flooded:
            it.start_liar(NODES - 1, "flood")
        else:
            it.start_node(NODES - 1)
        it.until_round(FIRST, 600.0)
        begun, at = time.monotonic(), it.rounds()
        time.sleep(seconds)
        rate = 60 * (it.rounds() - at) / (time.monotonic() - begun)
        return {"rounds_per_minute": round(rate, 1), "outcomes": dict(Counter(it.outcomes(NODES - 1)))}


if __name__ == "__main__":
    main()
