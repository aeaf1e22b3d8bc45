"""Exported graphs compute what the networks compute, by ONNX Runtime and by PyTorch, for every kind of network."""

import dataclasses
import importlib.util
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.environments.base import Box, Dict, Discrete, Spaces, Tokens
from fedrax.errors import FedraxError
from fedrax.exchange.network_graphs import policy_graph
from fedrax.exchange.onnx_files import write_onnx
from fedrax.exchange.torch_modules import write_torch_module
from fedrax.learners.base import learners
from fedrax.learners.encoders import GRID
from fedrax.learners.networks import Policy
from fedrax.learners.soft_networks import DiscreteTwinCritic, SoftTwinCritic

ROWS = 33


def box(shape, low=-math.inf, high=math.inf, dtype="float32"):
    size = math.prod(shape)
    return Box(shape, (low,) * size, (high,) * size, dtype)


VECTOR, TWO = box((5,)), box((2,), -2.0, 3.0)
VIEW = box(GRID, 0.0, 255.0)
SENTENCE = Tokens(6, 9)
GOALS = Dict.of({"observation": box((4,)), "achieved_goal": box((2,)), "desired_goal": box((2,))})
MASKED = Dict.of({"observation": VECTOR, "observation_mask": box((5,), 0.0, 1.0, "bool"), "count": box((3,))})
MIXED = Dict.of({"image": box((12, 10, 3), 0.0, 255.0, "uint8"), "mission": SENTENCE, "speed": box(())})
STRANGE = Dict.of({name: box((2,)) for name in ("half", "train", "type", "\U0001f600", 'a"""\\')})
"""What modules of PyTorch call their own, and what is no text of Python as it stands."""
ODD = Box((2, 2), (-1.0, -math.inf, 0.0, -math.inf), (1.0, 5.0, math.inf, math.inf), "float64")

CASES = {
    "policy gradient, discrete": ("policy-gradient", Spaces(VECTOR, Discrete(3)), {"logits": "tanh"}),
    "discrete from 4 on": ("policy-gradient", Spaces(VECTOR, Discrete(3, start=4)), {"activation": "relu"}),
    "policy gradient, real": ("policy-gradient", Spaces(VECTOR, TWO), {}),
    "bounded deviation": ("policy-gradient", Spaces(VECTOR, TWO), {"gaussian": "bounded"}),
    "no hidden layer": ("policy-gradient", Spaces(VECTOR, TWO), {"hidden": []}),
    "actions as they are": ("policy-gradient", Spaces(VECTOR, TWO), {"action_bounds": "none"}),
    "one bound or none": ("ppo", Spaces(VECTOR, ODD), {}),
    "one bound or none, squashed": ("ppo", Spaces(VECTOR, ODD), {"action_bounds": "squash"}),
    "whole numbers": ("ppo", Spaces(VECTOR, box((3,), -4, 9, "int16")), {"initial_deviation": 1.0}),
    "ppo, discrete": ("ppo", Spaces(VECTOR, Discrete(4)), {}),
    "ppo, real": ("ppo", Spaces(VECTOR, TWO), {"action_bounds": "squash"}),
    "images": ("ppo", Spaces(box((40, 44, 3), 0.0, 255.0, "uint8"), Discrete(4)), {}),
    "images, channels first": ("ppo", Spaces(box((4, 41, 36), 0.0, 255.0, "uint8"), Discrete(4)), {}),
    "images as numbers": ("ppo", Spaces(box((6, 6, 3), 0.0, 255.0, "uint8"), Discrete(4)), {}),
    "parts": ("policy-gradient", Spaces(MIXED, Discrete(4)), {}),
    "grid": ("ppo", Spaces(VIEW, Discrete(7)), {}),
    "grid of bytes": ("ppo", Spaces(box(GRID, 0.0, 255.0, "uint8"), Discrete(7)), {}),
    "grid of bytes, as in the reference": (
        "ppo",
        Spaces(box(GRID, 0.0, 255.0, "uint8"), Discrete(7)),
        {"grid_pooling": False, "encoding": "raw"},
    ),
    "grid and words": ("ppo", Spaces(Dict.of({"image": VIEW, "mission": SENTENCE}), Discrete(7)), {}),
    "grid as in the reference": ("ppo", Spaces(VIEW, Discrete(7)), {"grid_pooling": False, "encoding": "raw"}),
    "double bounds": ("ppo", Spaces(VECTOR, box((2,), -0.1, 0.1, "float64")), {"activation": "relu"}),
    "bounds of half precision": ("ppo", Spaces(VECTOR, box((2,), -0.1, 0.1, "float16")), {"activation": "relu"}),
    "parts with names of a module": ("policy-gradient", Spaces(STRANGE, Discrete(4)), {}),
    "td3": ("td3", Spaces(VECTOR, TWO), {}),
    "td3 of goals, normalised": ("td3", Spaces(GOALS, TWO), {"normalise": True}),
    "td3 of images": ("td3", Spaces(box((36, 36, 3), 0.0, 255.0, "uint8"), TWO), {}),
    "sac": ("sac", Spaces(VECTOR, TWO), {}),
    "sac of tasks, normalised": ("sac", Spaces(MASKED, TWO), {"normalise": True}),
    "sac, discrete": ("sac-discrete", Spaces(VECTOR, Discrete(5)), {}),
}
LONG = {"images, channels first", "td3 of images", "td3 of goals, normalised", "sac of tasks, normalised"}
"""Whose networks take seconds to compile, and whose parts others have too."""
EACH = [pytest.param(name, marks=[pytest.mark.training] if name in LONG else []) for name in CASES]


