"""From the builder's float32 decoder graph to the one that ships: names, sizes and weights of the chosen scheme."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.errors import ArtifactError
from ...models.family import Family
from ..grid.codes import Codes, Encode, fits
from .blocks import eight_bit, four_bit
from .rewrite import gather_blocks, matmul_blocks, swap
from .storage import constant, initializer, let_go

Read = Callable[[str], NDArray[np.float32]]
LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)\.MatMul\.weight")
LAYERS = {
    "attn.qkv_proj": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "mlp.gate_up_proj": ["mlp.gate_proj", "mlp.up_proj"],
    **{f"attn.{name}": [f"self_attn.{name}"] for name in ("q_proj", "k_proj", "v_proj", "o_proj")},
    **{f"mlp.{name}": [f"mlp.{name}"] for name in ("gate_proj", "up_proj", "down_proj")},
}
"""The graph's names of layers → the checkpoint's, for families that name them as llama does."""
HEAD = "lm_head.MatMul.weight"
LOGITS_FROM = "logits_from"
EMBEDDING = "model.embed_tokens.weight"
PINNED = "install the onnxruntime-genai version of constraints.txt"


def source_names(name: str, family: Family) -> list[str]:
    """The checkpoint's matrices that a graph weight holds, one below the other; none for one that stays in float.

    `name:1/2` is the second half of a matrix's rows. Raises ArtifactError for a weight that stands for no known layer:
    it would stay in float unnoticed.
    """
    if name == HEAD:
        return [family.head]
    found = LAYER.fullmatch(name)
    layers = LAYERS | family.builder.layers
    if found is None or found[2] not in layers:
        raise ArtifactError(f"the ONNX graph multiplies by {name!r}, which belongs to no known layer", PINNED)
    parts = (each.partition(":") for each in layers[found[2]])
    return [f"model.layers.{found[1]}.{module}.weight{colon}{share}" for module, colon, share in parts]


def matrices(model: Any, family: Family) -> list[tuple[tuple[str, ...], tuple[int, int]]]:
    """The layers that can be of 4 or 8 bits: the checkpoint's names of each, and the shape [rows, columns] of all."""
    found = []
    for node in model.graph:
        if node.op_type != "MatMul" or (table := constant(node.inputs[1])) is None:
            continue
        name = str(node.inputs[1].name)
        names = () if name == HEAD else tuple(part.partition(":")[0] for part in source_names(name, family))
        if names and fits(table.shape[0]):
            found.append((names, (int(table.shape[1]), int(table.shape[0]))))
    return found


def compress(model: Any, family: Family, read: Read, bits: int, encode: Encode,
             narrow: Container[str] | None = None) -> None:
    """Replace every weight of the graph in place: layers at `bits`, embedding and output layer at 8 bits.

    `read` gives the checkpoint's matrices [out, in] by its own names; `encode` gives the codes where `bits` is 4, of
    the layers whose names stand in `narrow` (None: of all). A layer whose rows do not divide by 32 keeps 8 bits, as
    GGUF falls back for it. Raises ArtifactError where the graph holds other numbers than the checkpoint, such as
    queries and keys in each other's place.
    """
    (lookup,) = (node for node in model.graph if node.op_type == "Gather" and node.inputs[1].name == "input_ids")
    tied = constant(lookup.inputs[0]) is None  # then it reads the output layer's weight, transposed
    for node in list(model.graph):
        if node.op_type != "MatMul" or (table := constant(node.inputs[1])) is None:
            continue
        name = str(node.inputs[1].name)
        names = [EMBEDDING] if tied and name == HEAD else source_names(name, family)
        if not names:
            continue
        parts = _parts(name, names, table, read)
        wide = narrow is not None and names[0].partition(":")[0] not in narrow
        if bits == 4 and name != HEAD and fits(table.shape[0]) and not wide:
            blocks = four_bit([_codes(read, part, matrix, encode) for part, matrix in parts.items()])
        else:
            blocks = eight_bit(table.T)
        weight = node.inputs[1]
        matmul_blocks(model.graph, node, name.removesuffix(".MatMul.weight"), blocks)
        del table
        let_go(weight)
    # The very bytes of a tied output layer, so that the file holds them once.
    gather_blocks(model.graph, lookup, EMBEDDING.removesuffix(".weight"), read(EMBEDDING))


def _parts(name: str, names: list[str], table: NDArray[np.float32], read: Read) -> dict[str, NDArray[np.float32]]:
    """The checkpoint's matrices that `table` [in, out] must be made of, compared number by number."""
    parts = {part: rows_of(read, part) for part in names}
    if not np.array_equal(np.concatenate(list(parts.values())), table.T):
        raise ArtifactError(f"the ONNX graph holds other numbers in {name} than the checkpoint in {', '.join(names)}",
                            PINNED)
    return parts


