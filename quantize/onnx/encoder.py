"""Encoder weights in int8: matrices with one scale a column, tables in blocks of 32."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .rewrite import gather_blocks, matmul_int8
from .storage import constant

SMALLEST_TABLE = 16
"""Rows below which a table stays in float: two segments are not worth a node of another kind."""


def compress(model: Any) -> None:
    """Replace every weight matrix and table of an encoder graph in place.

    Matrices multiply in int8 with dynamically quantized activations: two to three times as fast as blocks for the few
    tokens of a classified text. Half the bytes of a small encoder are its vocabulary, so tables go to 8 bits, too.
    """
    for node in list(model.graph):
        stem = node.name.removeprefix("node_")
        if node.op_type == "MatMul" and (weight := constant(node.inputs[1])) is not None:
            matmul_int8(model.graph, node, stem, np.asarray(weight, np.float32))
        elif node.op_type == "Gemm" and (weight := constant(node.inputs[1])) is not None:
            weight = weight.T if node.attributes.get_int("transB", 0) else weight
            bias = node.inputs[2] if len(node.inputs) > 2 else None  # one of zeros was optimised away
            matmul_int8(model.graph, node, stem, np.asarray(weight, np.float32), bias)
        elif node.op_type == "Gather" and _is_table(table := constant(node.inputs[0])):
            gather_blocks(model.graph, node, stem, np.asarray(table, np.float32))


def _is_table(array: NDArray[Any] | None) -> bool:
    return array is not None and array.ndim == 2 and array.dtype == np.float32 and len(array) >= SMALLEST_TABLE
