"""Files of sweeps, for tests."""

import json
import time

TINY = [
    "budget.trajectories=none",
    "budget.rounds=3",
    "federation.agents=2",
    "environment.horizon=20",
    "evaluation.episodes=1",
    "strategy.batch_min=2",
    "strategy.batch_max=2",
]
DEADLINE = 120.0


def written(folder, text, name="sweep.toml", preset="fedpg-br/cartpole", changes=TINY, together=False):
    """A sweep's file in ``folder``, its ``out`` there too, with a run for every seed unless they train ``together``."""
    path = folder / name
    head = f'preset = "{preset}"\nout = "{folder / "out"}"\nset = {json.dumps(changes)}\n'
    path.write_text(head + ("" if together else "seeds_per_run = 1\n") + text)
    return path


def until(condition, process=None):
    """Waits for a condition, which a process that ended can no longer bring about."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None
        time.sleep(0.05)
