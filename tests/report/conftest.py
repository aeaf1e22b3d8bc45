"""Run directories as training writes them, with numbers that tests can foretell."""

import json
from pathlib import Path

import pytest

CONFIG = """\
name = {name!r}
seed = 0
seeds = {seeds}

[environment]
id = "CartPole-v1"

[federation]
agents = {agents}

[learner]
kind = "policy-gradient"
hidden = [16, 16]

[strategy]
kind = {strategy!r}

[aggregator]
kind = {aggregator!r}

[attack]
kind = {attack!r}
agents = {byzantine}
"""


@pytest.fixture
def write_run():
    """Writes a run of 4 rounds, 100 trajectories each, evaluated each round at ``100 round + 10 seed``."""

    def write(
        path: Path,
        *,
        seeds: tuple[int, ...] = (0, 1, 2),
        rounds: int = 4,
        agents: int = 10,
        strategy: str = "fedpg-br",
        attack: str = "none",
        byzantine: int = 0,
        name: str = "CartPole",
        finished: bool = True,
        filtering: bool = False,
        without: tuple[str, ...] = (),
    ) -> Path:
        path.mkdir(parents=True)
        aggregator = "fedpg-filter" if strategy == "fedpg-br" else "mean"
        (path / "config.toml").write_text(
            CONFIG.format(
                name=name,
                seeds=len(seeds),
                agents=agents,
                strategy=strategy,
                aggregator=aggregator,
                attack=attack,
                byzantine=byzantine,
            )
        )
        rows = []
        for number in range(1, rounds + 1):
            for seed in seeds:
                row = {
                    "seed": seed,
                    "round": number - 1,
                    "return": 100.0 * number + 10.0 * seed,
                    "trajectories": 100 * number,
                    "total_trajectories": 1200 * number,
                    "agent_steps": 20_000 * number,
                    "total_steps": 25_000 * number,
                    "gradient_steps": 5 * number,
                    "bytes_up": 1500 * number,
                    "bytes_down": 1000 * number,
                    "seconds": 15.0 * number,
                }
                if filtering:
                    # Nobody rejected in the first round: precision is undefined.
                    row |= {"filter_recall": number / 4, "filter_rule": number % 3}
                    row["filter_precision"] = float("nan") if number == 1 else 0.75
                rows.append({key: value for key, value in row.items() if key not in without})
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        manifest = {
            "versions": {"fedrax": "0.1.0", "jax": "0.6.0"},
            "device": "cpu",
            "started": "2026-01-02T10:00:00+00:00",
        }
        if finished:
            manifest["ended"] = "2026-01-02T10:01:12+00:00"
            (path / "summary.json").write_text(json.dumps({"rounds": rounds, "seeds": list(seeds)}))
        (path / "manifest.json").write_text(json.dumps(manifest))
        return path

    return write
