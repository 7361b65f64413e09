"""From the builder's float32 decoder graph to the one that ships: names, sizes and weights of the chosen scheme."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.errors import ArtifactError
from ..codes import Codes, fits
from .blocks import eight_bit, four_bit
from .rewrite import gather_blocks, matmul_blocks
from .storage import constant

Encode = Callable[[str, NDArray[np.float32]], Codes]
Read = Callable[[str], NDArray[np.float32]]
LAYER = re.compile(r"model\.layers\.(\d+)\.(attn|mlp)\.(\w+)\.MatMul\.weight")
ROOMS = {"attn": "self_attn", "mlp": "mlp"}
PACKED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
HEAD = "lm_head.MatMul.weight"
EMBEDDING = "model.embed_tokens.weight"
PINNED = "install the onnxruntime-genai version of constraints.txt"


def source_names(name: str) -> list[str]:
    """The checkpoint's names of the matrices that a graph weight holds, one below the other.

    Raises ArtifactError for a weight that stands for no known layer: it would stay in float unnoticed.
    """
    if name == HEAD:
        return ["lm_head.weight"]
    found = LAYER.fullmatch(name)
    if found is None:
        raise ArtifactError(f"the ONNX graph multiplies by {name!r}, which belongs to no known layer", PINNED)
    layer, room, module = found.groups()
    return [f"model.layers.{layer}.{ROOMS[room]}.{part}.weight" for part in PACKED.get(module, (module,))]


def compress(model: Any, read: Read, bits: int, encode: Encode) -> None:
    """Replace every weight of the graph in place: layers at `bits`, embedding and output layer at 8 bits.

    `read` gives the checkpoint's matrices [out, in] by its own names; `encode` gives the codes where `bits` is 4. A
    layer whose rows do not divide by 32 keeps 8 bits, as GGUF falls back for it. Raises ArtifactError where the graph
    holds other numbers than the checkpoint, such as queries and keys in each other's place.
    """
    (lookup,) = (node for node in model.graph if node.op_type == "Gather" and node.inputs[1].name == "input_ids")
    tied = constant(lookup.inputs[0]) is None  # then it reads the output layer's weight, transposed
    for node in list(model.graph):
        if node.op_type != "MatMul" or (table := constant(node.inputs[1])) is None:
            continue
        name = str(node.inputs[1].name)
        names = [EMBEDDING] if tied and name == HEAD else source_names(name)
        parts = _parts(name, names, table, read)
        if bits == 4 and name != HEAD and fits(table.shape[0]):
            blocks = four_bit([encode(part, matrix) for part, matrix in parts.items()])
        else:
            blocks = eight_bit(table.T)
        matmul_blocks(model.graph, node, name.removesuffix(".MatMul.weight"), blocks)
    # The very bytes of a tied output layer, so that the file holds them once.
    gather_blocks(model.graph, lookup, EMBEDDING.removesuffix(".weight"), read(EMBEDDING))


def _parts(name: str, names: list[str], table: NDArray[np.float32], read: Read) -> dict[str, NDArray[np.float32]]:
    """The checkpoint's matrices that `table` [in, out] must be made of, compared number by number."""
    parts = {part: read(part) for part in names}
    if not np.array_equal(np.concatenate(list(parts.values())), table.T):
        raise ArtifactError(f"the ONNX graph holds other numbers in {name} than the checkpoint in {', '.join(names)}",
                            PINNED)
    return parts


def fix_cache_shapes(model: Any, heads: int, head_size: int) -> None:
    """Write heads and head size of the cache as numbers: the builder leaves the last one a symbol, and runtimes that
    size the cache from the graph (transformers.js) then make it empty."""
    import onnx_ir as ir

    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.name.startswith(("past_key_values.", "present.")):
            value.shape = ir.Shape([value.shape[0], heads, value.shape[2], head_size])


def limit_window(model: Any, window: int) -> None:
    """Let every layer look back `window` tokens at most, itself included; the builder leaves this out for mistral."""
    import onnx_ir as ir

    for node in model.graph:
        if node.op_type == "GroupQueryAttention":
            node.attributes["local_window_size"] = ir.AttrInt64("local_window_size", window)
