"""The files that a decoder can become, in bytes by type: of a shape as exports make them, or of a file as it stands."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ...models.errors import UsageError
from ...models.scheme import Scheme
from ...models.shape import Shape
from ..files import gguf_header
from .machine_rates import bits

TARGETS = ("gguf:Q4_0", "gguf:mixed", "gguf:Q4_K_M", "gguf:Q8_0", "gguf:F16", "onnx:int4", "onnx:mixed", "onnx:int8")
"""What an estimate lists; exports name more types."""
_MIXED_BYTES = 1.1
"""A mixed file's bytes over those of the plain 4-bit one, as exports deal them out."""
_TEXT_BYTES = {"gguf": 36, "onnx": 0}
"""Of a token, with its share of the merges, in the model's file; an ONNX folder has them beside it."""
_GRAPH_BYTES = 7_000
"""Of a layer in an ONNX graph."""


@dataclass(frozen=True)
class Variant:
    """One file."""

    target: str
    layers: dict[str, int]
    """Type → weights of the layers' matrices, which every token is multiplied with."""
    head: dict[str, int]
    """The same of the output layer, which a prompt's last token alone is."""
    widest: int
    """Bytes of the largest matrix."""
    table_bytes: int
    """Of the embedding, which stands in the file once where it is the output layer, too."""
    file_bytes: int

    @property
    def format(self) -> str:
        """gguf or onnx."""
        return self.target.partition(":")[0]

    @property
    def weights(self) -> Counter[str]:
        """Type → all weights that a step multiplies with."""
        return Counter(self.layers) + Counter(self.head)

    @property
    def read_bytes(self) -> dict[str, float]:
        """Type → bytes of them."""
        return {type: count * bits(type) / 8 for type, count in self.weights.items()}


def planned(shape: Shape, target: str) -> Variant:
    """The file that an export to `target` makes. UsageError for a target that is not known, or not foretold."""
    scheme = Scheme.parse(target)
    name = str(scheme)
    if name not in TARGETS:
        raise UsageError(f"{name}: the bytes of this type are not foretold", f"foretold are {', '.join(TARGETS)}")
    layers = _dealt(shape, scheme)
    wide = {"Q4_K_M": "Q6_K", "F16": "F16"}.get(scheme.type, "Q8_0") if scheme.format == "gguf" else "int8"
    read = wide if shape.tied or scheme.type != "Q4_K_M" else "Q4_K"
    table = round(shape.table_weights * bits(read) / 8)
    head = shape.table_weights * bits(wide) / 8
    inside = sum(count * bits(type) / 8 for type, count in layers.items()) + head + (not shape.tied) * table
    norms = 4 * (2 * shape.layers + 1) * shape.hidden
    rest = shape.vocabulary * _TEXT_BYTES[scheme.format] + (scheme.format == "onnx") * _GRAPH_BYTES * shape.layers
    widest = max(head, max(shape.inner, shape.heads * shape.head_size) * shape.hidden * max(map(bits, layers)) / 8)
    return Variant(name, dict(layers), {wide: shape.table_weights}, round(widest), table, round(inside + norms + rest))


def of_gguf(header: gguf_header.Header, file_bytes: int) -> Variant:
    """A GGUF file as it stands."""
    matrices = [tensor for tensor in header.tensors if len(tensor.shape) > 1]
    table = next((tensor for tensor in matrices if tensor.name == "token_embd.weight"), None)
    tied = not any(tensor.name == "output.weight" for tensor in matrices)
    layers: Counter[str] = Counter()
    head: Counter[str] = Counter()
    for tensor in matrices:
        if tensor.name == "output.weight" or (tied and tensor is table):
            head[tensor.type] += math.prod(tensor.shape)
        elif tensor is not table:
            layers[tensor.type] += math.prod(tensor.shape)
    return Variant("gguf:file", dict(layers), dict(head), max(tensor.bytes for tensor in matrices),
                   table.bytes if table else 0, file_bytes)


def shape_of_gguf(header: gguf_header.Header) -> Shape:
    """The shape that a GGUF file's header says. UsageError for one with layers that are no attention."""
    sizes = {tensor.name: tensor.shape for tensor in header.tensors}
    heads, hidden = header.dimension("attention.head_count"), header.dimension("embedding_length")
    if not heads or "blk.0.ffn_up.weight" not in sizes or "token_embd.weight" not in sizes:
        raise UsageError(f"a GGUF file of the architecture {header.architecture!r}, whose layers are no plain "
                         "attention", "measure it with edgestill profile")
    return Shape(header.dimension("block_count"), hidden, sizes["blk.0.ffn_up.weight"][1], heads,
                 header.dimension("attention.head_count_kv") or heads,
                 header.dimension("attention.key_length") or hidden // heads, sizes["token_embd.weight"][1],
                 header.dimension("context_length"), "output.weight" not in sizes, "blk.0.ffn_gate.weight" in sizes)


def _dealt(shape: Shape, scheme: Scheme) -> Mapping[str, int]:
    """Type → weights of the layers."""
    whole = shape.layer_weights
    if scheme.type == "mixed":
        four, more = ("IQ4_NL", "Q5_0") if scheme.format == "gguf" else ("int4", "int8")
        table = "Q8_0" if scheme.format == "gguf" else "int8"
        plain = whole * bits("Q4_0" if scheme.format == "gguf" else "int4") + shape.table_weights * bits(table)
        share = min(1.0, (_MIXED_BYTES - 1) * plain / (whole * (bits(more) - bits(four))))
        return {more: round(share * whole), four: whole - round(share * whole)}
    if scheme.type == "Q4_K_M":  # llama.cpp's rule: values and down projections of half of the layers have more bits
        six = sum(layer < shape.layers // 8 or layer >= 7 * shape.layers // 8 or (layer - shape.layers // 8) % 3 == 2
                  for layer in range(shape.layers)) * shape.hidden * (shape.inner + shape.heads_kv * shape.head_size)
        return {"Q6_K": six, "Q4_K": whole - six}
    return {scheme.type: whole}
