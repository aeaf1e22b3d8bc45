"""Writes tests/aggregators/golden_byzfl.json: what ByzFL's rules make of small matrices.

Run it in an environment of its own (``pip install byzfl==0.0.11``); the project does not depend on ByzFL.

    python benchmarks/golden/aggregators_from_byzfl.py tests/aggregators/golden_byzfl.json

Two conventions differ. ByzFL's Krum looks at the ``n - f - 1`` nearest neighbours where the paper (and
Fedrax) looks at ``n - f - 2``, so ByzFL is asked with ``f + 1``. Its geometric median starts from zero and
takes three steps; it is given enough to converge.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import byzfl
import numpy as np

CENTRED_RADIUS = 1.5
CENTRED_ITERATIONS = 3
CLIPPING_RADIUS = 2.0


def matrices() -> list[tuple[np.ndarray, int]]:
    """Vectors ``[n, d]`` with ``f`` outliers in the first rows; rounded, so that the file stays small."""
    generator = np.random.default_rng(2017)
    cases = []
    for n, d, f in [(7, 3, 1), (10, 4, 3)]:
        vectors = generator.normal(1.0, 0.7, size=(n, d))
        vectors[:f] = generator.normal(-6.0, 2.0, size=(f, d))
        cases.append((np.round(vectors, 3), f))
    return cases


def results(vectors: np.ndarray, f: int) -> dict[str, Any]:
    return {
        "mean": byzfl.Average()(vectors),
        "median": byzfl.Median()(vectors),
        "trimmed-mean": byzfl.TrMean(f)(vectors),
        "geometric-median": byzfl.GeometricMedian(nu=1e-9, T=5000)(vectors),
        "krum": byzfl.Krum(f + 1)(vectors),
        "multi-krum of n - f - 1": byzfl.MultiKrum(f + 1)(vectors),
        "centered-clipping from zero": byzfl.CenteredClipping(L=CENTRED_ITERATIONS, tau=CENTRED_RADIUS)(vectors),
        # ByzFL clips in place.
        "norm-clipping": byzfl.Clipping(CLIPPING_RADIUS)(vectors.copy()).mean(0),
        "nearest-neighbour-mixing": byzfl.NNM(f)(vectors),
    }


def main(path: str) -> None:
    cases = [
        {
            "f": f,
            "vectors": vectors.tolist(),
            "results": {name: np.round(value, 8).tolist() for name, value in results(vectors, f).items()},
        }
        for vectors, f in matrices()
    ]
    golden = {
        "centred_radius": CENTRED_RADIUS,
        "centred_iterations": CENTRED_ITERATIONS,
        "clipping_radius": CLIPPING_RADIUS,
        "cases": cases,
    }
    Path(path).write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
