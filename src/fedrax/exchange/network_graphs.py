"""Policies of Fedrax as graphs: encoders, layers, heads, and what becomes of what they emit.

Outputs are ``action``, the most likely one as the environment takes it, and the parameters of the distribution where
there is one: ``logits``, or ``mean`` and ``deviation`` of what is emitted (for SAC, before tanh).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np

from fedrax.environments.actions import Actions
from fedrax.environments.base import Discrete, Spaces
from fedrax.errors import FedraxError
from fedrax.exchange.graph import Graph
from fedrax.learners.actor_critic import TILES, ActorCritic, GaussianHead, GridTorso, MLPTorso, Torso
from fedrax.learners.encoders import (
    ArrayEncoder,
    Convolutions,
    Encoder,
    Flatten,
    Named,
    Words,
    channels_first,
)
from fedrax.learners.mlp import MLP
from fedrax.learners.moments import CLIP, Moments, Normaliser
from fedrax.learners.networks import Activation, Dense
from fedrax.learners.policies import BoundedGaussianPolicy, CategoricalPolicy, GaussianPolicy
from fedrax.learners.soft_networks import DiscreteTwinCritic, SoftTwinCritic
from fedrax.learners.twin_critic import TwinCritic

LARGEST_WHOLE = 2.0**53
"""Whole numbers up to here are exact in real numbers of 64 bits."""

Seen = Any
"""The name of a value, or of several by part, as observations are."""


def policy_graph(params: Any, spaces: Spaces, actions: Actions) -> Graph:
    """The graph of a policy.

    Args:
        params: a learner's networks, leaves ``[...]`` without axes of seeds and agents.
        spaces: what they see, and the environment's actions.
        actions: how what they emit, ``[batch, components]`` or a number of each row, becomes an action of the
            environment.

    Raises:
        FedraxError: networks of a plugin, or actions that real numbers of 64 bits cannot hold.
    """
    graph = Graph(spaces.observation)
    emitted = policy(params, graph, graph.observation)
    _act(graph, emitted, actions)
    return graph


@functools.singledispatch
def policy(network: Any, graph: Graph, seen: Seen) -> str:
    """Adds a policy's network; the value that it emits. The distribution's parameters are outputs.

    Raises:
        FedraxError: a network that is not registered here.
    """
    raise _unknown(network)


@policy.register
def _(network: CategoricalPolicy, graph: Graph, seen: Seen) -> str:
    hidden = _layers(graph, "layers", network.layers[:-1], encode(network.encoder, graph, "encoder", seen), network)
    logits = _dense(graph, f"layers.{len(network.layers) - 1}", network.layers[-1], hidden)
    return _categorical(graph, _activate(graph, network.squash, logits), _outputs(network.layers[-1]))


@policy.register
def _(network: GaussianPolicy, graph: Graph, seen: Seen) -> str:
    hidden = _layers(graph, "layers", network.layers[:-1], encode(network.encoder, graph, "encoder", seen), network)
    mean = _dense(graph, f"layers.{len(network.layers) - 1}", network.layers[-1], hidden)
    return _gaussian(graph, mean, _one_deviation(graph, "log_deviation", network.log_deviation, mean), network.layers)


@policy.register
def _(network: BoundedGaussianPolicy, graph: Graph, seen: Seen) -> str:
    hidden = _layers(graph, "trunk", network.trunk[:-1], encode(network.encoder, graph, "encoder", seen), network)
    hidden = _dense(graph, f"trunk.{len(network.trunk) - 1}", network.trunk[-1], hidden)
    mean = graph.add("Tanh", _dense(graph, "mean", network.mean, hidden))
    deviation = _clip(graph, _dense(graph, "deviation", network.deviation, hidden), -20.0, -2.0)
    deviation = graph.add("Tanh", graph.add("Exp", deviation))
    return _gaussian(graph, mean, deviation, (network.mean,))


@policy.register
def _(network: ActorCritic, graph: Graph, seen: Seen) -> str:
    features = torso(network.torso, graph, "torso", seen)
    if not isinstance(network.actor, GaussianHead):
        return _categorical(graph, _dense(graph, "actor", network.actor, features), _outputs(network.actor))
    mean = _dense(graph, "actor.mean", network.actor.mean, features)
    deviation = _one_deviation(graph, "actor.log_deviation", network.actor.log_deviation, mean)
    return _gaussian(graph, mean, deviation, (network.actor.mean,))


@policy.register
def _(network: TwinCritic, graph: Graph, seen: Seen) -> str:
    return _units(graph, network, graph.add("Tanh", _actor(graph, network, seen)))


@policy.register
def _(network: SoftTwinCritic, graph: Graph, seen: Seen) -> str:
    count, both = len(network.reach), _actor(graph, network, seen)
    mean = graph.add("Slice", both, axis=1, start=0, stop=count)
    logarithm = graph.add("Slice", both, axis=1, start=count, stop=2 * count)
    deviation = graph.add("Exp", _clip(graph, logarithm, *network.deviation_bounds))
    graph.yields("mean", mean, (count,))
    graph.yields("deviation", deviation, (count,))
    return _units(graph, network, graph.add("Tanh", mean))


@policy.register
def _(network: DiscreteTwinCritic, graph: Graph, seen: Seen) -> str:
    return _categorical(graph, _actor(graph, network, seen), _outputs(network.actor.layers[-1]))


@functools.singledispatch
def torso(network: Torso, graph: Graph, name: str, seen: Seen) -> str:
    """Adds a torso; the value of its features."""
    raise _unknown(network)


@torso.register
def _(network: MLPTorso, graph: Graph, name: str, seen: Seen) -> str:
    return _layers(
        graph, f"{name}.layers", network.layers, encode(network.encoder, graph, f"{name}.encoder", seen), network
    )


@torso.register
def _(network: GridTorso, graph: Graph, name: str, seen: Seen) -> str:
    image = _as_real(graph, seen[network.names[0]] if isinstance(seen, dict) else seen)
    if network.encoding == "one-hot":
        tiles = []
        for place, size in enumerate(TILES):
            kinds = graph.add("Slice", image, axis=3, start=place, stop=place + 1)
            same = graph.add("Equal", kinds, graph.constant(np.arange(size)))
            tiles.append(graph.add("Cast", same, to="float32"))
        image = graph.add("Concat", *tiles, axis=3)
    grid = graph.add("Transpose", image, order=(0, 3, 1, 2))
    for place, layer in enumerate(network.convolutions):
        # Blocks are [2, 2, channels] for every output.
        weight = np.asarray(layer.weight)
        kernel = weight.reshape(len(weight), 2, 2, -1).transpose(0, 3, 1, 2)
        grid = _convolution(graph, f"{name}.convolutions.{place}", layer, kernel, grid, stride=1)
        if network.pooling and place == 0:
            grid = graph.add("MaxPool", grid, kernel=2, stride=2)
        grid = _activate(graph, network.activation, grid)
    flat = graph.add("Flatten", graph.add("Transpose", grid, order=(0, 2, 3, 1)))
    flat = _dense(graph, f"{name}.dense", network.dense, flat)
    if isinstance(seen, dict) and network.words is not None:
        flat = graph.add("Add", flat, _words(graph, f"{name}.words", network.words, seen[network.names[1]]))
    return _activate(graph, network.activation, flat)


@functools.singledispatch
def encode(encoder: Encoder, graph: Graph, name: str, seen: Seen) -> str:
    """Adds an encoder; the value of its vectors."""
    raise _unknown(encoder)


@encode.register
def _(encoder: Flatten, graph: Graph, name: str, seen: Seen) -> str:
    return graph.add("Flatten", _real(graph, encoder, seen))


@encode.register
def _(encoder: Convolutions, graph: Graph, name: str, seen: Seen) -> str:
    image = _real(graph, encoder, seen)
    if not channels_first(encoder.shape):
        image = graph.add("Transpose", image, order=(0, 3, 1, 2))
    for place, (layer, (_, width, stride)) in enumerate(zip(encoder.layers, encoder.plan, strict=True)):
        # Tiles of blocks, then the pixels of each tile (fedrax.learners.encoders.patches).
        weight, tiles = np.asarray(layer.weight), width // stride
        kernel = weight.reshape(len(weight), tiles, tiles, stride, stride, -1).transpose(0, 5, 1, 3, 2, 4)
        kernel = kernel.reshape(len(weight), -1, width, width)
        image = _convolution(graph, f"{name}.layers.{place}", layer, kernel, image, stride=stride)
        image = graph.add("Relu", image)
    return graph.add("Flatten", graph.add("Transpose", image, order=(0, 2, 3, 1)))


@encode.register
def _(encoder: Words, graph: Graph, name: str, seen: Seen) -> str:
    return _words(graph, f"{name}.table", encoder.table, seen)


@encode.register
def _(encoder: Named, graph: Graph, name: str, seen: Seen) -> str:
    parts = [encode(encoder.parts[part], graph, f"{name}.parts.{part}", seen[part]) for part in sorted(encoder.parts)]
    return graph.add("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]


def _actor(graph: Graph, network: TwinCritic, seen: Seen) -> str:
    """The output of an off-policy learner's actor."""
    if isinstance(network.normaliser, Normaliser):
        seen = _normalised(graph, network.normaliser, seen)
    return _mlp(graph, "actor", network.actor, seen)