def observations(space, generator):
    def one(part):
        shape = (ROWS, *part.shape)
        if isinstance(part, Tokens):
            return generator.integers(0, part.vocabulary, shape, np.int32)
        if part.shape == GRID:
            return np.stack([generator.integers(0, n, shape[:-1]) for n in (11, 6, 4)], -1).astype(part.seen)
        if part.dtype == "uint8":
            return generator.integers(0, 256, shape, np.uint8)
        if part.dtype == "bool":
            return generator.integers(0, 2, shape).astype(np.float32)
        return generator.normal(size=shape).astype(np.float32)

    return jax.tree.map(one, space.tree)


def made(name):
    """A learner, networks of numbers none of which is 0, their graph, and observations."""
    kind, spaces, options = CASES[name]
    learner, generator = learners.build(kind, options), np.random.default_rng(0)
    params = learner.init_params(jax.random.key(0), spaces)
    # As large as they are, and biases as well: sums of many numbers stay as exact as 32 bits are.
    scales = jax.tree.map(lambda x: max(float(np.std(x)), 0.1) if x.ndim < 2 else float(np.std(x)), params)
    params = jax.tree.map(lambda x, s: x + generator.normal(0, s, x.shape).astype(x.dtype), params, scales)
    seen = observations(spaces.observation, generator)
    if learner.normalises:
        fresh = learner.init_params(jax.random.key(0), spaces).normaliser
        observed = fresh.observe(jax.tree.map(jnp.asarray, seen), jnp.ones(ROWS, bool))
        if "count" in seen:  # Never observed, and so seen as it is.
            observed = dataclasses.replace(observed, own={**observed.own, "count": fresh.own["count"]})
        params = dataclasses.replace(params, normaliser=observed)
    return learner, params, spaces, policy_graph(params, spaces, learner.actions(spaces)), seen


def wanted(learner, params, spaces, seen):
    """What the networks themselves say."""
    seen = jax.tree.map(jnp.asarray, seen)
    action = learner.actions(spaces).host(np.asarray(learner.act(params, seen, None)))
    if isinstance(spaces.action, Discrete):
        action = action + spaces.action.start
    said = {"action": action}
    stochastic = isinstance(params, (Policy, SoftTwinCritic, DiscreteTwinCritic))
    distribution = (params if isinstance(params, Policy) else params.policy)(seen) if stochastic else None
    for field in ("logits", "mean", "deviation"):
        if hasattr(distribution, field):
            said[field] = np.asarray(getattr(distribution, field))
    return said


def check(found, expected):
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].shape == array.shape, name
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5, err_msg=name)


def is_within(action, space):
    """Whether actions are in a space, in its own type."""
    low, high = (np.reshape(np.asarray(bound, space.dtype), space.shape) for bound in (space.low, space.high))
    return action.dtype == space.dtype and bool(((action >= low) & (action <= high)).all())


def far(seen):
    """Observations for which actions lie on the bounds."""
    return jax.tree.map(lambda x: x * 1000 if x.dtype == np.float32 else x, seen)


