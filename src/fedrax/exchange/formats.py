"""The formats that a policy can be exported to: one function each, registered by name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

import fedrax
from fedrax.config import Config
from fedrax.environments.base import Box, Dict, Discrete, Spaces, Tokens
from fedrax.environments.minigrid import VOCABULARY, is_minigrid
from fedrax.errors import FedraxError
from fedrax.exchange.achieved import achieved_at
from fedrax.exchange.graph import Graph
from fedrax.exchange.network_graphs import policy_graph
from fedrax.exchange.onnx_files import write_onnx
from fedrax.exchange.td3_her import from_params
from fedrax.exchange.torch_files import write_torch
from fedrax.exchange.torch_modules import write_torch_module
from fedrax.learners.networks import Dense
from fedrax.parts import NORMALISER, put_parts
from fedrax.records.array_files import save_arrays
from fedrax.records.checkpoint import EXPORTED
from fedrax.records.files import replacing
from fedrax.runtime.draws import task_ids
from fedrax.strategies.statistics import normaliser_of


@dataclasses.dataclass(frozen=True)
class Exported:
    """One policy, and where it is from."""

    params: PyTree
    """All of the learner's networks, without axes of seeds and agents."""
    spaces: Spaces
    config: Config
    seed: int
    agent: int | None
    """Whose it is; None where all agents share it."""
    policy: str
    """``last``, ``best``, or after how many rounds."""


@dataclasses.dataclass(frozen=True)
class Format:
    """How a policy is written."""

    suffix: str
    meaning: str
    write: Callable[[Exported, Path], None]
    beside: str | None = None
    """The suffix of a second file, where one is written beside the first."""

    def files(self, path: Path) -> tuple[Path, ...]:
        """What is written.

        Raises:
            FedraxError: the second file would be the first.
        """
        if self.beside is None:
            return (path,)
        if path.suffix == self.beside:
            raise FedraxError(f"{path} is where a file beside it is written; choose a name that ends in {self.suffix}")
        return path, path.with_suffix(self.beside)


FORMATS: dict[str, Format] = {}


def export_format(
    name: str, suffix: str, meaning: str, beside: str | None = None
) -> Callable[..., Callable[[Exported, Path], None]]:
    """Decorator of the function that writes the format ``name``."""

    def add(write: Callable[[Exported, Path], None]) -> Callable[[Exported, Path], None]:
        FORMATS[name] = Format(suffix, meaning, write, beside)
        return write

    return add


@export_format("pth", ".pth", "PyTorch, as the TD3+HER reference's server saves a model: {'actor': ..., 'critic': ...}")
def write_pth(exported: Exported, path: Path) -> None:
    """Raises :class:`~fedrax.errors.FedraxError` for networks that the reference does not have."""
    config = exported.config
    networks = from_params(exported.params, exported.spaces, config.environment.id, lambda: achieved_at(config))
    write_torch(path, {"actor": networks.actor, "critic": networks.critic})


@export_format("safetensors", ".safetensors", "every array of the networks by name, and metadata as JSON")
def write_safetensors(exported: Exported, path: Path) -> None:
    """A layer's weights are ``[out, in]``, as in PyTorch, however they are stored here.

    A name is the path to an array, ``actor.layers.0.weight``; metadata are texts (:func:`described`).
    """
    save_arrays(path, dict(named_arrays(exported.params)), described(exported))


@export_format("npz", ".npz", "NumPy: every array of the networks by name, and metadata as one JSON text, about")
def write_npz(exported: Exported, path: Path) -> None:
    """As :func:`write_safetensors`, in NumPy's own format; nothing in it is pickled."""
    arrays = dict(named_arrays(exported.params))
    about = np.array(json.dumps({"format": EXPORTED, **facts(exported)}))
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays, about=about)


