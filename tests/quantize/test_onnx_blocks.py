"""Blocks of 32 weights in onnxruntime's kernels: the numbers they multiply by are the ones the codes stand for."""

from __future__ import annotations

import numpy as np
import pytest
from edgestill.quantize.onnx import blocks, nibbles, rewrite, storage

from ..onnx_models import distance, encode


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("level", "limit"), [(0, 1e-5), (1, 1e-5), (4, 0.05)])
@pytest.mark.parametrize("rows", [1, 7, 40])
def test_the_kernel_multiplies_by_the_dequantized_weights(bits: int, level: int, limit: float, rows: int) -> None:
    """Half of the 4-bit scales are negative; the kernels must take them as they are."""
    import onnx_ir as ir
    import onnxruntime

    generator = np.random.default_rng(1)
    weight = generator.normal(size=(96, 256)).astype(np.float32)
    packed = blocks.eight_bit(weight)
    if bits == 4:
        packed = blocks.four_bit([encode("a", weight[:64]), encode("b", weight[64:])])
    assert (packed.scales < 0).any() == (bits == 4)
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([None, 256]))
    y = ir.Value(name="y", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([None, 96]))
    graph = ir.Graph([x], [y], nodes=[], name="one", opset_imports={"": 21, "com.microsoft": 1})
    table = storage.initializer(graph, "weight", weight.T)
    node = ir.Node("", "MatMul", [x, table], outputs=[y], name="multiply")
    graph.append(node)
    rewrite.matmul_blocks(graph, node, "weight", packed)
    graph[0].attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", level)
    model = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
    values = generator.normal(size=(rows, 256)).astype(np.float32)
    engine = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert distance(engine.run(None, {"x": values})[0], values @ blocks.dequantize(packed).T) < limit


def test_eight_bit_blocks_follow_q8_0() -> None:
    import gguf

    weight = np.random.default_rng(2).normal(size=(8, 64)).astype(np.float32)
    weight[3, :32] = 0
    theirs = gguf.quants.dequantize(gguf.quants.quantize(weight, gguf.GGMLQuantizationType.Q8_0),
                                    gguf.GGMLQuantizationType.Q8_0)
    np.testing.assert_array_equal(blocks.dequantize(blocks.eight_bit(weight)), theirs)


def test_an_eight_bit_product_made_of_four_bit_ones_does_not_round_its_inputs() -> None:
    """Rounded to eight bits, 16 x would leave x four of them."""
    import onnx_ir as ir
    import onnxruntime

    generator = np.random.default_rng(3)
    packed = blocks.eight_bit(generator.normal(size=(96, 256)).astype(np.float32))
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, None, 256]))
    y = ir.Value(name="y", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, None, 96]))
    graph = ir.Graph([x], [y], nodes=[], name="one", opset_imports={"": 21, "com.microsoft": 1})
    node = ir.Node("", "MatMul", [x, storage.initializer(graph, "weight", np.zeros((256, 96), np.float32))],
                   outputs=[y], name="multiply")
    graph.append(node)
    rewrite.matmul_blocks(graph, node, "weight", packed)
    model = ir.to_proto(nibbles.twin(ir.Model(graph, ir_version=10))).SerializeToString()
    values = generator.normal(size=(1, 5, 256)).astype(np.float32)
    engine = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert distance(engine.run(None, {"x": values})[0], values @ blocks.dequantize(packed).T) < 1e-5