def rows_of(read: Read, part: str) -> NDArray[np.float32]:
    """A checkpoint's matrix, or the share of its rows behind a colon."""
    name, _, share = part.partition(":")
    whole = read(name)
    return whole[_share(share, len(whole))] if share else whole


def _codes(read: Read, part: str, matrix: NDArray[np.float32], encode: Encode) -> Codes:
    """The codes of a part. A whole matrix is encoded even where a share of it is wanted: other formats, and the other
    shares, then find it done."""
    name, _, share = part.partition(":")
    if not share:
        return encode(name, matrix)
    whole = encode(name, read(name))
    return whole.take(_share(share, len(whole.values)))


def _share(share: str, rows: int) -> slice:
    """The rows of `1/2`, counted from 0."""
    index, _, count = share.partition("/")
    return slice(rows * int(index) // int(count), rows * (int(index) + 1) // int(count))


def fix_cache_shapes(model: Any, heads: int, head_size: int) -> None:
    """Write heads and head size of the cache as numbers: the builder leaves the last one a symbol, and runtimes that
    size the cache from the graph (transformers.js) then make it empty."""
    import onnx_ir as ir

    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.name.endswith((".key", ".value")):
            value.shape = ir.Shape([value.shape[0], heads, value.shape[2], head_size])


def choose_logits(model: Any) -> None:
    """Let a prompt be read without an output layer's row for each of its tokens: `logits_from` is the first position
    whose logits are computed, counted from the end where it is negative.

    It is a constant that a runtime may override: to those that know nothing of it, it is no input, and they get all.
    """
    import onnx_ir as ir

    (logits,) = (value for value in model.graph.outputs if value.name == "logits")
    node = logits.producer()
    while node.op_type not in ("MatMul", "MatMulNBits"):  # what comes after works on single values
        node = node.inputs[0].producer()
    first = initializer(model.graph, LOGITS_FROM, np.zeros(1, np.int64))
    model.graph.inputs.append(first)
    bounds = [initializer(model.graph, name, np.array([value], np.int64))
              for name, value in (("logits_to", np.iinfo(np.int64).max), ("logits_axis", 1))]
    wanted = ir.node("Slice", [node.inputs[0], first, *bounds], name="/lm_head/Slice")
    model.graph.insert_before(node, wanted)
    node.replace_input_with(0, wanted.outputs[0])


def unturn(model: Any, turned: Sequence[int]) -> None:
    """Take the rotation from the layers whose entry in `turned` is 0."""
    import onnx_ir as ir

    layers = [node for node in model.graph if node.op_type == "GroupQueryAttention"]
    for node, turns in zip(layers, turned, strict=bool(turned)):
        if not turns:
            node.attributes["do_rotary"] = ir.AttrInt64("do_rotary", 0)
            for index in (7, 8):  # the tables of cosines and sines
                node.replace_input_with(index, None)


def bound_norms(model: Any, size: int) -> None:
    """Let vectors of `size` values be divided by their length as transformers does it: sqrt(sum of squares + 1e-6).

    The builder leaves the 1e-6 out. A root mean square norm with weights of 1 / sqrt(size) is the same, and one node.
    """
    import onnx_ir as ir

    for node in list(model.graph):
        if node.op_type == "LpNormalization":
            weight = initializer(model.graph, "unit_norm.weight", np.full(size, size**-0.5, np.float32))
            swap(model.graph, node, [ir.node(
                "SimplifiedLayerNormalization", [node.inputs[0], weight], name=node.name,
                attributes={"axis": -1, "epsilon": 1e-6 / size, "stash_type": 1})])


def unround_scale(model: Any, hidden: int) -> None:
    """Multiply embeddings by the square root of `hidden` itself, where the builder rounds it to two digits (Gemma)."""
    import onnx_ir as ir

    (lookup,) = (node for node in model.graph if node.op_type == "Gather" and node.inputs[1].name == "input_ids")
    for node, _ in tuple(lookup.outputs[0].uses()):
        given = ir.convenience.get_const_tensor(node.inputs[1]) if node.op_type == "Mul" else None
        if given is not None and np.isclose(given.numpy(), round(hidden**0.5, 2)):
            node.replace_input_with(1, initializer(model.graph, "embedding.scale", np.array(hidden**0.5, np.float32)))


def limit_window(model: Any, window: int) -> None:
    """Let every layer look back `window` tokens at most, itself included; the builder leaves this out for mistral."""
    import onnx_ir as ir

    for node in model.graph:
        if node.op_type == "GroupQueryAttention":
            node.attributes["local_window_size"] = ir.AttrInt64("local_window_size", window)