@export_format("onnx", ".onnx", "ONNX: from observation to action and to the distribution's parameters")
def write_onnx_graph(exported: Exported, path: Path) -> None:
    """Raises :class:`~fedrax.errors.FedraxError` for networks that have no graph, or without the package."""
    write_onnx(path, graph_of(exported), described(exported))


@export_format("torch", ".pt", "PyTorch: a state dictionary, and a module beside it that needs PyTorch alone", ".py")
def write_module(exported: Exported, path: Path) -> None:
    """Raises :class:`~fedrax.errors.FedraxError` for networks that have no graph, or without PyTorch."""
    write_torch_module(path, graph_of(exported))


def graph_of(exported: Exported) -> Graph:
    """The policy as a graph."""
    learner = exported.config.component("learner")
    return policy_graph(exported.params, exported.spaces, learner.actions(exported.spaces))


def named_arrays(params: PyTree) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of networks by name: weights ``[out, in]``, and by what observations are normalised."""
    normaliser = normaliser_of(params)
    if normaliser is not None:
        params = put_parts(params, {NORMALISER: normaliser.scales()})

    def by_output(layer: Any) -> Any:
        if not isinstance(layer, Dense) or layer.by_output:
            return layer
        return eqx.tree_at(lambda layer: layer.weight, layer, layer.weight.T)

    turned = jax.tree.map(by_output, params, is_leaf=lambda part: isinstance(part, Dense))
    for path, leaf in jax.tree_util.tree_leaves_with_path(turned):
        yield ".".join(map(_key, path)), np.asarray(leaf, order="C")


def _key(key: Any) -> str:
    """One step of a path: a field, a place, or a name."""
    return str(next(getattr(key, kind) for kind in ("name", "idx", "key") if hasattr(key, kind)))


def described(exported: Exported) -> dict[str, str]:
    """What a reader needs to use the arrays, each as JSON.

    ``observation``: the parts in the order in which the first layer sees them, with shape and type; a Box alone is the
    part ``observation``; of sentences, how many words there are (``vocabulary``) and which. ``action``: lowest and
    highest numbers, or how many there are. ``learner``: its options. ``greedy``: whether the run was evaluated with the
    most likely actions.
    """
    return {"format": EXPORTED, **{name: json.dumps(fact) for name, fact in facts(exported).items()}}


def facts(exported: Exported) -> dict[str, Any]:
    """What :func:`described` says, as it is."""
    config, tasks = exported.config, task_ids(exported.config)
    learner = {key: value for key, value in config.learner.items() if key != "initial"}
    return {
        "fedrax": fedrax.__version__,
        "environment": config.environment.id if exported.agent is None else tasks[exported.agent % len(tasks)],
        "tasks": list(config.environment.tasks),
        "seed": exported.seed,
        "agent": exported.agent,
        "policy": exported.policy,
        "learner": learner,
        "greedy": config.evaluation.greedy,
        "observation": _parts(exported.spaces.observation, config.environment.id),
        "action": _action(exported.spaces.action),
    }


def _parts(space: Box | Dict, environment: str) -> list[dict[str, Any]]:
    parts: list[tuple[str, Box | Tokens]] = sorted(space.parts) if isinstance(space, Dict) else [("observation", space)]
    return [
        {"name": name, "shape": list(part.shape), "type": np.dtype(part.seen).name, **_words(part, environment)}
        for name, part in parts
    ]


def _words(part: Box | Tokens, environment: str) -> dict[str, Any]:
    """Of a sentence, how many words there are, and which where they are MiniGrid's."""
    if not isinstance(part, Tokens):
        return {}
    known = {"words": list(VOCABULARY[: part.vocabulary])} if is_minigrid(environment) else {}
    return {"vocabulary": part.vocabulary, **known}


def _action(space: Box | Discrete) -> dict[str, Any]:
    if isinstance(space, Discrete):
        return {"count": space.n, "first": space.start}
    return {"shape": list(space.shape), "low": [float(x) for x in space.low], "high": [float(x) for x in space.high]}
