"""Each compression by itself: known values, what is right on average, sizes, and what travels back and forth."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedrax.compression.base import compressions, kept
from fedrax.trees import tree_bytes
from shipped import shipped

OWN, SHARED = jax.random.key(1), jax.random.key(2)
NAMES = shipped(compressions)
BUILT = {name: compressions.build(name, {}) for name in NAMES}


def there_and_back(compression, update, own=OWN, shared=SHARED):
    return compression.decode(compression.encode(update, own, shared), update, shared)


def bytes_of(compression, length):
    shape = jax.ShapeDtypeStruct((length,), jnp.float32)
    return tree_bytes(jax.eval_shape(compression.encode, shape, OWN, SHARED))


# Known values.


def test_half_precision_saturates_and_keeps_what_is_not_finite():
    update = jnp.array([1.0, 1 + 2**-11, 65520.0, -1e30, jnp.inf, jnp.nan, 1e-9])
    encoded = BUILT["float16"].encode(update, OWN, SHARED)
    assert encoded.dtype == jnp.float16
    np.testing.assert_array_equal(encoded, np.array([1, 1, 65504, -65504, np.inf, np.nan, 0], np.float16))
    assert there_and_back(BUILT["float16"], update).dtype == jnp.float32


def test_int8_has_a_scale_for_each_array_and_whole_multiples_of_it_are_exact():
    update = {"a": 0.5 * jnp.array([-127.0, 0.0, 3.0, 127.0]), "b": jnp.array([[2.54]]), "zero": jnp.zeros(3)}
    encoded = BUILT["int8"].encode(update, OWN, SHARED)
    assert encoded["a"].values.tolist() == [-127, 0, 3, 127]
    assert (float(encoded["a"].scale), float(encoded["zero"].scale)) == (0.5, 0.0)
    np.testing.assert_allclose(encoded["b"].scale, 0.02, rtol=1e-6)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), there_and_back(BUILT["int8"], update), update
    )


def test_top_k_sends_the_largest_with_their_places():
    update = {"a": jnp.array([0.1, -5.0, 0.2]), "b": jnp.zeros(97).at[96].set(3.0)}
    compression = compressions.build("top-k", {"share": 0.02})
    encoded = compression.encode(update, OWN, SHARED)
    assert encoded.values.tolist() == [-5, 3]
    assert (encoded.places.tolist(), encoded.places.dtype) == ([1, 99], jnp.uint32)
    back = there_and_back(compression, update)
    assert back["a"].tolist() == [0, -5, 0]
    np.testing.assert_array_equal(back["b"], update["b"])


def test_top_k_sends_bits_for_the_places_of_many():
    update = jnp.array([0.0, 9.0, -8.0, 1.0, 7.0, 0.5, 0.25, 0.125, -6.0, 0.1])
    encoded = compressions.build("top-k", {"share": 0.4}).encode(update, OWN, SHARED)
    assert encoded.values.tolist() == [9, -8, 7, -6]
    assert (encoded.places.tolist(), encoded.places.dtype) == ([0b01101000, 0b10000000], jnp.uint8)


def test_random_k_chooses_by_the_shared_key_alone_and_scales():
    update = jnp.arange(1.0, 21.0)
    compression = compressions.build("random-k", {"share": 0.25})
    values = compression.encode(update, OWN, SHARED).values
    assert len(set(values.tolist())) == 5
    assert {x / 4 for x in values.tolist()} <= set(range(1, 21))
    np.testing.assert_array_equal(values, compression.encode(update, jax.random.key(9), SHARED).values)
    back = np.asarray(there_and_back(compression, update))
    np.testing.assert_array_equal(back[back > 0], 4 * np.asarray(update)[back > 0])
    unscaled = compressions.build("random-k", {"share": 0.25, "error_feedback": True})
    np.testing.assert_array_equal(unscaled.encode(update, OWN, SHARED).values * 4, values)


def test_a_sketch_of_one_cell_is_the_signed_sum():
    update = jnp.array([1.0, 10.0, 100.0])
    encoded = compressions.build("sketch", {"share": 1e-9}).encode(update, OWN, SHARED)
    assert encoded.cells.shape == (1, 1)
    assert abs(float(encoded.cells[0, 0])) in {
        abs(a + 10 * b + 100 * c) for a, b, c in itertools.product((1, -1), repeat=3)
    }


@pytest.mark.parametrize(
    ("share", "length", "count"), [(0.01, 100, 1), (0.07, 100, 7), (0.011, 100, 2), (0, 9, 1), (1, 9, 9)]
)
def test_how_many_numbers_a_share_is(share, length, count):
    """0.07 * 100 is above 7 in binary."""
    assert kept(share, length) == count
    assert kept(share, 0) == 0


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("none", {}, 40_000),
        ("float16", {}, 20_000),
        ("int8", {}, 10_004),
        ("top-k", {"share": 0.01}, 800),
        ("top-k", {"share": 0.1}, 4_000 + 1_250),
        ("random-k", {"share": 0.01}, 400),
        ("sketch", {"share": 0.01}, 400),
        ("sketch", {"share": 0.01, "rows": 4}, 400),
    ],
)
def test_bytes_of_ten_thousand_numbers(name, options, size):
    assert bytes_of(compressions.build(name, options), 10_000) == size


# What is right on average.


def test_int8_rounds_up_as_often_as_is_right_on_average():
    update = jnp.array([127.0, 0.25, -0.75, 3.5, 1e-3])
    keys = jax.random.split(OWN, 20_000)
    back = jax.vmap(lambda key: there_and_back(BUILT["int8"], update, key))(keys)
    assert set(np.unique(back[:, 1])) == {0, 1}
    assert set(np.unique(back[:, 2])) == {-1, 0}
    # A number's standard deviation is at most half a step: five standard errors.
    np.testing.assert_allclose(back.mean(0), update, atol=5 * 0.5 / np.sqrt(20_000))


def test_random_k_is_right_on_average_with_the_published_variance():
    update, share = jnp.arange(1.0, 9.0), 0.25
    compression = compressions.build("random-k", {"share": share})
    keys = jax.random.split(SHARED, 20_000)
    back = jax.vmap(lambda key: there_and_back(compression, update, shared=key))(keys)
    deviations = np.asarray(update) * np.sqrt(1 / share - 1)
    np.testing.assert_allclose(np.std(back, 0), deviations, rtol=0.05)
    assert (np.abs(back.mean(0) - update) < 5 * deviations / np.sqrt(20_000)).all()


@pytest.mark.parametrize("rows", [1, 3])
def test_a_sketch_is_right_on_average_with_the_published_variance(rows):
    update = jnp.array([5.0, -3.0, 2.0, 1.0, 0.5, -0.5, 4.0, 0.0, 1.5, -2.5, 0.75, 3.5])
    compression = compressions.build("sketch", {"share": 0.5, "rows": rows})
    keys = jax.random.split(SHARED, 20_000)
    back = jax.vmap(lambda key: there_and_back(compression, update, shared=key))(keys)
    others = np.sum(np.square(update)) - np.square(update)
    deviations = np.sqrt(others / (rows * compression.columns(12)))
    np.testing.assert_allclose(np.std(back, 0), deviations, rtol=0.05)
    assert (np.abs(back.mean(0) - update) < 5 * deviations / np.sqrt(20_000)).all()


# What all have in common.

NUMBERS = st.floats(-1e6, 1e6, width=32)
UPDATES = st.tuples(arrays(np.float32, (3, 4), elements=NUMBERS), arrays(np.float32, 7, elements=NUMBERS))
PROGRAMS = {name: jax.jit(lambda update, own, it=it: there_and_back(it, update, own)) for name, it in BUILT.items()}
ERRORS = {
    "none": lambda update, back: np.zeros_like(update),
    "float16": lambda update, back: np.where(
        np.abs(update) > 65504, np.abs(update) - 65504, np.maximum(np.abs(update) * 2.0**-11, 2.0**-25)
    ),
    # Some versions of XLA take numbers below the smallest normal one for 0, also a scale.
    "int8": lambda update, back: np.full_like(update, max(np.abs(update).max() / 127 * 1.001, 127 * 2.0**-126)),
}
"""How far an array may be off."""


@settings(max_examples=40)
@given(update=UPDATES, seed=st.integers(0, 2**31 - 1))
@pytest.mark.parametrize("name", NAMES)
def test_structure_and_types_come_back_and_errors_are_bounded(name, update, seed):
    tree = {"w": update[0], "count": np.arange(2), "b": (update[1],)}
    back = PROGRAMS[name](tree, jax.random.key(seed))
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(back), strict=True):
        assert (x.shape, np.asarray(x).dtype == np.asarray(y).dtype or x.dtype.kind == "i") == (y.shape, True)
        assert np.isfinite(y).all()
    np.testing.assert_array_equal(back["count"], [0, 1])
    for x, y in ((tree["w"], back["w"]), (tree["b"][0], back["b"][0])):
        if name in ERRORS:
            assert (np.abs(x - y) <= ERRORS[name](x, y)).all()
    if name == "top-k":
        flat, sent = (np.concatenate([np.ravel(t["w"]), t["b"][0]]) for t in (tree, back))
        assert np.abs(sent).sum() == np.abs(flat).max(), "one of 19 numbers travels"


@settings(max_examples=30)
@given(one=UPDATES, other=UPDATES)
@pytest.mark.parametrize("name", ["none", "random-k", "sketch"])
def test_the_sum_of_linear_encodings_decodes_to_the_sum(name, one, other):
    compression = BUILT[name]
    encoded = [compression.encode(update, jax.random.key(n), SHARED) for n, update in enumerate((one, other))]
    summed = compression.decode(jax.tree.map(jnp.add, *encoded), one, SHARED)
    parts = [compression.decode(each, one, SHARED) for each in encoded]
    size = max(1.0, *(float(np.abs(x).max()) for x in jax.tree.leaves((one, other))))
    jax.tree.map(lambda x, y, z: np.testing.assert_allclose(x, y + z, atol=1e-3 * size), summed, *parts)


@pytest.mark.parametrize("name", NAMES)
def test_zeros_are_an_update_of_zeros_and_nothing_is_nothing(name):
    compression, update = BUILT[name], {"w": jnp.ones((2, 3)), "b": jnp.ones(4)}
    encoded = jax.eval_shape(compression.encode, update, OWN, SHARED)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), encoded)
    assert not any(x.any() for x in jax.tree.leaves(compression.decode(zeros, update, SHARED)))
    for empty in ((), {"count": jnp.arange(2)}):
        assert jax.tree.structure(there_and_back(compression, empty)) == jax.tree.structure(empty)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "random-k"])
def test_what_is_not_finite_stays_so(name, bad):
    update = {"w": jnp.ones(40).at[7].set(bad), "b": jnp.ones(4)}
    back = there_and_back(BUILT[name], update)
    assert not all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(back))


@pytest.mark.training
@pytest.mark.parametrize("name", NAMES)
def test_agents_side_by_side_encode_as_they_do_alone(name):
    compression = BUILT[name]
    updates = jax.random.normal(jax.random.key(3), (3, 50))
    keys = jax.random.split(OWN, 3)
    together = jax.vmap(lambda update, key: there_and_back(compression, update, key))(updates, keys)
    in_turn = jax.lax.map(lambda each: there_and_back(compression, *each), (updates, keys))
    for row in range(3):
        np.testing.assert_allclose(together[row], there_and_back(compression, updates[row], keys[row]), rtol=1e-6)
    np.testing.assert_allclose(together, in_turn, rtol=1e-6)


# What a node may send in place of an encoding.

HUNDRED = jax.ShapeDtypeStruct((100,), jnp.float32)


@pytest.mark.parametrize(
    ("share", "places"),
    [
        (0.02, [3, 3]),
        (0.02, [4, 3]),
        (0.02, [3, 100]),
        (0.02, [3, 2**32 - 1]),
        (0.4, [255] * 4 + [0] * 9),
        (0.4, [255] * 5 + [128] + [0] * 7),
        (0.4, [255] * 4 + [240] + [0] * 7 + [15]),
    ],
)
def test_places_that_are_none_are_no_encoding(share, places):
    compression = compressions.build("top-k", {"share": share})
    update = jax.random.normal(OWN, (100,))
    encoded = jax.device_get(compression.encode(update, OWN, SHARED))
    assert compression.flaw(encoded, HUNDRED) is None
    false = encoded._replace(places=np.array(places, encoded.places.dtype))
    assert "different ones of 100" in compression.flaw(false, HUNDRED)
    assert np.isfinite(compression.decode(false, HUNDRED, SHARED)).all(), "whatever it is, it decodes to numbers"