def _mlp(graph: Graph, name: str, network: MLP, seen: Seen) -> str:
    hidden = encode(network.encoder, graph, f"{name}.encoder", seen)
    hidden = _layers(graph, f"{name}.layers", network.layers[:-1], hidden, network)
    last = _dense(graph, f"{name}.layers.{len(network.layers) - 1}", network.layers[-1], hidden)
    return _activate(graph, network.activation, last) if network.activate_last else last


def _normalised(graph: Graph, normaliser: Normaliser, seen: Seen) -> Seen:
    """Observations less their mean, divided by their deviation, and clipped, where any was seen."""
    moments = normaliser.settled().shared

    def one(each: Moments | None, value: str, mask: str | None) -> str:
        if each is None:
            return value
        known = np.asarray(each.count) > 0
        centred = graph.add("Sub", value, graph.constant(np.where(known, each.mean, 0.0)))
        scaled = graph.add("Div", centred, graph.constant(each.deviation))
        bound = np.where(known, CLIP, np.inf)
        clipped = _clip(graph, scaled, -bound, bound)
        return clipped if mask is None else graph.add("Mul", clipped, graph.add("Cast", mask, to="float32"))

    if not isinstance(seen, dict):
        return one(moments, seen, None)
    return {name: one(normaliser.of(name, moments), x, seen.get(normaliser.mask(name))) for name, x in seen.items()}


