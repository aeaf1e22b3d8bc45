"""Initial weights, and what the networks compute."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.environments.base import Box, Dict, Discrete, Spaces, Tokens
from fedrax.learners.actor_critic import TILES, make_actor_critic
from fedrax.learners.mlp import MLPMaker
from fedrax.learners.networks import by_input, make_dense, orthogonal


@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (3, 50), (50, 3), (128, 200)])
def test_orthogonal_weights_are_jaxs_own(rows, columns):
    """As drawn by the library's initialiser, whose decomposition may not be mapped."""
    key = jax.random.key(3)
    theirs = jax.nn.initializers.orthogonal()(key, (rows, columns))
    np.testing.assert_allclose(orthogonal(key, rows, columns), theirs, atol=2e-5)


def test_orthogonal_weights_can_be_drawn_for_many_agents_and_layers_at_once():
    @jax.jit
    @jax.vmap
    def layers(key):
        return [orthogonal(k, 64, 96) for k in jax.random.split(key, 4)]

    for weight in layers(jax.random.split(jax.random.key(0), 8)):
        products = weight @ weight.swapaxes(1, 2)
        np.testing.assert_allclose(products, jnp.broadcast_to(jnp.eye(64), products.shape), atol=1e-5)


@pytest.mark.parametrize("by_output", [False, True])
def test_dense_is_affine(by_output):
    layer = make_dense(jax.random.key(0), 5, 3, "uniform", by_output=by_output)
    x = jax.random.normal(jax.random.key(1), (2, 7, 5))
    weight = layer.weight.T if by_output else layer.weight
    expected = np.einsum("abi,io->abo", x, weight) + layer.bias
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.training
def test_a_network_by_input_is_the_same_network():
    network = grid_network("one-hot", pooling=False)
    turned = by_input(network)
    assert network.torso.dense.by_output
    assert not turned.torso.dense.by_output
    grids = jax.random.randint(jax.random.key(1), (5, 7, 7, 3), 0, 4).astype(jnp.float32)
    for one, other in zip(jax.tree.leaves(network.both(grids)), jax.tree.leaves(turned.both(grids)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


GRIDS = Spaces(Box((7, 7, 3), (0.0,) * 147, (255.0,) * 147), Discrete(7))


def grid_network(encoding, spaces=GRIDS, *, pooling=True):
    return make_actor_critic(
        jax.random.key(0),
        spaces,
        torso="auto",
        hidden=(128,),
        activation="tanh",
        encoding=encoding,
        pooling=pooling,
    )


def views(*shape):
    """Random cells."""
    keys = jax.random.split(jax.random.key(5), len(TILES))
    parts = [jax.random.randint(key, (*shape, 7, 7), 0, size) for key, size in zip(keys, TILES, strict=True)]
    return jnp.stack(parts, -1).astype(jnp.float32)


@pytest.mark.training
@pytest.mark.parametrize("pooling", [False, True])
@pytest.mark.parametrize("encoding", ["raw", "one-hot"])
def test_slices_and_products_are_a_convolution(encoding, pooling):
    torso = grid_network(encoding, pooling=pooling).torso
    observation = views(4)
    if encoding == "raw":
        grid = observation
    else:
        grid = jnp.concatenate(
            [jax.nn.one_hot(observation[..., i].astype(int), size) for i, size in enumerate(TILES)], -1
        )
    for place, layer in enumerate(torso.convolutions):
        inputs = grid.shape[-1]
        kernel = layer.weight.T.reshape(2, 2, inputs, -1)
        grid = jax.lax.conv_general_dilated(grid, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        grid = jnp.tanh(grid + layer.bias)
        if pooling and place == 0:
            window = (1, 2, 2, 1)
            grid = jax.lax.reduce_window(grid, -jnp.inf, jax.lax.max, window, window, "VALID")
    assert grid.shape[1:3] == ((1, 1) if pooling else (4, 4))
    expected = jnp.tanh(torso.dense(grid.reshape(4, -1)))
    np.testing.assert_allclose(torso(observation), expected, atol=1e-5)


def test_the_references_network_has_its_size():
    params = jax.tree.leaves(grid_network("raw", pooling=False))
    assert sum(leaf.size for leaf in params) == 142_776


def test_leading_axes_are_free():
    network = grid_network("one-hot")
    observation = views(3, 2)
    distribution, value = network.both(observation)
    assert distribution.logits.shape == (3, 2, 7)
    assert value.shape == (3, 2)
    np.testing.assert_allclose(network(observation[1]).logits, distribution.logits[1], atol=1e-5)


def test_a_missions_words_and_their_order_count():
    view = Box((7, 7, 3), (0.0,) * 147, (255.0,) * 147)
    spaces = Spaces(Dict.of({"image": view, "mission": Tokens(2, 5)}), Discrete(7))
    network = grid_network("one-hot", spaces)

    def seen(*words):
        return network({"image": views(1), "mission": jnp.array([words], jnp.int32)}).logits

    assert not np.allclose(seen(2, 3), seen(3, 2))
    assert not np.allclose(seen(2, 0), seen(3, 0))
    silent = grid_network("one-hot")(views(1)).logits
    np.testing.assert_allclose(seen(0, 0), silent, atol=1e-5)


def test_rlkits_weights_are_bounded_by_their_outputs_and_the_last_ones_small():
    key = jax.random.key(0)
    hidden = make_dense(key, 400, 100, "rlkit", by_output=True)
    assert 0.099 < float(jnp.abs(hidden.weight).max()) <= 0.1
    assert not hidden.bias.any()
    seen = Spaces(Box((3,), (-1.0,) * 3, (1.0,) * 3), Box((2,), (-1.0,) * 2, (1.0,) * 2))
    made = MLPMaker(seen, "auto", "relu", "rlkit").mlp(key, (3, 50, 50, 40))
    last = made.layers[-1]
    for numbers in (last.weight, last.bias):
        assert 0.0025 < float(jnp.abs(numbers).max()) <= 0.003
    assert float(jnp.abs(made.layers[1].weight).max()) > 0.1


def test_lecuns_weights_have_the_variance_of_their_inputs():
    layer = make_dense(jax.random.key(0), 400, 250, "lecun")
    assert np.asarray(layer.weight).std() == pytest.approx(400**-0.5, rel=0.02)
    # Normal numbers within two deviations deviate by 0.8796 of what all of them do.
    assert np.abs(layer.weight).max() == pytest.approx(2 / 0.8796 * 400**-0.5, rel=0.01)
    assert not np.asarray(layer.bias).any()


def test_xaviers_weights_are_bounded_by_inputs_and_outputs():
    layer = make_dense(jax.random.key(0), 100, 50, "xavier")
    assert 0.195 < float(jnp.abs(layer.weight).max()) <= 0.2
    assert not layer.bias.any()
