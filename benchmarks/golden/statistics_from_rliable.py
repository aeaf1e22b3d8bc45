"""Prints the numbers that tests/evaluation/test_statistics.py expects, computed by rliable.

Run it in an environment of its own (``pip install rliable "pandas<3"``); the project does not depend on
rliable.
"""

from __future__ import annotations

import json

import numpy as np
from rliable import library, metrics


def sample_scores() -> tuple[np.ndarray, np.ndarray]:
    """Two methods' scores, [10 runs, 3 tasks] and [7 runs, 3 tasks], with ties between them."""
    generator = np.random.default_rng(2021)
    ours = np.round(generator.gamma(4.0, 0.2, size=(10, 3)), 1)
    theirs = np.round(generator.gamma(3.0, 0.2, size=(7, 3)), 1)
    return ours, theirs


def interval(scores: np.ndarray, statistic) -> list[float]:
    # rliable draws from NumPy's global generator, whatever random_state it is given.
    np.random.seed(0)  # noqa: NPY002
    _, intervals = library.get_interval_estimates(
        {"x": scores}, lambda values: np.array([statistic(values)]), reps=50_000
    )
    return intervals["x"][:, 0].tolist()


def main() -> None:
    ours, theirs = sample_scores()
    golden = {
        "ours": ours.tolist(),
        "theirs": theirs.tolist(),
        "iqm": metrics.aggregate_iqm(ours),
        "iqm_task_0": metrics.aggregate_iqm(ours[:, :1]),
        "mean": metrics.aggregate_mean(ours),
        "probability_of_improvement": metrics.probability_of_improvement(ours, theirs),
        "profile": library.score_distributions(ours, np.array([0.3, 0.6, 0.9, 1.2])).tolist(),
        "iqm_interval": interval(ours, metrics.aggregate_iqm),
        "mean_interval_task_0": interval(ours[:, :1], metrics.aggregate_mean),
    }
    print(json.dumps(golden, indent=2, default=float))


if __name__ == "__main__":
    main()