def _units(graph: Graph, network: TwinCritic, shares: str) -> str:
    scaled = graph.add("Mul", shares, graph.constant(network.reach))
    return graph.add("Add", scaled, graph.constant(network.centre))


def _act(graph: Graph, emitted: str, actions: Actions) -> None:
    """Makes what is emitted the environment's action (:mod:`fedrax.environments.actions`), the output ``action``."""
    space = actions.space
    if isinstance(space, Discrete):
        number = graph.add("ArgMax", emitted)
        if space.start:
            number = graph.add("Add", number, graph.constant(space.start, np.int64))
        graph.yields("action", number, (), "int64")
        return
    kind = np.dtype(space.dtype).kind
    low, high = np.asarray(space.low, np.float64), np.asarray(space.high, np.float64)
    if kind != "f" and max(np.abs(low).max(), np.abs(high).max()) > LARGEST_WHOLE:
        raise FedraxError(
            f"actions are whole numbers up to {max(np.abs(low).max(), np.abs(high).max()):g}, and the format computes "
            f"with 64 bits, which are exact up to {LARGEST_WHOLE:.0f}; export to npz or safetensors instead"
        )
    # As the environment's own actions are made. Real numbers of 32 bits are as exact without, and few devices have 64.
    real = "float64" if space.dtype == "float64" or kind != "f" else "float32"
    value = emitted if real == "float32" else graph.add("Cast", emitted, to=real)
    if actions.scales:
        both, below, above, centre, reach, *_ = actions.parts
        share = graph.add("Tanh", value) if actions.bounds == "squash" else _clip(graph, value, -1.0, 1.0, real)
        # Components without two bounds are moved, and not scaled.
        value = share if both.all() else graph.add("Where", graph.constant(both, bool), share, value)
        moved = np.where(both, centre, 0.0) + np.where(below, low + 1.0, 0.0) + np.where(above, high - 1.0, 0.0)
        value = graph.add("Mul", value, graph.constant(np.where(both, reach, 1.0), real))
        value = graph.add("Add", value, graph.constant(moved, real))
    # Real numbers within bounds of their own type, as a bound of 64 bits is none of 32; whole ones before they wrap.
    if kind != "f":
        value = graph.add("Round", _clip(graph, value, low, high, real))
    if space.dtype != real:
        value = graph.add("Cast", value, to=space.dtype)
    if kind == "f" and actions.bounds != "none":
        value = _clip(graph, value, low, high, space.dtype)
    if len(space.shape) != 1:
        value = graph.add("Reshape", value, shape=space.shape)
    graph.yields("action", value, space.shape, space.dtype)


