"""A policy as a graph of few operations, from which files of other programs are written.

Operations have ONNX's names and mean what ONNX's do; all values have the batch as their first axis.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from fedrax.environments.base import Box, Dict, Tokens

ALONE = "observation"
"""The input of observations that are one array; a part's is ``observation.NAME``."""
FIXED = "constant."
"""What names of arrays begin with that are no parameters of a network."""


@dataclasses.dataclass(frozen=True)
class Node:
    """One operation; ``inputs`` are names of inputs, of arrays, and of other nodes' outputs."""

    operation: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]


class Graph:
    """Nodes in the order in which they are computed."""

    def __init__(self, space: Box | Dict) -> None:
        """A graph of observations of this space, that computes nothing yet."""
        parts: dict[str, Box | Tokens] = {ALONE: space} if isinstance(space, Box) else {
            f"{ALONE}.{name}": part for name, part in space.parts
        }  # fmt: skip
        self.inputs = parts
        """What is given, by the input's name."""
        self.observation: str | dict[str, str] = (
            ALONE if isinstance(space, Box) else {name: f"{ALONE}.{name}" for name, _ in space.parts}
        )
        """The names of the inputs, in the form of an observation."""
        self.nodes: list[Node] = []
        self.arrays: dict[str, np.ndarray] = {}
        """Parameters of the networks by the path to them, and what else is fixed."""
        self.outputs: dict[str, str] = {}
        """What is computed, by the output's name."""
        self.shapes: dict[str, tuple[int, ...]] = {}
        """Of one row of each output."""
        self.types: dict[str, str] = {}
        """Of the numbers of each output."""

    def add(self, operation: str, *inputs: str, **attributes: Any) -> str:
        """One more operation; the name of its value."""
        output = f"x{len(self.nodes)}"
        self.nodes.append(Node(operation, inputs, output, attributes))
        return output

    def parameter(self, name: str, array: Any) -> str:
        """An array of the networks; its name."""
        self.arrays[name] = np.asarray(array, np.float32, order="C")
        return name

    def constant(self, array: Any, dtype: Any = np.float32) -> str:
        """An array that is no parameter; its name. Equal ones are kept once."""
        with np.errstate(over="ignore"):
            fixed = np.asarray(array, order="C").astype(dtype)
        for name, other in self.arrays.items():
            same = other.shape == fixed.shape and other.dtype == fixed.dtype and np.array_equal(other, fixed)
            if name.startswith(FIXED) and same:
                return name
        name = f"{FIXED}{sum(name.startswith(FIXED) for name in self.arrays)}"
        self.arrays[name] = fixed
        return name

    def yields(self, name: str, value: str, shape: tuple[int, ...], dtype: str = "float32") -> None:
        """Makes a value an output, of this shape in one row and this type."""
        self.outputs[name], self.shapes[name], self.types[name] = value, shape, dtype
