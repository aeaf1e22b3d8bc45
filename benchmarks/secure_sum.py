"""What a round costs whose server learns a sum alone, beside a plain one: three nodes and a million weights.

    python benchmarks/secure_sum.py                # four minutes
    python benchmarks/secure_sum.py --rounds 8     # fewer rounds

``federation``: a server and three nodes on this machine, with TLS and keys, on the fast path, in turn with plain rounds
and with secure sums; seconds beyond the work of the slowest node as ``federation.py`` measures them, and bytes of
envelopes to and from all nodes.

``protocol``: the cryptography of one sum in this process, without any transport: what each stage takes one agent, and
what it takes the server, with and without an agent that is gone after it shared its secrets.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fedrax.privacy.secure_sum.agent import Participant
from fedrax.privacy.secure_sum.identity import NOBODY
from fedrax.privacy.secure_sum.server import Summation
from fedrax.privacy.secure_sum.terms import Terms, threshold_of

from common import save
from federation import LEFT_OUT, NODES, SETTINGS, beyond_work, federation, rows_of, spread

SECURE = ("privacy.clip=1", "privacy.secure_sum=true")
LENGTH = 1_000_000
COUNTS = (3, 10, 30)
"""Agents in a sum of which the cryptography alone is timed."""
STAGES = ("keys", "shares", "masked", "unmasked")
Made = TypeVar("Made")


def main() -> None:
    """Measures all and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="of each federation")
    parser.add_argument("--note", default="", help="recorded beside the results")
    options = parser.parse_args()
    runs = {"plain": (), "secure sum": SECURE, "plain again": ()}
    result: dict[str, Any] = {
        "nodes": NODES,
        "federation": {name: federated(settings, options.rounds) for name, settings in runs.items()},
        "protocol": {f"{count} agents": protocol(count) for count in COUNTS},
    }
    print(json.dumps(result, indent=1))
    save("secure_sum", result, options.note)


def federated(settings: Sequence[str], rounds: int) -> dict[str, Any]:
    """Seconds and bytes of a round of one federation."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with federation(folder, [*SETTINGS, *settings, f"budget.rounds={rounds}"], None, fast=True) as (server, *_):
            server.wait()
        beyond = beyond_work(folder / "run")
        rows = [row for row in rows_of(folder / "run" / "exchanges.jsonl") if row["round"] >= LEFT_OUT]
    measured = 1 + max(row["round"] for row in rows) - LEFT_OUT
    return {
        "rounds_measured": len(beyond),
        "seconds_beyond_work": spread(beyond),
        **{f"{way}_per_round": round(sum(row[way] for row in rows) / measured) for way in ("bytes_up", "bytes_down")},
    }


def protocol(count: int) -> dict[str, Any]:
    """Seconds of the stages of a sum of so many agents, and the bytes of an agent's messages."""
    terms = Terms("benchmark", 0, count, threshold_of(count, None), 20, LENGTH)
    vector = np.random.default_rng(0).integers(-(2**19), 2**19, LENGTH, np.int32)
    seconds: dict[str, list[float]] = {stage: [] for stage in STAGES}
    sizes: dict[str, int] = {}
    server, agents = Summation(terms), dict[int, Participant]()

    def asked(stage: str, ask: Callable[[], bytes]) -> bytes:
        answer, took = timed(ask)
        seconds[stage].append(took)
        sizes[stage] = len(answer)
        return answer

    def joins(agent: int) -> bytes:
        agents[agent] = Participant(terms, agent, NOBODY)
        return agents[agent].keys()

    roster = server.enrol({k: server.check_keys(k, asked("keys", lambda k=k: joins(k))) for k in range(count)})
    sealed = server.relay(
        {k: server.check_shares(k, asked("shares", lambda a=a: a.shares(roster))) for k, a in agents.items()}
    )
    # One agent is gone by now, where the threshold allows that.
    gone = {count - 1} if terms.threshold < count else set()
    there = {k: agent for k, agent in agents.items() if k not in gone}
    masked = {}
    for k, agent in there.items():
        masked[k] = server.check_masked(k, asked("masked", lambda k=k, a=agent: a.masked(sealed[k], vector)))
    survivors, adding = timed(lambda: server.add(masked))
    shown = {
        k: server.check_unmasked(k, asked("unmasked", lambda a=a: a.unmasked(survivors))) for k, a in there.items()
    }
    total, unmasking = timed(lambda: server.total(shown))
    np.testing.assert_array_equal(total, len(there) * vector)
    return {
        "gone_after_sharing": len(gone),
        "agent_seconds": {stage: round(statistics.median(each), 4) for stage, each in seconds.items()},
        "server_seconds": {"adding": round(adding, 3), "unmasking": round(unmasking, 3)},
        "bytes_up_of_an_agent": sizes,
        "bytes_down_to_an_agent": {
            "roster": len(roster),
            "sealed shares": len(sealed[0]),
            "survivors": len(survivors),
        },
    }


def timed(make: Callable[[], Made]) -> tuple[Made, float]:
    """What is made, and in how many seconds."""
    began = time.perf_counter()
    made = make()
    return made, time.perf_counter() - began


if __name__ == "__main__":
    main()
