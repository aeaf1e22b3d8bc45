"""Images: how they are seen, kept and learned from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedrax
from fedrax.config import resolve
from fedrax.environments.base import Box, Discrete, Spaces, Steps
from fedrax.environments.host_collector import HostCollector
from fedrax.environments.host_joined import JoinedEnvironments
from fedrax.errors import FedraxError
from fedrax.learners.base import learners
from fedrax.learners.encoders import Convolutions, Flatten, channels_first, make_encoder, patches
from fedrax.learners.replay import empty_replay, replay_bytes, transitions_of
from fedrax.runtime.make import make_runtime

from pictures import PICTURE, POINT_AT


def image(*shape, high=255, dtype="uint8"):
    size = int(np.prod(shape))
    return Box(shape, (0,) * size, (high,) * size, dtype)


def made(torso, box):
    return make_encoder(jax.random.key(0), torso, box, "orthogonal")


@pytest.mark.training
@pytest.mark.parametrize(("kernel", "stride"), [(8, 4), (4, 2), (3, 1)])
@pytest.mark.parametrize("sides", [(36, 36), (37, 50)])
def test_blocks_and_products_are_a_convolution(kernel, stride, sides):
    pictures = jax.random.normal(jax.random.key(0), (2, *sides, 3))
    weight = jax.random.normal(jax.random.key(1), (kernel * kernel * 3, 5))
    tiles = kernel // stride
    filters = weight.reshape(tiles, tiles, stride, stride, 3, 5).transpose(0, 2, 1, 3, 4, 5)
    expected = jax.lax.conv_general_dilated(
        pictures,
        filters.reshape(kernel, kernel, 3, 5),
        (stride, stride),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(patches(pictures, kernel, stride) @ weight, expected, atol=1e-3)


@pytest.mark.training
@pytest.mark.parametrize(
    ("shape", "layers", "width"),
    [
        ((84, 84, 4), 3, 3136),
        ((4, 84, 84), 3, 3136),
        ((36, 36, 3), 3, 64),
        ((35, 90, 3), 2, 14 * 42 * 64),
        ((12, 12, 3), 2, 576),
        ((8, 8, 1), 2, 64),
    ],
)
def test_natures_layers_on_large_images_and_the_last_two_on_small_ones(shape, layers, width):
    encoder, count = made("auto", image(*shape))
    assert isinstance(encoder, Convolutions)
    assert len(encoder.layers) == layers
    assert count == width
    assert encoder(jnp.zeros((2, 3, *shape), jnp.uint8)).shape == (2, 3, width)


def test_natures_network_has_its_size():
    encoder, _ = made("auto", image(84, 84, 4))
    sizes = [layer.weight.size + layer.bias.size for layer in encoder.layers]
    assert sizes == [8_224, 32_832, 36_928]


@pytest.mark.parametrize("box", [image(7, 90, 3), image(12), image(12, 12), image(12, 12, 3, dtype="float32")])
def test_what_is_no_image_is_flattened(box):
    encoder, count = made("auto", box)
    assert isinstance(encoder, Flatten)
    assert count == np.prod(box.shape)


@pytest.mark.parametrize("torso", ["mlp", "cnn"])
def test_bytes_are_shares_of_the_highest(torso):
    pictures = jax.random.randint(jax.random.key(3), (4, 12, 12, 3), 0, 256).astype(jnp.uint8)
    encoder, _ = made(torso, image(12, 12, 3))
    plain, _ = made(torso, image(12, 12, 3, dtype="float32"))
    np.testing.assert_allclose(encoder(pictures), plain(pictures.astype(jnp.float32) / 255), rtol=1e-5, atol=1e-6)
    binary, _ = made(torso, image(12, 12, 3, high=1))
    np.testing.assert_allclose(binary(pictures // 255), encoder(pictures // 255 * 255), rtol=1e-5, atol=1e-6)


def test_bytes_that_are_no_images_keep_their_values():
    encoder, _ = made("auto", image(4))
    np.testing.assert_array_equal(encoder(jnp.array([[0, 1, 7, 255]], jnp.uint8)), [[0.0, 1.0, 7.0, 255.0]])


def test_channels_may_come_first():
    pictures = jax.random.randint(jax.random.key(3), (4, 12, 12, 3), 0, 256).astype(jnp.uint8)
    assert channels_first((3, 12, 12))
    assert not channels_first((12, 12, 3))
    last, _ = made("cnn", image(12, 12, 3))
    first, _ = made("cnn", image(3, 12, 12))
    np.testing.assert_array_equal(first(jnp.moveaxis(pictures, -1, 1)), last(pictures))


@pytest.mark.parametrize("learner", ["ppo", "policy-gradient", "td3"])
@pytest.mark.parametrize("shape", [(84,), (12, 12), (7, 12, 3)])
def test_convolutions_on_what_is_no_image_are_refused(learner, shape):
    spaces = Spaces(image(*shape), Box((1,), (-1.0,), (1.0,)))
    with pytest.raises(FedraxError, match=r"learner.torso = 'cnn' needs images .* set learner.torso=mlp"):
        learners.build(learner, {"torso": "cnn"}).check(spaces)


@pytest.mark.parametrize("learner", ["ppo", "policy-gradient", "td3"])
def test_minigrids_views_are_no_pictures(learner):
    """Their networks, and so their numbers, are what they were."""
    views = Spaces(image(7, 7, 3, dtype="float32"), Box((1,), (-1.0,), (1.0,)))
    params = learners.build(learner, {}).init_params(jax.random.key(0), views)
    encoders = jax.tree.leaves(params, is_leaf=lambda part: isinstance(part, Convolutions))
    assert not any(isinstance(part, Convolutions) for part in encoders)


@pytest.mark.training
def test_a_replay_of_images_is_bytes():
    spaces = Spaces(image(3, 12, 12), Box((1,), (-1.0,), (1.0,)))
    replay = empty_replay(spaces, 10)
    assert replay.images.nbytes == 10 * 2 * 432
    assert replay.rows.nbytes == 10 * 3 * 4
    assert replay_bytes(spaces, 10) == replay.images.nbytes + replay.rows.nbytes
    observation = jax.random.randint(jax.random.key(0), (5, 2, 3, 12, 12), 0, 256).astype(jnp.uint8)
    number = jnp.arange(8.0).reshape(4, 2)
    no = jnp.zeros((4, 2), bool)
    steps = Steps(observation, (), number[..., None], -number, ~no, no, no, number)
    replay = replay.add(*transitions_of(steps))
    sample = replay.sample(jax.random.key(1), (3, 50))
    assert sample.observation.dtype == sample.next_observation.dtype == jnp.uint8
    step = sample.action[..., 0].astype(int)
    assert set(np.asarray(step).ravel()) == set(range(8))
    np.testing.assert_array_equal(sample.observation, observation[step // 2, step % 2])
    np.testing.assert_array_equal(sample.next_observation, observation[step // 2 + 1, step % 2])
    np.testing.assert_array_equal(sample.reward, -step)


SMALL = ["strategy=fedavg", "federation.agents=2", "environment.num_envs=2", "evaluation.episodes=2"]


def test_images_are_collected_as_bytes():
    """Of two agents, one of whom stands still: what it shows meanwhile is of the same type."""
    settings = [*SMALL, f"environment={PICTURE}", "learner=ppo", "budget.rounds=1"]
    runtime = make_runtime(resolve({}, settings))
    groups = [runtime._make(2, 20) for _ in range(2)]
    try:
        for group in groups:
            group.reseed(np.arange(2))
        joined = JoinedEnvironments(groups)
        assert joined.reset().dtype == np.uint8
        still = np.array([True, True, False, False])
        assert joined.step(np.zeros(4, np.int32), still)[0].dtype == np.uint8
        collector = HostCollector(groups[0], 1, 2)
        episodes = collector.collect(lambda seen, _: np.zeros(seen.shape[:2], np.int32), np.array([3]), 3, 20)
        assert episodes.observation.dtype == np.uint8
        assert episodes.observation.shape == (1, 20, 3, 12, 12, 3)
    finally:
        for group in groups:
            group.close()
        runtime.close()


@pytest.mark.training
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(
            [
                "learner=td3",
                "learner.num_steps=4",
                "learner.learning_starts=8",
                "learner.batch_size=8",
                "learner.buffer_size=64",
            ],
            marks=pytest.mark.slow,
        ),
        ["learner=policy-gradient", "strategy=gpomdp", "strategy.batch=2", "learner.hidden=[8]"],
    ],
)
def test_every_learner_learns_from_images(settings, tmp_path):
    chosen = [*SMALL, f"environment={POINT_AT}", "budget.rounds=2", *settings]
    run = fedrax.train({}, chosen, out=tmp_path / "run", progress=False)
    assert np.isfinite(run.metrics()[-1]["return"])


@pytest.mark.training
def test_ppo_learns_which_side_is_bright(tmp_path):
    """Chance is 10 of 20."""
    settings = [*SMALL, f"environment={PICTURE}", "learner=ppo", "federation.agents=1", "environment.num_envs=4"]
    settings += ["learner.num_steps=32", "learner.learning_rate=1e-3", "budget.rounds=8", "evaluation.every=8"]
    run = fedrax.train({}, [*settings, "evaluation.episodes=5"], out=tmp_path / "run", progress=False)
    assert run.metrics()[-1]["return"] >= 19


def test_discrete_actions_from_images_have_logits():
    spaces = Spaces(image(12, 12, 3), Discrete(4))
    params = learners.build("ppo", {}).init_params(jax.random.key(0), spaces)
    assert params(jnp.zeros((5, 2, 12, 12, 3), jnp.uint8)).logits.shape == (5, 2, 4)
