"""Writes tests/aggregators/golden_byzfl.json: what ByzFL's rules make of small matrices.

Run it in an environment of its own (``pip install byzfl==0.0.11``); the project does not depend on ByzFL.

    python benchmarks/golden/aggregators_from_byzfl.py tests/aggregators/golden_byzfl.json

ByzFL computes in float64 here. The matrices differ in n, d and f, one has duplicates and one has ties (a grid), and
each is asked for at scales from 1e-30 to 1e30: not scaled at the end but computed there, so that what a rule squares is
squared at that size. The vectors are stored once and scaled by the reader as here, in float64.

Where ByzFL is not what the papers say, it is asked otherwise, or somebody else is:

- Its Krum looks at the ``n - f - 1`` nearest neighbours where the paper (and Fedrax) looks at ``n - f - 2``, so it is
  asked with ``f + 1``. Of equal scores it takes the lowest id, where Fedrax draws: matrices with tied scores carry
  ``null``, and the tests work out who is tied in exact integers.
- Its geometric median starts from zero, takes a fixed number of Weiszfeld's steps and replaces distances by at least
  nu, in absolute units: wrong far from scale 1 and at a vector that is optimal. It is asked at scale 1 of matrices in
  general position, with steps enough; at every scale the tests verify optimality itself, in float64.
- Its nearest neighbours of equal distance are those of lowest id, where Fedrax lets them share: ``null`` there too.
"""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import byzfl
import numpy as np

CENTRED_RADIUS = 1.5
CENTRED_ITERATIONS = 3
CLIPPING_RADIUS = 2.0
SCALES = [1e-30, 1e-15, 1.0, 1e15, 1e30]


def matrices() -> list[tuple[str, np.ndarray, int]]:
    """Vectors ``[n, d]`` with ``f`` outliers in the first rows; rounded, so that the file stays small."""
    generator = np.random.default_rng(2017)
    cases = []
    for n, d, f in [(7, 3, 1), (10, 4, 3), (5, 1, 1), (15, 2, 6), (20, 12, 4)]:
        vectors = generator.normal(1.0, 0.7, size=(n, d))
        vectors[:f] = generator.normal(-6.0, 2.0, size=(f, d))
        cases.append(("outliers", np.round(vectors, 3), f))
    duplicates = np.round(generator.normal(size=(9, 3)), 3)
    duplicates[4:7] = duplicates[3]
    cases.append(("duplicates", duplicates, 2))
    cases.append(("grid", generator.integers(-2, 3, size=(11, 2)).astype(float), 3))
    return cases


def squares(vectors: np.ndarray) -> list[list[Fraction]]:
    """Squared distances, exactly."""
    rows = [[Fraction(str(x)) for x in row] for row in vectors.tolist()]
    return [[sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) for b in rows] for a in rows]


def unique(values: list[Fraction], count: int) -> bool:
    """Whether the ``count`` smallest values are told apart from the rest."""
    ordered = sorted(values)
    return count >= len(ordered) or ordered[count - 1] < ordered[count]


def results(vectors: np.ndarray, f: int, scale: float, distances: list[list[Fraction]]) -> dict[str, Any]:
    n = len(vectors)
    scores = [sum(sorted(row)[: n - f - 1]) for row in distances]
    scaled = vectors * scale
    found = {
        "mean": byzfl.Average()(scaled),
        "median": byzfl.Median()(scaled),
        "trimmed-mean": byzfl.TrMean(f)(scaled),
        "krum": byzfl.Krum(f + 1)(scaled) if unique(scores, 1) else None,
        "multi-krum of n - f - 1": byzfl.MultiKrum(f + 1)(scaled) if unique(scores, n - f - 1) else None,
        "centered-clipping from zero": byzfl.CenteredClipping(L=CENTRED_ITERATIONS, tau=CENTRED_RADIUS * scale)(scaled),
        # ByzFL clips in place.
        "norm-clipping": byzfl.Clipping(CLIPPING_RADIUS * scale)(scaled.copy()).mean(0),
        "nearest-neighbour-mixing": byzfl.NNM(f)(scaled) if all(unique(row, n - f) for row in distances) else None,
    }
    if scale == 1 and len({tuple(row) for row in vectors.tolist()}) == n and vectors.shape[1] > 1:
        found["geometric-median"] = byzfl.GeometricMedian(nu=1e-9, T=5000)(scaled)
    # In units of the scale, which keeps the file short.
    return {name: None if value is None else np.round(value / scale, 8).tolist() for name, value in found.items()}


def main(path: str) -> None:
    cases = []
    for kind, vectors, f in matrices():
        distances = squares(vectors)
        first = results(vectors, f, 1.0, distances)
        for scale in SCALES:
            again = results(vectors, f, scale, distances)
            for name, value in again.items():
                if value is not None and not np.allclose(value, first[name], rtol=1e-7, atol=1e-7):
                    raise SystemExit(f"ByzFL's {name} differs between scales 1 and {scale}: {kind}, f = {f}")
        cases.append({"kind": kind, "f": f, "vectors": vectors.tolist(), "results": first})
    golden = {
        "centred_radius": CENTRED_RADIUS,
        "centred_iterations": CENTRED_ITERATIONS,
        "clipping_radius": CLIPPING_RADIUS,
        "scales": SCALES,
        "cases": cases,
    }
    Path(path).write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
