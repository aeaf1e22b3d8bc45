"""Graphs as files of ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from fedrax.errors import FedraxError
from fedrax.exchange.graph import Graph, Node
from fedrax.records.files import write_atomic

OPSET, IR = 17, 8
"""Versions of ONNX's operators and of its files: ONNX Runtime reads them from 1.12 on (2022)."""
BATCH = "batch"
"""The name of the first axis of inputs and outputs."""


def onnx_package() -> ModuleType:
    """The package.

    Raises:
        FedraxError: it is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise FedraxError(
            'files of ONNX need its package: pip install "fedrax[onnx]", or give another format'
        ) from None
    return onnx


def write_onnx(path: Path, graph: Graph, about: Mapping[str, str]) -> None:
    """Writes the graph, with these texts as the model's metadata.

    Raises:
        FedraxError: the package is not installed, or the file cannot be written.
    """
    onnx = onnx_package()
    helper, types = onnx.helper, onnx.helper.np_dtype_to_tensor_dtype
    arrays = dict(graph.arrays)
    nodes = [made for node in graph.nodes for made in _nodes(onnx, node, arrays)]
    # An output may be an input of other nodes too, and a value two outputs.
    nodes += [helper.make_node("Identity", [value], [name]) for name, value in graph.outputs.items()]
    inputs = [
        helper.make_tensor_value_info(name, types(part.seen), [BATCH, *part.shape])
        for name, part in graph.inputs.items()
    ]
    outputs = [
        helper.make_tensor_value_info(name, types(np.dtype(graph.types[name])), [BATCH, *shape])
        for name, shape in graph.shapes.items()
    ]
    initializers = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "policy", inputs, outputs, initializers),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
        producer_name="fedrax",
    )
    helper.set_model_props(model, dict(about))
    onnx.checker.check_model(model, full_check=True)
    write_atomic(path, model.SerializeToString())


def _nodes(onnx: ModuleType, node: Node, arrays: dict[str, np.ndarray]) -> list[Any]:
    """ONNX's nodes for one of a graph; what ONNX takes as inputs instead of attributes is added to the arrays."""
    given, inputs, before = dict(node.attributes), list(node.inputs), []

    def number(name: str, values: Any) -> str:
        arrays[f"{node.output}.{name}"] = np.asarray(values, np.int64)
        return f"{node.output}.{name}"

    attributes: dict[str, Any] = {}
    match node.operation:
        case "Gemm":
            attributes = {"transB": 1}
        case "Conv":
            attributes = {"kernel_shape": [given["kernel"]] * 2, "strides": [given["stride"]] * 2}
        case "MaxPool":
            attributes = {"kernel_shape": [given["kernel"]] * 2, "strides": [given["stride"]] * 2}
        case "Transpose":
            attributes = {"perm": list(given["order"])}
        case "Concat":
            attributes = {"axis": given["axis"]}
        case "Cast":
            attributes = {"to": onnx.helper.np_dtype_to_tensor_dtype(np.dtype(given["to"]))}
        case "ArgMax":
            attributes = {"axis": 1, "keepdims": 0}
        case "ReduceSum":
            inputs.append(number("axes", [given["axis"]]))
            attributes = {"keepdims": 0}
        case "Slice":
            inputs += [number(name, [given[name]]) for name in ("start", "stop", "axis")]
        case "Reshape":
            inputs.append(number("shape", [-1, *given["shape"]]))
        case "Expand":
            before = [onnx.helper.make_node("Shape", [inputs[1]], [f"{node.output}.shape"])]
            inputs[1] = f"{node.output}.shape"
    return [*before, onnx.helper.make_node(node.operation, inputs, [node.output], **attributes)]