def _categorical(graph: Graph, logits: str, count: int) -> str:
    graph.yields("logits", logits, (count,))
    return logits


def _gaussian(graph: Graph, mean: str, deviation: str, layers: tuple[Dense, ...]) -> str:
    graph.yields("mean", mean, (_outputs(layers[-1]),))
    graph.yields("deviation", deviation, (_outputs(layers[-1]),))
    return mean


def _one_deviation(graph: Graph, name: str, logarithm: Any, mean: str) -> str:
    """The deviation that does not depend on the observation, for every row."""
    return graph.add("Expand", graph.add("Exp", graph.parameter(name, logarithm)), mean)


def _layers(graph: Graph, name: str, layers: tuple[Dense, ...], value: str, network: Any) -> str:
    for place, layer in enumerate(layers):
        value = _activate(graph, network.activation, _dense(graph, f"{name}.{place}", layer, value))
    return value


def _dense(graph: Graph, name: str, layer: Dense, value: str) -> str:
    weight = np.asarray(layer.weight)
    inputs = [graph.parameter(f"{name}.weight", weight if layer.by_output else weight.T)]
    if layer.bias is not None:
        inputs.append(graph.parameter(f"{name}.bias", layer.bias))
    return graph.add("Gemm", value, *inputs)


def _convolution(graph: Graph, name: str, layer: Dense, kernel: np.ndarray, image: str, *, stride: int) -> str:
    """``kernel`` is ``[out, in, height, width]``."""
    inputs = [graph.parameter(f"{name}.weight", kernel)]
    if layer.bias is not None:
        inputs.append(graph.parameter(f"{name}.bias", layer.bias))
    return graph.add("Conv", image, *inputs, kernel=kernel.shape[-1], stride=stride)


def _words(graph: Graph, name: str, table: jax.Array, tokens: str) -> str:
    """The sum of the vectors of all words in their places; the padding's are 0."""
    places, vocabulary, width = table.shape
    rows = np.array(table)
    rows[:, 0] = 0.0
    first = graph.constant(np.arange(places) * vocabulary, np.int64)
    numbers = graph.add("Add", graph.add("Cast", tokens, to="int64"), first)
    vectors = graph.add("Gather", graph.parameter(name, rows.reshape(-1, width)), numbers)
    return graph.add("ReduceSum", vectors, axis=1)


def _real(graph: Graph, encoder: ArrayEncoder, value: str) -> str:
    value = _as_real(graph, value)
    return value if encoder.highest == 1.0 else graph.add("Div", value, graph.constant(encoder.highest))


def _as_real(graph: Graph, value: str) -> str:
    """Observations as real numbers, whatever type the input has."""
    part = graph.inputs.get(value)
    return graph.add("Cast", value, to="float32") if part is not None and part.seen.kind != "f" else value


def _clip(graph: Graph, value: str, low: Any, high: Any, dtype: str = "float32") -> str:
    raised = graph.add("Max", value, graph.constant(low, dtype)) if np.isfinite(low).any() else value
    return graph.add("Min", raised, graph.constant(high, dtype)) if np.isfinite(high).any() else raised


def _activate(graph: Graph, name: Activation, value: str) -> str:
    return value if name == "linear" else graph.add({"relu": "Relu", "tanh": "Tanh"}[name], value)


def _outputs(layer: Dense) -> int:
    return int(layer.weight.shape[0 if layer.by_output else 1])


def _unknown(network: Any) -> FedraxError:
    return FedraxError(
        f"networks of {type(network).__name__} have no graph here: register one with "
        "fedrax.exchange.network_graphs, or export to npz or safetensors instead"
    )
