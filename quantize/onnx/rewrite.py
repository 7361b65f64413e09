"""Replace one node of an onnx_ir graph by its quantized twin; names of nodes and outputs stay."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.scheme import BLOCK_SIZE
from .blocks import Blocks, eight_bit
from .storage import initializer

_MIDDLE = 128
"""The unsigned byte that stands for zero."""


def matmul_blocks(graph: Any, node: Any, stem: str, blocks: Blocks) -> None:
    """Let `node` (a MatMul) multiply by `blocks`; its constants are named after `stem`."""
    import onnx_ir as ir

    packed = initializer(graph, f"{stem}.codes", blocks.packed)
    scales = initializer(graph, f"{stem}.scales", blocks.scales)
    swap(graph, node, [ir.node("MatMulNBits", [node.inputs[0], packed, scales], attributes=blocks.attributes(),
                               domain="com.microsoft", name=node.name)])


def gather_blocks(graph: Any, node: Any, stem: str, table: NDArray[np.float32]) -> None:
    """Let `node` (a Gather of rows of `table` [rows, columns]) read 8-bit blocks and dequantize what it reads.

    In standard operators, at 2 µs a token: browsers' onnxruntime has no GatherBlockQuantized, and before version 1.22
    it takes no 8 bits.
    """
    import onnx_ir as ir

    blocks = eight_bit(table)
    codes = initializer(graph, f"{stem}.table", blocks.packed)
    scales = initializer(graph, f"{stem}.table.scales", blocks.scales[..., None])
    one = initializer(graph, "table.one", np.array(1, np.float32))
    middle = initializer(graph, "table.middle", np.array(_MIDDLE, np.uint8))
    ids = node.inputs[1]
    flat = initializer(graph, f"table.{len(ids.shape)}.flat", np.array([0] * len(ids.shape) + [-1], np.int64))
    rows = ir.node("Gather", [codes, ids], name=f"{node.name}/codes")
    steps = ir.node("Gather", [scales, ids], name=f"{node.name}/scales")
    whole = ir.node("DequantizeLinear", [rows.outputs[0], one, middle], name=f"{node.name}/whole")
    scaled = ir.node("Mul", [whole.outputs[0], steps.outputs[0]], name=f"{node.name}/scaled")
    new = [rows, steps, whole, scaled, ir.node("Reshape", [scaled.outputs[0], flat], name=f"{node.name}/flat")]
    if blocks.columns % BLOCK_SIZE:
        ends = [initializer(graph, f"{stem}.table.{name}", np.array([value], np.int64))
                for name, value in (("start", 0), ("end", blocks.columns), ("axis", -1))]
        new.append(ir.node("Slice", [new[-1].outputs[0], *ends], name=f"{node.name}/cut"))
    swap(graph, node, new)


def matmul_int8(graph: Any, node: Any, stem: str, weight: NDArray[np.float32], bias: Any = None) -> None:
    """Let `node` multiply by `weight` [in, out] in 8 bits, one scale a column; activations are quantized as they come.

    Weights are symmetric in -127..127 and stored unsigned, 128 as their zero. Signed ones are multiplied in 16 bits
    on x86 without VNNI, which overflow: sums came out wrong by up to half a standard deviation, and a file answered
    otherwise on another processor. Exact products take 1.06 to 1.3 times as long there. Activations take onnxruntime's
    dynamic uint8 range. `bias` is added in float.
    """
    import onnx_ir as ir

    scale = np.maximum(np.abs(weight).max(axis=0), np.finfo(np.float32).tiny) / np.float32(127)
    codes = initializer(graph, f"{stem}.codes", (np.rint(weight / scale) + _MIDDLE).astype(np.uint8))
    zeros = initializer(graph, f"{stem}.zeros", np.full(weight.shape[1], _MIDDLE, np.uint8))
    scales = initializer(graph, f"{stem}.scales", scale.astype(np.float32))
    source = node.inputs[0]
    quantized = next((use for use, _ in source.uses() if use.op_type == "DynamicQuantizeLinear"), None)
    new = []
    if quantized is None:
        quantized = ir.node("DynamicQuantizeLinear", [source], num_outputs=3, name=f"{node.name}/quantize")
        new.append(quantized)
    values, step, zero = quantized.outputs
    product = ir.node("MatMulInteger", [values, codes, zero, zeros], name=f"{node.name}/integer")
    wide = ir.node("Cast", [product.outputs[0]], attributes={"to": ir.DataType.FLOAT.value}, name=f"{node.name}/float")
    both = ir.node("Mul", [step, scales], name=f"{node.name}/scale")
    last = ir.node("Mul", [wide.outputs[0], both.outputs[0]], name=f"{node.name}/rescale")
    new += [product, wide, both, last]
    if bias is not None:
        new.append(ir.node("Add", [last.outputs[0], bias], name=f"{node.name}/bias"))
    swap(graph, node, new)


def swap(graph: Any, node: Any, replacement: list[Any]) -> None:
    """Put `replacement` in the place of `node`; the last one's output takes over the name and the uses."""
    import onnx_ir as ir

    ir.convenience.replace_nodes_and_values(
        graph, node, [node], replacement, [node.outputs[0]], [replacement[-1].outputs[0]])
