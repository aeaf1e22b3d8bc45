"""What benchmarks share: the machine, the date and the versions beside every figure, and how a call is timed."""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import jax

RESULTS = Path(__file__).parent / "results"
WIDTH = 160
"""Characters of a line of results."""


def machine() -> dict[str, Any]:
    """Processor, cores, memory, what computes, date and versions."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = models[0] if models else processor
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ("fedrax", "jax", "jaxlib", "numpy", "gymnasium", "envpool")
    return {
        "date": date.today().isoformat(),
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages if _installed(name)},
    }


def save(name: str, results: Any, note: str = "") -> Path:
    """Writes ``results/<name>.json``, replacing the last results."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {"machine": machine(), **({"note": note} if note else {}), "results": results}
    path.write_text(laid_out(content) + "\n")
    return path


def laid_out(value: Any, depth: int = 0) -> str:
    """JSON of few lines: a list of numbers has one, and so has a table that fits in it."""
    line = json.dumps(value)
    whole = isinstance(value, list) and not any(isinstance(item, (dict, list)) for item in value)
    if whole or not isinstance(value, (dict, list)) or len(line) + depth <= WIDTH:
        return line
    pairs = [f"{json.dumps(key)}: " for key in value] if isinstance(value, dict) else [""] * len(value)
    items = value.values() if isinstance(value, dict) else value
    indent = "\n" + " " * (depth + 1)
    body = f",{indent}".join(name + laid_out(item, depth + 1) for name, item in zip(pairs, items, strict=True))
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}{indent}{body}\n{' ' * depth}{closing}"


def read_runs(name: str) -> dict[str, dict[str, Any]]:
    """The runs recorded in ``results/<name>.json``, by setup and seed."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text())["results"]["runs"] if path.exists() else {}


def record_runs(
    name: str,
    setup: str,
    seeds: dict[str, Any],
    *,
    order: Sequence[str],
    row: Callable[[str, dict[str, dict[str, Any]]], dict[str, Any]],
) -> None:
    """Adds a setup's runs by seed and computes the table anew, ``row(setup, runs)`` for each; other processes wait.

    ``order`` is that of the setups.
    """
    lock = RESULTS.parent / f".{name}.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        runs = read_runs(name)
        runs.setdefault(setup, {}).update(seeds)
        runs = {each: dict(sorted(runs[each].items(), key=lambda item: int(item[0]))) for each in order if each in runs}
        save(name, {"table": {each: row(each, runs) for each in runs}, "runs": runs})


def matrix_peak(size: int = 2048) -> float:
    """Floating-point operations per second of a large product."""
    x = jax.random.normal(jax.random.key(0), (size, size))
    return 2 * size**3 / best(jax.jit(lambda x: x @ x), x)


def best(function: Callable[[Any], Any], inputs: Any, repeats: int = 15) -> float:
    """Seconds of the fastest call after a first one."""
    jax.block_until_ready(function(inputs))
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(function(inputs))
        times.append(time.perf_counter() - started)
    return min(times)


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
