"""A decoder graph in half precision, as WebGPU computes: weights, scales, cache and activations in float16."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...models.errors import ArtifactError
from .rotation import PREFIX
from .storage import constant


def halve(model: Any) -> None:
    """Turn every float32 of an onnx_ir graph, in place, into a float16, but for the logits, which clients read as
    float32, and the angles of the rotation: float16 cannot count positions above 2,048.

    4-bit codes keep their very numbers, since their scales are float16 numbers already. Raises ArtifactError for a
    constant that float16 cannot hold.
    """
    import onnx_ir as ir

    graph = model.graph
    for name, value in graph.initializers.items():
        array = constant(value)
        if array is None or array.dtype != np.float32 or name.startswith(PREFIX):
            continue
        value.const_value = ir.tensor(_half(name, array), name=name)
        value.dtype = ir.DataType.FLOAT16
    for node in graph.all_nodes():
        kept = node.attributes.get("to")
        if node.op_type == "Cast" and kept.as_int() == ir.DataType.FLOAT:
            node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT16.value)
        held = node.attributes.get("value")
        if held is not None and held.type == ir.AttributeType.TENSOR and held.value.dtype == ir.DataType.FLOAT:
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(_half(node.name, held.value.numpy())))
    for value in (*graph.inputs, *graph.outputs):
        if value.dtype == ir.DataType.FLOAT:
            value.dtype = ir.DataType.FLOAT16
    _narrow_tables(graph)
    (place,) = (index for index, value in enumerate(graph.outputs) if value.name == "logits")
    logits = graph.outputs[place]
    wide = ir.node("Cast", [logits], attributes={"to": ir.DataType.FLOAT.value}, name="/logits/Cast")
    wide.outputs[0].shape, wide.outputs[0].dtype = logits.shape, ir.DataType.FLOAT
    graph.append(wide)
    graph.outputs[place] = wide.outputs[0]
    logits.name, wide.outputs[0].name = "logits_half", "logits"


def _narrow_tables(graph: Any) -> None:
    """Cast what the computed rotation gives to the other nodes."""
    import onnx_ir as ir

    for node in [node for node in graph if (node.name or "").startswith(PREFIX)]:
        readers = [(use, index) for use, index in node.outputs[0].uses() if not use.name.startswith(PREFIX)]
        if readers:
            narrow = ir.node("Cast", [node.outputs[0]], attributes={"to": ir.DataType.FLOAT16.value},
                             name=f"{node.name}/half")
            graph.insert_after(node, narrow)
            for use, index in readers:
                use.replace_input_with(index, narrow.outputs[0])


def _half(name: str, array: Any) -> Any:
    with np.errstate(over="ignore"):  # reported below, by name
        half = array.astype(np.float16)
    if np.isinf(half).any() and np.isfinite(array).all():
        raise ArtifactError(f"{name} holds {np.abs(array).max():.6g}, more than float16 can",
                            "export it as onnx:int4, whose activations are float32")
    return half
