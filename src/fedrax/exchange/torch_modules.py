"""Graphs as PyTorch: a state dictionary, and a module beside it that needs neither Fedrax nor JAX."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedrax.exchange.graph import FIXED, Graph, Node
from fedrax.exchange.torch_files import write_state
from fedrax.records.files import write_atomic

MODULE = '''"""A policy that Fedrax exported, in PyTorch alone: ``load()(observation)["action"]``.

All that is computed: {outputs}. Parameters can be trained on.
"""

# The weights are in {weights!a}, beside this file. Observations [n, ...] are
# {inputs}

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

SHAPES = {shapes}
FIXED = {fixed}


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        for name, (shape, dtype) in (SHAPES | FIXED).items():
            *path, leaf = name.split(".")
            module = self
            for part in path:
                # Not by add_module, which refuses what a module calls its own: half, train, type.
                module = module._modules.setdefault(part, nn.Module())
            tensor = torch.zeros(shape, dtype=getattr(torch, dtype))
            if name in FIXED:
                module.register_buffer(leaf, tensor)
            else:
                module.register_parameter(leaf, nn.Parameter(tensor))

    def forward(self, observation):
        p = {{**dict(self.named_parameters()), **dict(self.named_buffers())}}
{lines}
        return {{{returned}}}


def load(path=Path(__file__).with_name({weights!a})):
    policy = Policy()
    policy.load_state_dict(torch.load(path, weights_only=True))
    return policy
'''

EXPRESSIONS = {
    "Gemm": "F.linear({inputs})",
    "Relu": "F.relu({inputs})",
    "Tanh": "torch.tanh({inputs})",
    "Exp": "torch.exp({inputs})",
    "Round": "torch.round({inputs})",
    "Add": "{0} + {1}",
    "Sub": "{0} - {1}",
    "Mul": "{0} * {1}",
    "Div": "{0} / {1}",
    "Max": "torch.maximum({inputs})",
    "Min": "torch.minimum({inputs})",
    "Equal": "{0} == {1}",
    "Where": "torch.where({inputs})",
    "Expand": "{0}.expand_as({1})",
    "Gather": "F.embedding({1}, {0})",
    "ReduceSum": "{0}.sum({axis})",
    "ArgMax": "{0}.argmax(1)",
    "Flatten": "{0}.reshape({0}.shape[0], -1)",
    "Reshape": "{0}.reshape(-1, *{shape})",
    "Transpose": "{0}.permute{order}",
    "Concat": "torch.cat([{inputs}], {axis})",
    "Slice": "{0}.narrow({axis}, {start}, {length})",
    "Cast": "{0}.to(torch.{to})",
    "Conv": "F.conv2d({inputs}, stride={stride})",
    "MaxPool": "F.max_pool2d({0}, {kernel}, {stride})",
}


def module_path(path: Path) -> Path:
    """Where the module lies that goes with these weights."""
    return path.with_suffix(".py")


def write_torch_module(path: Path, graph: Graph) -> None:
    """Writes the arrays to ``path`` as a state dictionary, and a module that computes the graph with them beside it.

    Raises:
        FedraxError: PyTorch is not installed, or a file cannot be written.
    """
    write_state(path, graph.arrays)
    write_atomic(module_path(path), source(graph, path.name))


def source(graph: Graph, weights: str) -> str:
    """The module of a graph whose arrays are in a file of this name."""
    shapes = {name: (list(array.shape), array.dtype.name) for name, array in graph.arrays.items()}
    lines = [f"        {node.output} = {_expression(graph, node)}" for node in graph.nodes]
    returned = ", ".join(f"{name!a}: {_value(graph, value)}" for name, value in graph.outputs.items())
    inputs = ", ".join(
        f"{np.dtype(part.seen).name}{list(part.shape)} as {_value(graph, name)}" for name, part in graph.inputs.items()
    )
    return MODULE.format(
        weights=weights,
        inputs=inputs,
        outputs=", ".join(graph.outputs),
        shapes=_table({name: shape for name, shape in shapes.items() if not name.startswith(FIXED)}),
        fixed=_table({name: shape for name, shape in shapes.items() if name.startswith(FIXED)}),
        lines="\n".join(lines),
        returned=returned,
    )


def _table(shapes: dict[str, tuple[list[int], str]]) -> str:
    rows = "".join(f"    {name!a}: {shape},\n" for name, shape in shapes.items())
    return f"{{\n{rows}}}"


def _expression(graph: Graph, node: Node) -> str:
    values = [_value(graph, name) for name in node.inputs]
    given = dict(node.attributes)
    if node.operation == "Slice":
        given["length"] = given["stop"] - given["start"]
    return EXPRESSIONS[node.operation].format(*values, inputs=", ".join(values), **given)


def _value(graph: Graph, name: str) -> str:
    """What stands for a value in the module."""
    if name in graph.inputs:
        part = name.partition(".")[2]
        return f"observation[{part!a}]" if part else "observation"
    return f"p[{name!a}]" if name in graph.arrays else name
