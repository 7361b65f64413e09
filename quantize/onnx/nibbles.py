"""The same decoder for engines that multiply by blocks of 4 bits alone: onnxruntime before 1.22, as transformers.js 3
brings it.

A byte is two numbers of 4 bits, and so the very bytes of an 8-bit matrix are a 4-bit one of twice the columns:
code = low + 16 high. Multiplied in blocks of 64 by an input of x, 16 x, x, 16 x, … it gives the sums of
scale (code - 136) x, which lack 8 times the sums of scale x to the 8-bit product. So both graphs share one file of
weights, and the second one takes 1.3 times as long for such a product.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...models.scheme import BLOCK_SIZE
from .rewrite import swap
from .storage import initializer

FLOAT32 = 1
"""The accuracy level that does not round inputs to 8 bits: 16 x would set the step for x."""


def needed(model: Any) -> bool:
    """Whether a graph multiplies by blocks of 8 bits."""
    return any(_reads_bytes(node) for node in model.graph)


def twin(model: Any) -> Any:
    """A copy of an onnx_ir model whose 8-bit products are made of 4-bit ones, over the same weights."""
    copy = model.clone()
    inputs: dict[str, tuple[Any, Any]] = {}  # layers that share an input share its halves
    for node in list(copy.graph):
        if _reads_bytes(node):
            source = node.inputs[0]
            if source.name not in inputs:
                inputs[source.name] = _halves(copy.graph, node)
            _multiply(copy.graph, node, *inputs[source.name])
    return copy


def _reads_bytes(node: Any) -> bool:
    return bool(node.op_type == "MatMulNBits" and node.attributes["bits"].as_int() == 8)


def _halves(graph: Any, node: Any) -> tuple[Any, Any]:
    """The input [batch, tokens, K] of a product as [batch, tokens, 2 K], and 8 times the sums of its blocks."""
    import onnx_ir as ir

    kind, columns = node.inputs[2].const_value.dtype.numpy(), node.attributes["K"].as_int()
    axis = initializer(graph, "nibbles.axis", np.array([-1], np.int64))
    weights = initializer(graph, "nibbles.weights", np.array([1, 16], kind))
    flat = initializer(graph, "nibbles.flat", np.array([0, 0, -1], np.int64))
    blocks = initializer(graph, "nibbles.blocks", np.array([0, 0, -1, BLOCK_SIZE], np.int64))
    eight = initializer(graph, "nibbles.eight", np.array(8, kind))
    stem, source, new = f"{node.name}/nibbles", node.inputs[0], []
    if columns % BLOCK_SIZE:
        ends = initializer(graph, f"nibbles.pad.{columns}", np.array([0] * 5 + [-columns % BLOCK_SIZE], np.int64))
        new.append(ir.node("Pad", [source, ends], name=f"{stem}/pad"))
        source = new[-1].outputs[0]
    apart = ir.node("Unsqueeze", [source, axis], name=f"{stem}/apart")
    both = ir.node("Mul", [apart.outputs[0], weights], name=f"{stem}/both")
    wide = ir.node("Reshape", [both.outputs[0], flat], name=f"{stem}/wide")
    grouped = ir.node("Reshape", [source, blocks], name=f"{stem}/blocks")
    sums = ir.node("ReduceSum", [grouped.outputs[0], axis], attributes={"keepdims": 0}, name=f"{stem}/sums")
    lacking = ir.node("Mul", [sums.outputs[0], eight], name=f"{stem}/lacking")
    graph.insert_before(node, [*new, apart, both, wide, grouped, sums, lacking])
    return wide.outputs[0], lacking.outputs[0]


def _multiply(graph: Any, node: Any, wide: Any, lacking: Any) -> None:
    import onnx_ir as ir

    _, codes, scales = node.inputs
    blocks = -(-node.attributes["K"].as_int() // BLOCK_SIZE)
    attributes = {name: attribute.as_int() for name, attribute in node.attributes.items()} | {
        "bits": 4, "K": 2 * BLOCK_SIZE * blocks, "block_size": 2 * BLOCK_SIZE, "accuracy_level": FLOAT32}
    product = ir.node("MatMulNBits", [wide, codes, scales], attributes=attributes, domain="com.microsoft",
                      name=node.name)
    turned = ir.node("Transpose", [scales], attributes={"perm": [1, 0]}, name=f"{node.name}/scales")
    rest = ir.node("MatMul", [lacking, turned.outputs[0]], name=f"{node.name}/rest")
    swap(graph, node, [product, turned, rest,
                       ir.node("Add", [product.outputs[0], rest.outputs[0]], name=f"{node.name}/sum")])