@pytest.mark.parametrize("name", EACH)
def test_onnx_runtime_computes_what_the_networks_do(name, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    learner, params, spaces, graph, seen = made(name)
    path = tmp_path / "policy.onnx"
    write_onnx(path, graph, {"format": "fedrax-policy-1"})
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    parts = {f"observation.{part}": x for part, x in seen.items()} if isinstance(seen, dict) else {"observation": seen}
    for rows in (ROWS, 1):
        given = {part: x[:rows] for part, x in parts.items()}
        found = dict(zip((o.name for o in session.get_outputs()), session.run(None, given), strict=True))
        check(found, wanted(learner, params, spaces, jax.tree.map(lambda x, n=rows: x[:n], seen)))
    if isinstance(spaces.action, Box) and learner.actions(spaces).bounds != "none":
        given = {part: far(x) for part, x in parts.items()}
        assert is_within(session.run(["action"], given)[0], spaces.action)
    assert session.get_modelmeta().custom_metadata_map == {"format": "fedrax-policy-1"}


@pytest.mark.parametrize("name", EACH)
def test_pytorch_computes_what_the_networks_do(name, tmp_path):
    torch = pytest.importorskip("torch")
    learner, params, spaces, graph, seen = made(name)
    write_torch_module(tmp_path / "policy.pt", graph)
    described = importlib.util.spec_from_file_location("exported_policy", tmp_path / "policy.py")
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    policy = module.load().train()
    found = policy(jax.tree.map(torch.from_numpy, seen))
    check({name: x.detach().numpy() for name, x in found.items()}, wanted(learner, params, spaces, seen))
    if isinstance(spaces.action, Box) and learner.actions(spaces).bounds != "none":
        assert is_within(policy(jax.tree.map(torch.from_numpy, far(seen)))["action"].detach().numpy(), spaces.action)
    assert set(policy.state_dict()) == set(graph.arrays)
    if "mean" in found or "logits" in found:
        found["mean" if "mean" in found else "logits"].sum().backward()
        assert any(p.grad is not None for p in policy.parameters())


FAR = {
    "64 bits": box((2,), 1e6, 1e6 + 0.5, "float64"),
    "64 bits, one bound": Box((2,), (1e6, -math.inf), (math.inf, -1e6), "float64"),
    "whole numbers": box((2,), 0, 2**24, "int32"),
    "whole numbers of 64 bits": box((2,), -(2**50), 2**50, "int64"),
}
"""Actions that arithmetic with 32 bits would miss by more than they differ."""


@pytest.mark.parametrize(
    ("name", "bounds"),
    [*((name, bounds) for name in FAR for bounds in ("clip", "squash")), ("64 bits", "none")],
)
@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_actions_of_64_bits_are_exact(name, bounds, format, tmp_path):
    """What the networks emit has 32 bits; what becomes of it is what the run's own policy makes of it."""
    space = FAR[name]
    learner = learners.build("policy-gradient", {"action_bounds": bounds, "hidden": [4]})
    spaces = Spaces(VECTOR, space)
    graph = policy_graph(learner.init_params(jax.random.key(0), spaces), spaces, learner.actions(spaces))
    seen = observations(VECTOR, np.random.default_rng(0))
    if format == "onnx":
        pytest.importorskip("onnx")
        runtime = pytest.importorskip("onnxruntime")
        write_onnx(tmp_path / "policy.onnx", graph, {})
        session = runtime.InferenceSession(tmp_path / "policy.onnx", providers=["CPUExecutionProvider"])
        mean, action = session.run(["mean", "action"], {"observation": seen})
    else:
        torch = pytest.importorskip("torch")
        write_torch_module(tmp_path / "policy.pt", graph)
        described = importlib.util.spec_from_file_location("exported_exact", tmp_path / "policy.py")
        module = importlib.util.module_from_spec(described)
        described.loader.exec_module(module)
        found = module.load()(torch.from_numpy(seen))
        mean, action = (found[part].detach().numpy() for part in ("mean", "action"))
    expected = learner.actions(spaces).host(mean)
    assert action.dtype == expected.dtype == space.dtype
    assert len(np.unique(expected)) > ROWS
    np.testing.assert_allclose(action, expected, rtol=1e-15, atol=0)


def test_whole_numbers_that_64_bits_cannot_tell_apart_are_refused():
    learner, spaces = learners.build("policy-gradient", {}), Spaces(VECTOR, box((1,), 0, 2**60, "int64"))
    params = learner.init_params(jax.random.key(0), spaces)
    with pytest.raises(FedraxError, match=r"exact up to 9007199254740992; export to npz or safetensors instead"):
        policy_graph(params, spaces, learner.actions(spaces))
