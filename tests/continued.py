"""Small runs that are extended, killed and compared."""

import numpy as np
from safetensors.numpy import load_file

import fedrax
from fedrax.runtime import training
from fedrax.runtime.counters import EVALUATED

TINY = [
    "fedpg-br/cartpole",
    "federation.agents=2",
    "strategy.batch_min=2",
    "strategy.batch_max=4",
    "budget.trajectories=none",
    "checkpoint.every=3",
    "environment.horizon=20",
    "evaluation.episodes=2",
    "evaluation.every=5",
]


def trained(out, *overrides):
    return fedrax.train(TINY[0], [*TINY[1:], *overrides], out=out, progress=False)


def rows(path):
    """By seed, without what differs from one execution to the next."""
    found = {}
    for row in fedrax.load(path).metrics():
        found.setdefault(row["seed"], []).append({k: v for k, v in row.items() if k != "seconds"})
    return found


def without_evaluation(of_a_seed):
    """Without that at the end, which a run that is extended does not keep."""
    *others, last = of_a_seed
    return [*others, {key: value for key, value in last.items() if key not in EVALUATED}]


def assert_same_runs(one, other):
    assert rows(one) == rows(other)
    for name in ("policy.safetensors", "best.safetensors"):
        ours, theirs = load_file(one / name), load_file(other / name)
        assert ours.keys() == theirs.keys()
        for leaf in ours:
            np.testing.assert_array_equal(ours[leaf], theirs[leaf])
    ours, theirs = (fedrax.load(path).summary() for path in (one, other))
    assert {k: v for k, v in ours.items() if not k.startswith("seconds")} == {
        k: v for k, v in theirs.items() if not k.startswith("seconds")
    }


def checkpoints(run):
    """Rounds of those that are kept."""
    return sorted(int(path.stem.rpartition("-")[2]) for path in (run / "checkpoints").iterdir())


class Killed(BaseException):
    pass


def killed_at(monkeypatch, function, call):
    """Stands in for kill -9 before that call: nothing of the package catches it."""
    real, calls = getattr(training, function), []

    def fatal(*arguments, **named):
        calls.append(function)
        if len(calls) == call:
            raise Killed
        return real(*arguments, **named)

    monkeypatch.setattr(training, function, fatal)
