"""Runs as they are watched, written by hand."""

import json
import os
from pathlib import Path

from fedrax.watch.runs import Watched


def row(round, seed=0, **values):
    return {"seed": seed, "round": round, "return": 10.0 * round + seed, "total_steps": 100 * (round + 1)} | values


def make_run(path: Path, rows=(), *, rounds=10, name="demo", seeds=1) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    settings = f"name = {json.dumps(name)}\nseed = 0\nseeds = {seeds}\n[budget]\nrounds = {rounds}\n"
    (path / "config.toml").write_text(settings + "[federation]\nagents = 2\n")
    if rows:
        write(path, rows, "w")
    return path


def write(path: Path, rows, mode="a") -> None:
    with open(path / "metrics.jsonl", mode) as file:
        file.write("".join(json.dumps(each) + "\n" for each in rows))


def resumed(run: Path, rows) -> None:
    """As the metrics' writer does: another file takes the place of the first."""
    write(run.parent, rows, "w")
    os.replace(run.parent / "metrics.jsonl", run / "metrics.jsonl")


def data(watched: Watched, epoch=-1, start=0, names=("return",)):
    watched.refresh()
    return watched.data(epoch, start, names)
