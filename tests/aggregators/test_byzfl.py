"""The rules against ByzFL 0.0.11 (benchmarks/golden/aggregators_from_byzfl.py)."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.aggregators.base import aggregators, preaggregators

GOLDEN = json.loads((Path(__file__).parent / "golden_byzfl.json").read_text())
KEY = jax.random.key(0)
MIX = jax.jit(preaggregators.build("nearest-neighbour-mixing", {}), static_argnums=2)


cases = pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"{case['kind']} f={case['f']}")
scales = pytest.mark.parametrize("scale", GOLDEN["scales"])


@functools.cache
def compiled(rule, **settings):
    return jax.jit(functools.partial(aggregators.build(rule, settings), key=KEY))


def run(rule, vectors, **settings):
    """The rule's verdict; absent rows and columns of zeros give every case one shape, which is compiled once."""
    n, d = vectors.shape
    padded = jnp.zeros((20, 12)).at[:n, :d].set(vectors)
    got = compiled(rule, **settings)(padded, (jnp.arange(20) < n).astype(jnp.float32))
    assert (got.vector[d:] == 0).all()
    return got._replace(vector=got.vector[:d], accepted=got.accepted[:n])


def scaled(case, scale):
    return jnp.asarray(np.asarray(case["vectors"]) * scale, jnp.float32)


def close(got, expected, scale):
    """Equal to float32's rounding, relative to vectors of about 1 to 10 times the scale."""
    np.testing.assert_allclose(np.asarray(got, np.float64) / scale, expected, rtol=1e-5, atol=5e-6)


@cases
@scales
@pytest.mark.parametrize(
    ("golden", "rule", "settings"),
    [
        ("mean", "mean", {}),
        ("mean", "weighted-mean", {}),
        ("median", "median", {}),
        ("trimmed-mean", "trimmed-mean", {}),
        ("krum", "krum", {}),
        (
            "centered-clipping from zero",
            "centered-clipping",
            {"start": "zero", "radius": GOLDEN["centred_radius"], "iterations": GOLDEN["centred_iterations"]},
        ),
        ("norm-clipping", "norm-clipping", {"radius": GOLDEN["clipping_radius"]}),
    ],
)
def test_rule(case, scale, golden, rule, settings):
    if (expected := case["results"][golden]) is None:
        return  # Several agents are equally good: test_ties.py.
    if "radius" in settings:
        settings = settings | {"radius": settings["radius"] * scale}
    elif rule in ("trimmed-mean", "krum"):
        settings = {"tolerated": case["f"]}
    got = run(rule, scaled(case, scale), **settings)
    close(got.vector, expected, scale)


@pytest.mark.parametrize("case", [case for case in GOLDEN["cases"] if "geometric-median" in case["results"]])
@scales
def test_geometric_median(case, scale):
    vectors = scaled(case, scale)
    got = run("geometric-median", vectors)
    np.testing.assert_allclose(
        np.asarray(got.vector, np.float64) / scale, case["results"]["geometric-median"], rtol=2e-5, atol=2e-5
    )
    assert got.metrics["median_excess"] < 2e-6


@cases
@scales
def test_multi_krum(case, scale):
    vectors, f = scaled(case, scale), case["f"]
    got = run("multi-krum", vectors, tolerated=f, selected=len(vectors) - f - 1)
    close(got.vector, case["results"]["multi-krum of n - f - 1"], scale)
    assert got.accepted.sum() == len(vectors) - f - 1
    if case["kind"] == "outliers":
        assert not got.accepted[:f].any()


@pytest.mark.parametrize("case", [case for case in GOLDEN["cases"] if case["kind"] == "outliers"])
@scales
def test_nearest_neighbour_mixing(case, scale):
    vectors = scaled(case, scale)
    mixed, weights, row = MIX(vectors, jnp.ones(len(vectors)), case["f"], key=KEY)
    close(mixed, case["results"]["nearest-neighbour-mixing"], scale)
    assert (weights == 1).all()
    assert (row == jnp.arange(len(vectors))).all()
