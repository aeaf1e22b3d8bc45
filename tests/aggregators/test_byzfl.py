"""The rules against ByzFL 0.0.11 (benchmarks/golden/aggregators_from_byzfl.py)."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.aggregators.base import aggregators, preaggregators

GOLDEN = json.loads((Path(__file__).parent / "golden_byzfl.json").read_text())
KEY = jax.random.key(0)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"f={case['f']}")
@pytest.mark.parametrize(
    ("golden", "rule", "settings"),
    [
        ("mean", "mean", {}),
        ("mean", "weighted-mean", {}),
        ("median", "median", {}),
        ("trimmed-mean", "trimmed-mean", {}),
        ("geometric-median", "geometric-median", {"iterations": 1000, "tolerance": 0}),
        ("krum", "krum", {}),
        (
            "centered-clipping from zero",
            "centered-clipping",
            {"start": "zero", "radius": GOLDEN["centred_radius"], "iterations": GOLDEN["centred_iterations"]},
        ),
        ("norm-clipping", "norm-clipping", {"radius": GOLDEN["clipping_radius"]}),
    ],
)
def test_rule(case, golden, rule, settings):
    vectors = jnp.asarray(case["vectors"])
    component = aggregators.build(rule, settings | {"tolerated": case["f"]})
    got = jax.jit(component)(vectors, jnp.ones(len(vectors)), key=KEY)
    np.testing.assert_allclose(got.vector, case["results"][golden], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"f={case['f']}")
def test_multi_krum(case):
    vectors, f = jnp.asarray(case["vectors"]), case["f"]
    rule = aggregators.build("multi-krum", {"tolerated": f, "selected": len(vectors) - f - 1})
    got = jax.jit(rule)(vectors, jnp.ones(len(vectors)), key=KEY)
    np.testing.assert_allclose(got.vector, case["results"]["multi-krum of n - f - 1"], rtol=1e-5)
    assert got.accepted.sum() == len(vectors) - f - 1
    assert not got.accepted[:f].any()


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"f={case['f']}")
def test_nearest_neighbour_mixing(case):
    vectors = jnp.asarray(case["vectors"])
    mixing = preaggregators.build("nearest-neighbour-mixing", {})
    mixed, weights, row = jax.jit(mixing, static_argnums=2)(vectors, jnp.ones(len(vectors)), case["f"], key=KEY)
    np.testing.assert_allclose(mixed, case["results"]["nearest-neighbour-mixing"], rtol=1e-5, atol=1e-6)
    assert (weights == 1).all()
    assert (row == jnp.arange(len(vectors))).all()
